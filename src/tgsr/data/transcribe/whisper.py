"""Words and their times by Whisper on a CPU: faster-whisper with the packaged Whisper base in int8.

Its times come from cross-attention; docs/data.md has their errors beside those of the other back ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tgsr.audio import SAMPLE_RATE
from tgsr.data.transcribe.again import to_hear_again, with_second
from tgsr.data.transcribe.hallucinations import (
    FEW_MORE,
    MOST_COMPRESSED,
    Heard,
    compression,
    once,
    plain,
    repeats,
)
from tgsr.data.transcribe.speech import FRAME, audible, is_speech, runs, speech_probability
from tgsr.data.transcribe.transcript import ENGLISH, Transcript, heard_as, judged
from tgsr.data.transcribe.windows import WINDOW, Region, most_tokens, speech_regions
from tgsr.errors import ModelError
from tgsr.models.packaged_weights import whisper
from tgsr.timeline import Seconds, Word

SOURCE = "whisper"
HEARING = f"{SOURCE}-7"  # names what is kept of what it heard: another number where it hears otherwise
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # languages that faster-whisper cuts within
SHORTEST: Seconds = 0.02  # Whisper's step; it gives some words no length at all
PROGRESS_FROM: Seconds = 60.0
TAIL: Seconds = 3.0  # of silence behind a stretch; with less it begins to loop
MEL_STEP: Seconds = 0.01
BEAM = 3  # about as few errors as with faster-whisper's 5, in less time
PART: Seconds = 20.0  # of speech too long to be heard whole: attention costs the square of a stretch
MOST_LONGER = 1.25  # than the shortest that is heard with it: all are made as long as the longest
LEAST_GAP: Seconds = 0.5  # of speech between two segments, from which Whisper goes on there
MOST_GAPS = 8  # of a window
# punctuation that belongs to the next word, and to the last
BEFORE, AFTER = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"

Progress = Callable[[Seconds, Seconds], None]
"""Is told, while sound is heard, how many seconds of speech were, and how many there are; it may raise to end it."""


@dataclass
class FasterWhisper:
    """CTranslate2's Whisper. `folder` is a model in its format; None is the packaged Whisper base.

    Speech, as voice activity detection finds it, in stretches of up to 29 s, longer speech in parts of 20 s; `at_once`
    of about the same length together, with TAIL of silence behind them instead of the 30 s that Whisper learned on,
    which saves most of the encoder's work. Where somebody speaks and nothing was written it goes on from there; a
    stretch that has no words then is heard by itself, in 30 s; what still has none is a hole of the transcript.
    `language` "en" takes English for granted, "fr" French; None asks Whisper about each clip first, which costs an
    encoder pass a clip, and hears each in its language. FetchError where the packaged weights cannot be had; ModelError
    where the model hears English alone and another language is asked for.
    """

    folder: Path | None = None
    language: str | None = None
    at_once: int = 8
    threads: int = 0
    told: Progress | None = None
    source: str = field(default=SOURCE, init=False)

    def __call__(self, samples: np.ndarray) -> Transcript:
        return self.many([samples])[0]

    def many(self, clips: Sequence[np.ndarray]) -> list[Transcript]:
        """Each clip's transcript, in order."""
        clips = [audible(samples) for samples in clips]
        probabilities = [speech_probability(samples) for samples in clips]
        speech = [is_speech(probability) for probability in probabilities]
        found = [
            speech_regions(samples, index, probabilities[index], part=PART)
            for index, samples in enumerate(clips)
        ]
        model = _model(self.folder, self.threads) if any(found) else None  # which nobody needs for silence
        if self.language not in (None, ENGLISH) and model and not model.model.is_multilingual:
            problem = f"hears English alone, not {self.language!r}; take a multilingual Whisper"
            raise ModelError(f"{self.folder}: {problem}")
        regions: list[Region] = []
        spoken: list[tuple[str | None, float]] = []
        for of_clip in found:
            language, sure = self.language, 1.0
            if of_clip and model and language is None and model.model.is_multilingual:
                longest = max(of_clip, key=lambda region: region.duration)
                language, sure, _ = model.detect_language(longest.samples)
            spoken.append((language if of_clip else None, float(sure)))
            regions += of_clip
        languages = [heard_as(*language) for language in spoken]
        done, seconds = 0.0, sum(region.duration for region in regions)
        heard: list[list[Heard]] = [[] for _ in clips]
        is_short = seconds < PROGRESS_FROM
        with tqdm(desc="hearing", unit="s", total=round(seconds), disable=is_short, leave=False) as bar:
            for region, stretch in self._hear(model, regions, speech, languages, TAIL):
                heard[region.clip].append(stretch)
                bar.update(round(region.duration))
                done += region.duration
                if self.told is not None:
                    self.told(done, seconds)
        again = [
            region
            for index in sorted({region.clip for region in regions})
            for region in to_hear_again(index, clips[index], probabilities[index], heard[index])
        ]
        for region, second in self._hear(model, again, speech, languages, WINDOW):
            heard[region.clip] = with_second(heard[region.clip], region, second, speech[region.clip])
        return [
            judged(stretches, is_spoken, len(samples) / SAMPLE_RATE, SOURCE, *language)
            for stretches, is_spoken, samples, language in zip(heard, speech, clips, spoken, strict=True)
        ]

    def _hear(
        self,
        model: Any,
        regions: Sequence[Region],
        speech: Sequence[np.ndarray],
        languages: Sequence[str],
        tail: Seconds,
    ) -> Iterator[tuple[Region, Heard]]:
        """Each region with what is said in it.

        `speech` says of each clip's frames whether they are, `languages` what each clip is heard in.
        """
        batches: list[list[Region]] = []
        for region in sorted(regions, key=lambda region: (languages[region.clip], region.duration)):
            if (
                not batches
                or len(batches[-1]) == self.at_once
                or languages[region.clip] != languages[batches[-1][0].clip]
                or region.duration + tail > MOST_LONGER * (batches[-1][0].duration + tail)
            ):
                batches.append([])
            batches[-1].append(region)
        for some in batches:
            windows = [_Window(region, speech[region.clip]) for region in some]
            seconds = min(WINDOW, some[-1].duration + tail)
            language = languages[some[0].clip]
            yield from zip(some, _hear_together(model, windows, seconds, language), strict=True)


@dataclass(frozen=True, slots=True)
class _Segment:
    """What Whisper wrote between two of its timestamps, in seconds from the window's start; tokens of text only."""

    start: Seconds
    end: Seconds
    tokens: tuple[int, ...]
    logp: float
    no_speech: float


class _Window:
    """A region while it is heard: its sound, which of its frames are speech, and what was written so far."""

    def __init__(self, region: Region, speech: np.ndarray) -> None:
        self.region = region
        first = round(region.start / FRAME)
        self.speech = speech[first : first + round(region.duration / FRAME)]
        self.segments: list[_Segment] = []
        self.n_gaps = 0
        self._tried: Seconds = 0.0  # no gap is looked for before

    def gap(self) -> Seconds | None:
        """Where speech begins that no segment has, LEAST_GAP of it before the next one; None where none is left."""
        if self.n_gaps == MOST_GAPS:
            return None
        start = 0.0
        for until, end in [*((one.start, one.end) for one in self.segments), (WINDOW, WINDOW)]:
            first = round(max(start, self._tried) / FRAME)
            places = np.flatnonzero(self.speech[first : round(until / FRAME)])
            if len(places) * FRAME >= LEAST_GAP:
                return max(start, (first + int(places[0])) * FRAME)
            start = max(start, end)
        return None

    def add(self, start: Seconds, segments: Sequence[_Segment]) -> None:
        """What Whisper wrote from `start` on; what it had written stays where this ends before it."""
        self.n_gaps += 1
        self._tried = start + LEAST_GAP
        if segments and segments[0].start < start + LEAST_GAP + 1.0:
            before = [one for one in self.segments if one.end <= start + SHORTEST]
            after = [one for one in self.segments if one.start >= segments[-1].end - SHORTEST]
            self.segments = [*before, *segments, *after]


def _hear_together(model: Any, windows: Sequence[_Window], seconds: Seconds, language: str) -> list[Heard]:
    """What is said in each of the windows, which are made so many seconds long, in that language."""
    from faster_whisper.tokenizer import Tokenizer

    how = {"task": "transcribe", "language": language}
    tokenizer = Tokenizer(model.hf_tokenizer, model.model.is_multilingual, **how)
    n_frames = round(seconds / MEL_STEP / 2) * 2  # the encoder halves them
    # Real silence behind the sound: faster-whisper's own padding, zeros of a normalised spectrogram, ends it early.
    padded = [_as_long_as(audible(window.region.samples), n_frames * MEL_STEP) for window in windows]
    mels = [model.feature_extractor(sound)[None, ..., :n_frames] for sound in padded]
    # One by one: what a layer makes of eight is more than the processor's cache holds, and takes half as long again.
    encoded_N = np.concatenate([np.array(model.encode(mel_1CF)) for mel_1CF in mels])
    every = range(len(windows))
    written = _written(model, tokenizer, _rows(encoded_N, every), windows, None)
    for window, segments in zip(windows, written, strict=True):
        window.segments = segments
    while gaps := [(i, gap) for i, window in enumerate(windows) if (gap := window.gap()) is not None]:
        some = [windows[i] for i, _ in gaps]
        starts = [gap for _, gap in gaps]
        written = _written(model, tokenizer, _rows(encoded_N, [i for i, _ in gaps]), some, starts)
        for window, gap, segments in zip(some, starts, written, strict=True):
            window.add(gap, segments)
    full = [i for i in every if windows[i].segments]
    timed = _timed(model, tokenizer, _rows(encoded_N, full), [windows[i] for i in full]) if full else []
    of_window = dict(zip(full, timed, strict=True))
    return [_as_heard(window, of_window.get(i, ())) for i, window in enumerate(windows)]


def _as_long_as(samples: np.ndarray, seconds: Seconds) -> np.ndarray:
    n_samples = round(seconds * SAMPLE_RATE)
    return np.pad(samples[:n_samples], (0, max(0, n_samples - len(samples))))


def _rows(encoded_N: np.ndarray, rows: Sequence[int]) -> Any:
    from ctranslate2 import StorageView

    return StorageView.from_array(np.ascontiguousarray(encoded_N[list(rows)]))


def _written(
    model: Any, tokenizer: Any, encoded: Any, windows: Sequence[_Window], starts: Sequence[Seconds] | None
) -> list[list[_Segment]]:
    """The segments that Whisper writes of each window, from `starts` on, if given; none where it loops."""
    first_time = tokenizer.timestamp_begin
    times = [[first_time + int(start / SHORTEST)] for start in starts] if starts else [[] for _ in windows]
    prompts = [[*tokenizer.sot_sequence, *time] for time in times]
    n_most = most_tokens([window.region for window in windows], tokenizer.language_code == ENGLISH)
    how = {"beam_size": BEAM, "max_length": min(model.max_length, n_most)}
    results = model.model.generate(encoded, prompts, return_scores=True, return_no_speech_prob=True, **how)
    written = []
    for window, time, result in zip(windows, times, results, strict=True):
        ids = result.sequences_ids[0]
        logp = result.scores[0] * len(ids) / (len(ids) + 1)
        segments: list[_Segment] = []
        start, tokens = 0.0, []
        for token in [*time, *ids, first_time + round(window.region.duration / SHORTEST)]:
            if token < tokenizer.eot:
                tokens.append(token)
            elif token >= first_time:
                at = (token - first_time) * SHORTEST
                if tokens:
                    end = max(at, start + SHORTEST)
                    segments.append(_Segment(start, end, tuple(tokens), logp, result.no_speech_prob))
                start, tokens = at, []
        texts = tokenizer.decode([token for segment in segments for token in segment.tokens]).split()
        if repeats(plain(texts)) <= FEW_MORE * len(runs(window.speech)):
            texts = once(texts)
        written.append(segments if compression(" ".join(texts)) <= MOST_COMPRESSED else [])
    return written


def _timed(
    model: Any, tokenizer: Any, encoded: Any, windows: Sequence[_Window]
) -> list[list[tuple[_Segment, Word]]]:
    """Each window's words in the window's time, each with its segment; every window has some."""
    seek = round(WINDOW / MEL_STEP)
    rows: list[list[dict[str, Any]]] = []
    for i, window in enumerate(windows):
        rows.append([])
        for segment in window.segments:
            start, end = i * WINDOW + segment.start, i * WINDOW + segment.end
            rows[-1].append({"tokens": list(segment.tokens), "start": start, "end": end, "seek": i * seek})
    n_frames = [min(seek, round(window.region.duration / MEL_STEP)) for window in windows]
    model.add_word_timestamps(rows, tokenizer, encoded, n_frames, BEFORE, AFTER, 0.0)
    return [
        [
            (segment, word)
            for segment, row in zip(window.segments, of_window, strict=True)
            for word in words_of(row["words"], -i * WINDOW, tokenizer.language_code not in UNSPACED)
        ]
        for i, (window, of_window) in enumerate(zip(windows, rows, strict=True))
    ]


def _as_heard(window: _Window, timed: Sequence[tuple[_Segment, Word]]) -> Heard:
    """The window's words in the clip's time, with the means of their segments' numbers."""
    start, end = window.region.start, window.region.start + window.region.duration
    words = tuple(_inside(word, start, end) for _, word in timed)
    if not words:
        return Heard(())
    logps, silences = zip(*((segment.logp, segment.no_speech) for segment, _ in timed), strict=True)
    return Heard(words, float(np.mean(logps)), float(np.mean(silences)))


MARKS = ",;!?"  # that end a word, with or without a blank after them


def words_of(words: Iterable[dict[str, Any]], shift: Seconds, has_blanks: bool = True) -> list[Word]:
    """faster-whisper's words, `shift` seconds later, as ours: never without text.

    Where a language `has_blanks` between its words, what begins without one is part of the word before: faster-whisper
    cuts " twenty", "-five", " Aujourd", "'hui" and " 43,", "000"; but not "8,", "7,", "9", which are three.
    """
    found: list[Word] = []
    for word in words:
        text = word["word"].strip()
        if not text:
            continue
        start, end = float(word["start"]) + shift, float(word["end"]) + shift
        end = max(SHORTEST, end, start + SHORTEST)
        sure = round(min(1.0, max(0.0, float(word["probability"]))), 3)
        if found and has_blanks and not word["word"][0].isspace():
            last = found[-1]
            n_marks = len(text) - len(text.lstrip(MARKS))
            if not _goes_on(last.text + text[:n_marks], text[n_marks:]):
                found[-1] = replace(last, text=last.text + text[:n_marks])
                found.append(Word(text[n_marks:], max(0.0, start), end, None, SOURCE, sure))
                continue
            surely = min(last.confidence or 0.0, sure)
            found[-1] = replace(last, text=last.text + text, end=max(last.end, end), confidence=surely)
        else:
            found.append(Word(text, max(0.0, start), end, None, SOURCE, sure))
    return found


def _goes_on(before: str, text: str) -> bool:
    """Whether a text without a blank before it is part of the word before: after a comma only a number's thousands."""
    is_thousands = re.search(r"\d,$", before) and re.match(r"\d{3}(?!\d)", text)
    return not text or before[-1] not in MARKS or bool(is_thousands)


def _inside(word: Word, start: Seconds, end: Seconds) -> Word:
    """The word `start` seconds later, before `end`, never without length."""
    first = min(word.start + start, end - SHORTEST)
    last = min(max(word.end + start, first + SHORTEST), end)
    return replace(word, start=round(first, 3), end=round(last, 3))


@cache
def _model(folder: Path | None, threads: int) -> Any:
    from faster_whisper import WhisperModel

    return WhisperModel(str(folder or whisper()), device="cpu", compute_type="int8", cpu_threads=threads)
