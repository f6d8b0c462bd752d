"""Forced alignment: the words are known, their times are looked for. Whisper hears words better than it times them.

A back end takes a short stretch of sound with its words and gives each word's span. Longer clips are cut at pauses
first, so that one stretch that fails costs no other its times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tgsr.audio import SAMPLE_RATE
from tgsr.data.alignments.alignment import Alignment, missing_in
from tgsr.data.alignments.marks import kind
from tgsr.data.alignments.timed import Timed
from tgsr.data.transcribe.spelling import readings, spell
from tgsr.errors import ModelError
from tgsr.records import UNALIGNED
from tgsr.timeline import Seconds, Span, Word

if TYPE_CHECKING:
    from torch import Tensor

LONGEST: Seconds = 15.0  # of a stretch; a pause of PAUSE may end it earlier
PAUSE: Seconds = 0.4
MARGIN: Seconds = 0.3  # of sound around a stretch, never more than half of the pause
A_SOUND: Seconds = 0.15  # of speech that may be a word
LEAST_UNHEARD: Seconds = 1.0  # of speech in a row, beyond what the words around it can be: some three words
MARK = re.compile(r"(?<!\S)(\[[^\]]*\]|<[^>]*>|\{[^}]*\})(?!\S)")  # in a publisher's text
# From where a word was heard: an aligned start beyond is believed in wordless speech alone.
FURTHEST: Seconds = 1.0


class Aligner(Protocol):
    """The spans of words that are said one after the other, and nothing else is; `source` goes into the words.

    `languages` are those that it knows (ISO 639), None where its vocabulary decides.
    """

    source: str
    languages: frozenset[str] | None

    def __call__(self, samples: np.ndarray, words: Sequence[str]) -> Sequence[Span | None] | None:
        """16 kHz mono and its words -> a span a word, in seconds from the first sample; None where it fails."""
        ...


def aligned(
    words: Sequence[Word], samples: np.ndarray, aligner: Aligner, speech: Sequence[Span] = ()
) -> tuple[tuple[Word, ...], tuple[str, ...]]:
    """The words with the aligner's times, and flags: UNALIGNED where some keep the times that they came with.

    `words` are in order, each with its first guess (Whisper's times), which says where to cut and is kept where
    alignment fails or moves a word by more than FURTHEST. Whisper may put a word on the wrong side of a pause: `speech`
    is where somebody speaks; what little of it has no words in a pause is searched, too, and believed. Confidence stays
    the first back end's.
    """
    duration = len(samples) / SAMPLE_RATE
    earliest = (0.0, *(word.end for word in words))  # where each word may start
    latest = (*(word.start for word in words[1:]), duration)
    timed: list[Word] = []
    failed = False
    for stretch, bounds in stretches(words, duration, speech):
        inside = samples[round(bounds.start * SAMPLE_RATE) : round(bounds.end * SAMPLE_RATE)]
        aligned_spans = aligner(inside, [word.text for word in stretch])
        spans: Sequence[Span | None] = aligned_spans or [None] * len(stretch)
        for word, span in zip(stretch, spans, strict=True):
            start = bounds.start + span.start if span else 0.0
            # Whisper's words may begin with the pause before them, so that only their ends are near.
            near = word.start - FURTHEST <= start <= word.end + FURTHEST
            is_spoken = any(one.start - MARGIN <= start < one.end for one in speech)
            alone = is_spoken and earliest[len(timed)] <= start <= latest[len(timed)]
            if span is None or not (near or alone):
                failed = True
                timed.append(word)
            else:
                end = round(min(bounds.start + span.end, duration), 3)
                timed.append(replace(word, start=round(start, 3), end=end, source=aligner.source))
    return tuple(sorted(timed, key=lambda word: word.start)), (UNALIGNED,) if failed else ()


def aligned_text(text: str, samples: np.ndarray, aligner: Aligner) -> Alignment | None:
    """A text that is all that is said, as words with times; None where alignment fails. For short clips.

    What stands alone in square, pointed or curly brackets is no word: of `<unk>` something is missing between the
    words around it, of `[laughter]` nothing.
    """
    pieces = MARK.split(text)  # words, a mark, words, ...
    said = [piece.split() if n % 2 == 0 else [piece] for n, piece in enumerate(pieces)]
    tokens = [token for words in said[::2] for token in words]
    found = aligner(samples, tokens) if tokens else None
    spans = [span for span in found or () if span]
    if found is None or len(spans) < len(found):
        return None
    left = iter(spans)
    entries: list[Word | Timed] = []
    for n, texts in enumerate(said):
        if n % 2:
            if kind(texts[0]) == "unknown":
                entries.append(Timed(aligner.source, "", None, None, None))
            continue
        timed = zip(texts, islice(left, len(texts)), strict=True)
        entries += [Word(t, round(s.start, 3), round(s.end, 3), None, aligner.source) for t, s in timed]
    words = tuple(entry for entry in entries if isinstance(entry, Word))
    return Alignment(words, tuple(missing_in(entries)))


def stretches(
    words: Sequence[Word], duration: Seconds, speech: Sequence[Span] = ()
) -> list[tuple[list[Word], Span]]:
    """The words in runs of up to LONGEST seconds between pauses, each with the part of the clip to be searched.

    A pause in which somebody speaks, for less than the second that is a hole, ends no run: which side that word belongs
    to is found by searching both together; so are such stretches before the first word and after the last.
    """
    runs: list[list[Word]] = []
    for word in words:
        last = runs[-1][-1] if runs else None
        is_pause = last is not None and word.start - last.end >= PAUSE
        is_end = last and is_pause and not _spoken_between(speech, last.end, word.start)
        if not runs or is_end or word.end - runs[-1][0].start > LONGEST:
            runs.append([])
        runs[-1].append(word)
    cut = []
    for index, run in enumerate(runs):
        before = runs[index - 1][-1].end if index else 0.0
        after = runs[index + 1][0].start if index + 1 < len(runs) else duration
        start = max(0.0, run[0].start - min(MARGIN, max(0.0, (run[0].start - before) / 2)))
        end = min(duration, run[-1].end + min(MARGIN, max(0.0, (after - run[-1].end) / 2)))
        if index == 0 and (said := _spoken_between(speech, before, run[0].start)):
            start = min(start, max(0.0, said.start - MARGIN))
        if index == len(runs) - 1 and (said := _spoken_between(speech, run[-1].end, after)):
            end = max(end, min(duration, said.end + MARGIN))
        cut.append((run, Span(start, max(end, start + 0.02))))
    return cut


def _spoken_between(speech: Sequence[Span], start: Seconds, end: Seconds) -> Span | None:
    """From where to where somebody speaks between two words, a MARGIN from both: A_SOUND or more, less than a hole."""
    inside = [
        Span(max(one.start, start + MARGIN), min(one.end, end - MARGIN))
        for one in speech
        if min(one.end, end - MARGIN) - max(one.start, start + MARGIN) > 0.001
    ]
    seconds = sum(one.duration for one in inside)
    return Span(inside[0].start, inside[-1].end) if A_SOUND <= seconds < LEAST_UNHEARD else None


# --- PocketSphinx ----------------------------------------------------------------------------------------------

LETTERS = {
    **{"a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH"},
    **{"j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R"},
    **{"s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "Y", "z": "Z"},
    **{"ch": "CH", "sh": "SH", "th": "TH", "ph": "F", "ng": "NG", "ck": "K", "qu": "K W"},
    **{"ee": "IY", "ea": "IY", "oo": "UW", "ai": "EY", "ay": "EY", "ou": "AW", "ow": "OW", "igh": "AY"},
    **{"er": "ER", "ar": "AA R", "or": "AO R", "oy": "OY", "oi": "OY"},
}
"""How an unknown word is taken to sound: letters to phones, longest first. To find it, that is enough."""
_SOUNDS = re.compile("|".join(sorted(LETTERS, key=len, reverse=True)))


@dataclass
class PocketSphinx:
    """CMU's aligner, English, 10-ms steps; it comes with its model."""

    source: str = field(default="forced-alignment", init=False)
    languages: frozenset[str] | None = field(default=frozenset({"en"}), init=False)

    def __call__(self, samples: np.ndarray, words: Sequence[str]) -> list[Span | None] | None:
        if len(samples) < SAMPLE_RATE // 20:
            return None
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
        spoken = _as_said(pcm, words)
        spans = _spans(pcm, [part for parts in spoken for part in parts])
        return None if spans is None else _joined(spoken, [(span.start, span.end) for _, span in spans])


def _as_said(pcm: bytes, words: Sequence[str]) -> list[tuple[str, ...]]:
    """The parts of each word. Of several readings (1985) it is the one that fits the sound: each is a pronunciation of
    one dictionary entry, and the aligner says which it took.
    """
    ways = [readings(word) for word in words]
    if all(len(way) == 1 for way in ways):
        return [way[0] for way in ways]
    decoder = _decoder()
    entries: list[list[str]] = []
    for way in ways:
        if len(way) == 1:
            entries.append(list(way[0]))
            continue
        entries.append(["|".join("_".join(reading) for reading in way)])
        if decoder.lookup_word(entries[-1][0]) is None:
            for n, reading in enumerate(way):
                phones = " ".join(decoder.lookup_word(part) or sounds(part) for part in reading)
                decoder.add_word(entries[-1][0] + (f"({n + 1})" if n else ""), phones, True)
    names = iter(_spans(pcm, [entry for of_word in entries for entry in of_word]) or ())
    spoken = []
    for way, of_word in zip(ways, entries, strict=True):
        taken = [name for name, _ in islice(names, len(of_word))]
        number = re.search(r"\((\d+)\)$", taken[0]) if len(way) > 1 and taken else None
        spoken.append(way[int(number[1]) - 1 if number else 0])
    return spoken


def _spans(pcm: bytes, parts: Sequence[str]) -> list[tuple[str, Span]] | None:
    """Each part, as the aligner names the pronunciation that it took ("two(3)" is the third), with its span; None where
    it finds no way through.
    """
    if not parts:
        return None
    decoder = _decoder()
    for part in set(parts):
        if decoder.lookup_word(part) is None:
            decoder.add_word(part, sounds(part), True)
    try:
        decoder.set_align_text(" ".join(parts))
        decoder.reinit_feat()  # else what was aligned before moves words by some hundredths
        decoder.start_utt()
        decoder.process_raw(pcm, no_search=False, full_utt=True)
        decoder.end_utt()
        found = [
            (one.word, Span(one.start_frame / 100, max(one.end_frame, one.start_frame) / 100 + 0.01))
            for one in decoder.seg() or ()
            if not one.word.startswith(("<", "[", "("))
        ]
    except RuntimeError:  # its beam has lost all paths: the words are not those that are said
        return None
    return found if [re.sub(r"\(\d+\)$", "", name) for name, _ in found] == list(parts) else None


def _joined(spoken: Sequence[Sequence[str]], times: Sequence[tuple[Seconds, Seconds]]) -> list[Span | None]:
    """One span for all parts of a word, None where they have no length together; a word without parts (a dash) gets
    0.01 s after the one before.
    """
    joined: list[Span | None] = []
    first = 0
    last = 0.0
    for parts in spoken:
        if parts:
            start, last = times[first][0], times[first + len(parts) - 1][1]
            joined.append(Span(start, last) if start < last else None)
        else:
            joined.append(Span(last, last + 0.01))
            last += 0.01
        first += len(parts)
    return joined


@cache
def _decoder() -> Any:
    from pocketsphinx import Decoder

    # Narrower beams, its own among them, lose speakers with an accent; wider ones cost nothing and find no more.
    beam = {name: 1e-100 for name in ("beam", "wbeam", "pbeam")}
    return Decoder(samprate=SAMPLE_RATE, bestpath=False, loglevel="FATAL", **beam)


def sounds(word: str) -> str:
    """Phones for a word that no dictionary has."""
    return " ".join(LETTERS[letters] for letters in _SOUNDS.findall(word)) or "AH"


# --- CTC -------------------------------------------------------------------------------------------------------


@dataclass
class Ctc:
    """Any CTC model over letters by folder or hub id (wav2vec2, HuBERT, MMS): Viterbi over its own frames.

    ModelError where it cannot be loaded.
    """

    name: str
    device: str = "cpu"
    source: str = field(default="ctc", init=False)
    languages: frozenset[str] | None = field(default=None, init=False)

    def __call__(self, samples: np.ndarray, words: Sequence[str]) -> list[Span | None] | None:
        import torch

        model, extractor, tokenizer = self._loaded
        vocabulary = tokenizer.get_vocab()
        upper = "A" in vocabulary
        # Numbers are spelled in English; the letters of other languages are those of the vocabulary.
        spelled = ["".join(spell(word)) if word.isascii() else word.casefold() for word in words]
        known = [[a for a in (word.upper() if upper else word) if a in vocabulary] for word in spelled]
        ids = [vocabulary[letter] for letters in known for letter in letters]
        if not ids or len(samples) < SAMPLE_RATE // 20:
            return None
        batch = extractor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        with torch.no_grad():
            logits = model(batch["input_values"].to(self.device)).logits[0].float().cpu()
        path = ctc_path(logits.log_softmax(-1), ids, int(tokenizer.pad_token_id))
        if path is None:
            return None
        step = len(samples) / SAMPLE_RATE / len(logits)
        return _joined(known, [(first * step, stop * step) for first, stop in path])

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        """Model, feature extractor, tokenizer."""
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

        try:
            model = AutoModelForCTC.from_pretrained(self.name, use_safetensors=True).to(self.device).eval()
            parts = AutoFeatureExtractor.from_pretrained(self.name), AutoTokenizer.from_pretrained(self.name)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"{self.name}: cannot be loaded as a CTC model: {error}") from error
        return (model, *parts)


def ctc_path(logp_TV: Tensor, ids: Sequence[int], blank: int) -> list[tuple[int, int]] | None:
    """The likeliest alignment of L tokens to T frames: each token's first frame and the one after its last.

    Viterbi over blank, token, blank, token, ..., blank; a blank between two equal tokens must be passed. None where
    there are fewer frames than the tokens need. Source: Graves et al. 2006, with max for the sum.
    """
    import torch

    n_frames = len(logp_TV)
    states = torch.full((2 * len(ids) + 1,), blank)
    states[1::2] = torch.tensor(list(ids))
    emitted_TS = logp_TV[:, states]
    may_skip_S = torch.zeros(len(states), dtype=torch.bool)
    may_skip_S[3::2] = states[3::2] != states[1:-2:2]
    score_S = torch.full((len(states),), -torch.inf)
    score_S[:2] = emitted_TS[0, :2]
    came_TS = torch.zeros(n_frames, len(states), dtype=torch.long)
    for frame in range(1, n_frames):
        stay = score_S
        step = torch.cat([torch.tensor([-torch.inf]), score_S[:-1]])
        skip = torch.cat([torch.tensor([-torch.inf] * 2), score_S[:-2]]).masked_fill(~may_skip_S, -torch.inf)
        best, came_TS[frame] = torch.stack([stay, step, skip]).max(0)
        score_S = best + emitted_TS[frame]
    state = len(states) - 1 if score_S[-1] >= score_S[-2] else len(states) - 2
    if not torch.isfinite(score_S[state]):
        return None
    frames: list[list[int]] = [[] for _ in ids]
    for frame in range(n_frames - 1, -1, -1):
        if state % 2:
            frames[state // 2].append(frame)
        state -= int(came_TS[frame, state])
    return [(min(of_token), max(of_token) + 1) for of_token in frames]


# --- Qwen3 -----------------------------------------------------------------------------------------------------

QWEN3 = "Qwen/Qwen3-ForcedAligner-0.6B-hf"
QWEN3_LANGUAGES = frozenset({"zh", "yue", "en", "fr", "de", "it", "ja", "ko", "pt", "ru", "es"})


@dataclass
class Qwen3:
    """Qwen3-ForcedAligner, by folder or hub id, through transformers' own class: one forward a stretch, 80-ms steps.

    A word whose start and end are the same step has no span, as its users report of short words. Chinese characters are
    timed one by one; Japanese and Korean by the words that are given, not by those of its own splitters (nagisa,
    soynlp). ModelError where it cannot be loaded.
    """

    name: str = QWEN3
    device: str = "cpu"
    source: str = field(default="qwen3-aligner", init=False)
    languages: frozenset[str] | None = field(default=QWEN3_LANGUAGES, init=False)

    def __call__(self, samples: np.ndarray, words: Sequence[str]) -> list[Span | None] | None:
        import torch

        model, processor = self._loaded
        parts = [processor.split_words_for_alignment(word) for word in words]
        if not any(parts) or len(samples) < SAMPLE_RATE // 20:
            return None
        inputs, tokens = processor.prepare_forced_aligner_inputs(samples, " ".join(words))
        inputs = inputs.to(model.device, model.dtype)
        with torch.no_grad():
            logits = model(**inputs).logits.float()
        marker = model.config.timestamp_token_id
        (timed,) = processor.decode_forced_alignment(logits, inputs["input_ids"], tokens, marker)
        return _joined(parts, [(token["start_time"], token["end_time"]) for token in timed])

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """Model and processor; in bfloat16 where it is not on a CPU."""
        import torch
        from transformers import AutoModelForTokenClassification, AutoProcessor

        dtype = torch.float32 if self.device == "cpu" else torch.bfloat16
        try:
            how: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
            model = AutoModelForTokenClassification.from_pretrained(self.name, **how)
            processor = AutoProcessor.from_pretrained(self.name)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ModelError(f"{self.name}: cannot be loaded as Qwen3's aligner: {error}") from error
        if model.config.model_type != "qwen3_asr":
            problem = f"is a {model.config.model_type}, not Qwen3's aligner"
            raise ModelError(f"{self.name}: {problem}; a model of letters is --align ctc:MODEL")
        return model.to(self.device).eval(), processor


@cache
def aligner_of(name: str, device: str) -> Aligner | None:
    """The aligner that is called so: "pocketsphinx", "ctc:MODEL", "qwen3", "qwen3:MODEL"; None for "none"."""
    if name == "none":
        return None
    if name.startswith("ctc:"):
        return Ctc(name.removeprefix("ctc:"), device)
    if name.startswith("qwen3"):
        return Qwen3(name.removeprefix("qwen3").removeprefix(":") or QWEN3, device)
    return PocketSphinx()
