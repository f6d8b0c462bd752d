"""Word times of long recordings: ours beside the tools that people use; writes word_times.json and docs/word-times.md.

Every tool hears the same sound with the same Whisper base, in one process and one thread, in turn; a tool that cannot
be imported is named and left out. Times are known without any aligner: recordings are joined from parts with pauses of
known length, each part cut to its sound (30 dB below its loudest 10 ms), so that what begins and ends a part begins and
ends with it. Of the words inside a part only the text is known.

    pip install whisper-timestamped stable-ts          # in an environment that also has tgsr
    OMP_NUM_THREADS=1 python benchmarks/word_times.py --queen FOLDER --textgrids FOLDER

--queen is where `tgsr fetch amazon-queen` has put the package (acted dialogue), --textgrids a folder of recordings with
TextGrids that people made. `--page` writes the page's tables anew from the JSON and hears nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hearing import plain

from tgsr import audio
from tgsr.audio import SAMPLE_RATE
from tgsr.cli import script
from tgsr.data.corpora.spoken_digits import DIGITS, compose, recordings, trim
from tgsr.data.transcribe.speech import runs
from tgsr.records import Clip, read_clips
from tgsr.timeline import Seconds

HERE = Path(__file__).parent
RESULT = HERE / "word_times.json"
PAGE = HERE.parent / "docs" / "word-times.md"
BEGIN, END = "<!-- tables of benchmarks/word_times.json -->", "<!-- end of the tables -->"
LEVEL, NOISE = 0.1, 0.001  # RMS of a part, and of the room behind all of them
FAR: Seconds = 0.2  # an error that a listener notices
LOST = 3  # words in a row that nobody wrote: a stretch is lost
PART_PAUSE: Seconds = 0.15  # between two words, from which a sentence is cut into parts
APART, BREATH, WEAK = (
    0.1,
    0.4,
    10**-1.2,
)  # s from speech, s long at most, of the loudest power: a breath, no word
SAME, OTHER = 0.0, 1.0  # what it costs to read a word as another


@dataclass(frozen=True, slots=True)
class Said:
    """A word that is said: about when (`at`), and when exactly it starts and ends, None where nobody knows."""

    text: str
    at: Seconds
    start: Seconds | None = None
    end: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    kind: str
    samples: np.ndarray
    said: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A word that a tool wrote; times are None where it gave none."""

    text: str
    start: Seconds | None
    end: Seconds | None


Tool = Callable[[Recording], list[Written]]


# --- Recordings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """Speech that begins and ends with its words; these have no times, or some that are known, from its start."""

    samples: np.ndarray
    words: tuple[Said, ...]


def part_of(samples: np.ndarray, texts: Sequence[str]) -> Part:
    """Speech cut to its sound: when its first word starts and its last one ends is known."""
    sound = without_breath(samples)
    seconds = len(sound) / SAMPLE_RATE
    words = [Said(text, seconds * (n + 0.5) / len(texts)) for n, text in enumerate(texts)]
    words[0] = replace(words[0], start=0.0)
    words[-1] = replace(words[-1], end=seconds)
    return Part(sound, tuple(words))


def without_breath(samples: np.ndarray) -> np.ndarray:
    """Speech cut to its sound as the digits are, less the short weak sounds that stand apart at its ends."""
    sound = trim(samples, SAMPLE_RATE)
    frame = SAMPLE_RATE // 100
    power = (sound[: len(sound) // frame * frame].reshape(-1, frame) ** 2).mean(1)
    close = round(APART * 100)
    loud = np.convolve(power >= power.max() * 1e-3, np.ones(close), "same") > 0  # nearer sounds are one
    islands = [
        (a, b) for a, b in runs(loud) if (b - a) / 100 >= BREATH or power[a:b].max() >= power.max() * WEAK
    ]
    first, stop = islands[0][0], islands[-1][1]
    return trim(sound[first * frame : stop * frame], SAMPLE_RATE)


def joined(kind: str, parts: Sequence[Part], pauses: Sequence[Seconds], seed: int = 0) -> Recording:
    """A pause, a part, a pause, ..., a pause; all in the noise of a quiet room."""
    pieces: list[np.ndarray] = []
    said: list[Said] = []
    position = 0.0
    for part, pause in zip([*parts, None], pauses, strict=True):
        pieces.append(np.zeros(round(pause * SAMPLE_RATE), np.float32))
        position += len(pieces[-1]) / SAMPLE_RATE
        if part is not None:
            loud = float(np.sqrt((part.samples**2).mean())) or 1.0
            pieces.append((part.samples * (LEVEL / loud)).astype(np.float32))
            said += [_later(word, position) for word in part.words]
            position += len(pieces[-1]) / SAMPLE_RATE
    sound = np.concatenate(pieces)
    noise = np.random.default_rng(seed).standard_normal(len(sound)) * NOISE
    return Recording(kind, np.clip(sound + noise, -1, 1).astype(np.float32), tuple(said))


def _later(word: Said, seconds: Seconds) -> Said:
    start, end = (None if time is None else time + seconds for time in (word.start, word.end))
    return Said(word.text, word.at + seconds, start, end)


def sentences() -> list[tuple[Clip, np.ndarray]]:
    """The packaged sentences of LibriSpeech, whose texts were read against the books."""
    folder = HERE.parent / "src" / "tgsr" / "assets" / "english"
    return [(clip, audio.load(folder / clip.audio)) for clip in read_clips(folder / "clips.jsonl")]


def parts_of(clip: Clip, samples: np.ndarray) -> list[Part]:
    """A sentence cut in the middle of its pauses. Which words stand on which side is all that its alignment tells."""
    cuts = [
        0.0,
        *((a.end + b.start) / 2 for a, b in pairwise(clip.words) if b.start - a.end >= PART_PAUSE),
        clip.duration,
    ]
    parts = []
    for start, end in pairwise(cuts):
        texts = [word.text for word in clip.words if start <= (word.start + word.end) / 2 < end]
        parts.append(part_of(samples[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)], texts))
    return parts


def digits(seed: int) -> Recording:
    made = [compose(seed, split, seconds=(8.0, 10.0)) for split in ("heldout-recordings", "heldout-speaker")]
    samples = np.concatenate([one.samples for one in made])
    said: list[Said] = []
    before = 0.0
    for one in made:
        said += [_later(Said(w.text, w.start, w.start, w.end), before) for w in one.clip.words]
        before += len(one.samples) / SAMPLE_RATE
    return Recording("digits", samples, tuple(said))


def repeated(rng: np.random.Generator) -> Recording:
    """One word many times, as people do who count, insist or stammer."""
    pool = recordings("heldout-recordings")
    speakers = sorted({speaker for speaker, _ in pool})
    parts, pauses = [], [0.5]
    for speaker in speakers[:3]:
        digit = int(rng.integers(10))
        for take in pool[speaker, digit][:5]:
            parts.append(part_of(take.samples, [DIGITS[digit]]))
            pauses.append(float(rng.uniform(0.15, 0.4)))
        pauses[-1] = 1.5
    return joined("repeated words", parts, pauses)


def music(seconds: Seconds, rng: np.random.Generator) -> np.ndarray:
    """Chords of decaying tones with a beat; RMS 0.1."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    out = np.zeros(len(t))
    for beat in np.arange(0, seconds, 0.5):
        since = np.clip(t - beat, 0, None)
        root = 110 * 2 ** (float(rng.choice([0, 3, 5, 7, 8])) / 12)
        envelope = np.exp(-3 * since) * (t >= beat)
        for ratio in (1, 1.25, 1.5, 2, 3, 4):
            out += envelope * np.sin(2 * np.pi * root * ratio * since) / ratio
        out += 0.5 * np.exp(-40 * since) * (t >= beat) * rng.standard_normal(len(t))
    return (0.1 * out / np.sqrt((out**2).mean())).astype(np.float32)


NUMBERS = (
    ("The house was built in", "1985", "by a man from York"),
    ("we sold it for", "$43,000", "at the end of March"),
    ("the train leaves at", "7:45", "from the other side"),
    ("about", "21", "people came"),
    ("my number is", "4 0 7", "as you can see"),
)
AS_SAID = {
    "$43,000": "forty three thousand dollars",
    "1985": "nineteen eighty five",
    "7:45": "seven forty five",
}


def numbers() -> Recording:
    """Numbers between two pauses, by flite: no recording under a free licence has many with known times."""
    parts, pauses = [], [0.4]
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/said.wav"
        for sentence in NUMBERS:
            for phrase in sentence:
                text = AS_SAID.get(phrase, phrase)
                subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", file], check=True)
                parts.append(part_of(audio.load(file), plain(text)))
                pauses.append(0.3)
            pauses[-1] = 0.9
    return joined("numbers", parts, pauses)


def dialogue(package: Path, rng: np.random.Generator, n: int = 10) -> Recording:
    """Lines of the freeware game, acted by several people."""
    from tgsr.data.corpora.amazon_queen import read
    from tgsr.data.corpora.folders import Given

    parts = []
    with tempfile.TemporaryDirectory() as folder:
        clips = [
            one
            for one in islice(read(package, Given(relative_to=Path(folder))), 300)
            if isinstance(one, Clip)
        ]
        whole = [clip for clip in clips if clip.text and re.fullmatch(r"[A-Za-z' ,.!?-]{12,}", clip.text)]
        for index in sorted(rng.choice(len(whole), min(n, len(whole)), replace=False)):
            clip = whole[index]
            parts.append(part_of(audio.load(Path(folder) / clip.audio), str(clip.text).split()))
    return joined("acted dialogue", parts, [0.5, *rng.uniform(0.2, 1.2, len(parts))])


def of_people(folder: Path) -> Recording:
    """Recordings with a TextGrid of the same name, whose tier of words was made by hand."""
    from tgsr.data.alignments.reading import read_alignment

    parts = []
    for grid in sorted(folder.glob("*.TextGrid")):
        words = read_alignment(grid)[""].words
        samples = audio.load(next(path for path in folder.glob(f"{grid.stem}.*") if path != grid))
        parts.append(Part(samples, tuple(Said(w.text, w.start, w.start, w.end) for w in words)))
    return joined("people's TextGrids", parts, [0.5] * (len(parts) + 1))


def all_recordings(
    queen: Path | None, textgrids: Path | None, seed: int
) -> tuple[list[Recording], list[str]]:
    """What is heard, and which kinds cannot be had here."""
    rng = np.random.default_rng(seed)
    heard = [(clip, samples) for clip, samples in sentences() if clip.split == "test"]
    parts = [parts_of(clip, samples) for clip, samples in heard]
    shortest = sorted(parts[3:], key=lambda of_clip: sum(len(part.samples) for part in of_clip))

    def read(kind: str, some: Sequence[list[Part]], before: Seconds, between: Seconds) -> Recording:
        """Sentences with a silence before the first and between two; known pauses of other lengths inside."""
        pauses = [before]
        for of_clip in some:
            pauses += [*rng.choice((0.3, 0.5, 1.0, 3.0), len(of_clip) - 1).tolist(), between]
        return joined(kind, [part for of_clip in some for part in of_clip], [*pauses[:-1], 1.0])

    found = [
        digits(seed + 70000),
        read("read, pauses of 0.3 to 3 s", parts[:3], 0.3, 1.0),
        read("read, a silence of 35 s", shortest[:2], 3.0, 35.0),
        repeated(rng),
        under_music(read("music", shortest[2:4], 8.0, 5.0), rng),
    ]
    missing = []
    if shutil.which("flite"):
        found.append(numbers())
    else:
        missing.append("numbers: flite is not there (Debian: flite)")
    for kind, path, make in (
        ("acted dialogue", queen, lambda path: dialogue(path, rng)),
        ("people's TextGrids", textgrids, of_people),
    ):
        if path is None:
            missing.append(f"{kind}: not given")
        else:
            found.append(make(path))
    return found, missing


def under_music(recording: Recording, rng: np.random.Generator) -> Recording:
    """The same, with music 12 dB below the speech under all of it; where nobody speaks there is music alone."""
    sound = recording.samples + music(len(recording.samples) / SAMPLE_RATE, rng)[: len(recording.samples)] / 4
    return replace(recording, samples=np.clip(sound, -1, 1).astype(np.float32))


# --- Tools -----------------------------------------------------------------------------------------------------


def tools() -> tuple[dict[str, Callable[[], Tool]], list[str]]:
    """Each tool, loaded when it is called for, and why others are missing."""
    there: dict[str, Callable[[], Tool]] = {
        "tgsr": ours,
        "faster-whisper, sequential": faster_whisper,
        "faster-whisper, batched": faster_whisper_batched,
    }
    missing = ["whisperX: no package has its aligner's weights (wav2vec 2.0), without which it times no word"]
    for name, module, load in (
        ("whisper-timestamped", "whisper_timestamped", whisper_timestamped),
        ("stable-ts", "stable_whisper", stable_ts),
    ):
        if find_spec(module):
            there[name] = load
        else:
            missing.append(f"{name}: is not installed")
    there["PocketSphinx, alone"] = pocketsphinx
    there["PocketSphinx, told the words"] = pocketsphinx_told
    return there, missing


def ours() -> Tool:
    """`tgsr transcribe --language en`, all but reading the file."""
    from tgsr.data.transcribe.clips import Transcription, together

    settings = Transcription(root=".", language="en", threads=1)

    def hear(recording: Recording) -> list[Written]:
        clip = Clip("recording", "recording", len(recording.samples) / SAMPLE_RATE)
        (heard,) = together([(clip, recording.samples)], settings)
        return [Written(word.text, word.start, word.end) for word in heard.words]

    return hear


def faster_whisper() -> Tool:
    return _by_faster_whisper(_ctranslate2())


def faster_whisper_batched() -> Tool:
    from faster_whisper import BatchedInferencePipeline

    return _by_faster_whisper(BatchedInferencePipeline(_ctranslate2()))


def _ctranslate2() -> Any:
    from faster_whisper import WhisperModel

    from tgsr.models.packaged_weights import whisper

    return WhisperModel(str(whisper()), device="cpu", compute_type="int8", cpu_threads=1)


def _by_faster_whisper(model: Any) -> Tool:
    def hear(recording: Recording) -> list[Written]:
        segments, _ = model.transcribe(recording.samples, language="en", word_timestamps=True)
        return [
            Written(word.word, word.start, word.end) for segment in segments for word in segment.words or ()
        ]

    return hear


def openai_whisper() -> Any:
    """The packaged Whisper base as openai-whisper's model: the same tensors under its own names."""
    import torch
    import whisper
    from safetensors.torch import load_file

    from tgsr.models.whisper_checkpoint import whisper_for_transformers

    folder = whisper_for_transformers()
    named = load_file(folder / "model.safetensors")
    model = whisper.model.Whisper(whisper.model.ModelDimensions(80, 1500, 512, 8, 6, 51865, 448, 512, 8, 6))
    weights = {openai_name(name): tensor for name, tensor in named.items() if name != "proj_out.weight"}
    model.load_state_dict(weights)
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS["base"])
    torch.set_num_threads(1)
    return model.eval()


OPENAI = (
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"final_layer_norm", "mlp_ln"),
    (r"encoder_attn\.", "cross_attn."),
    (r"self_attn\.", "attn."),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"encoder\.layer_norm", "encoder.ln_post"),
    (r"decoder\.layer_norm", "decoder.ln"),
    (r"embed_tokens", "token_embedding"),
    (r"embed_positions\.weight", "positional_embedding"),
)


def openai_name(name: str) -> str:
    """openai-whisper's name of a tensor of transformers' Whisper."""
    for pattern, other in OPENAI:
        name = re.sub(pattern, other, name)
    return name


def whisper_timestamped() -> Tool:
    import whisper_timestamped

    model = openai_whisper()

    def hear(recording: Recording) -> list[Written]:
        found = whisper_timestamped.transcribe(model, recording.samples, language="en", verbose=None)
        words = [word for segment in found["segments"] for word in segment.get("words", ())]
        return [Written(word["text"], word["start"], word["end"]) for word in words]

    return hear


def stable_ts() -> Tool:
    import stable_whisper

    model = openai_whisper()
    stable_whisper.modify_model(model)

    def hear(recording: Recording) -> list[Written]:
        found = model.transcribe(recording.samples, language="en", verbose=None)
        return [Written(word.word, float(word.start), float(word.end)) for word in found.all_words()]

    return hear


def pocketsphinx() -> Tool:
    """Its recogniser as it comes, over the whole recording."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")
    return lambda recording: _decoded(decoder, recording)


def pocketsphinx_told() -> Tool:
    """Its aligner as it comes, told what is said."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=SAMPLE_RATE, loglevel="FATAL")

    def hear(recording: Recording) -> list[Written]:
        words = [part for word in recording.said for part in plain(word.text)]
        known = [word for word in words if decoder.lookup_word(word) is not None]
        try:
            decoder.set_align_text(" ".join(known))
            return _decoded(decoder, recording)
        except RuntimeError:  # it found no way through
            return []

    return hear


def _decoded(decoder: Any, recording: Recording) -> list[Written]:
    pcm = (np.clip(recording.samples, -1, 1) * 32767).astype(np.int16).tobytes()
    decoder.start_utt()
    decoder.process_raw(pcm, no_search=False, full_utt=True)
    decoder.end_utt()
    return [
        Written(re.sub(r"\(\d+\)$", "", one.word), one.start_frame / 100, (one.end_frame + 1) / 100)
        for one in decoder.seg() or ()
        if not one.word.startswith(("<", "[", "("))
    ]


# --- Scores ----------------------------------------------------------------------------------------------------


@dataclass
class Score:
    """What a tool made of some recordings; errors in seconds, of the words that it found."""

    seconds: float = 0.0
    spent: float = 0.0
    n_said: int = 0
    n_found: int = 0
    n_invented: int = 0
    n_lost_stretches: int = 0
    n_untimed: int = 0
    starts: tuple[float, ...] = ()
    ends: tuple[float, ...] = ()

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @classmethod
    def of(cls, row: dict[str, Any]) -> Score:
        """From a row of the JSON."""
        return cls(**{name: tuple(of) if isinstance(of, list) else of for name, of in row.items()})

    def row(self) -> dict[str, float | int | None]:
        """Counts and shares of the words, errors in seconds; None where there is nothing to measure."""
        return {
            "words": self.n_said,
            "found": round(self.n_found / max(1, self.n_said), 3),
            "invented": round(self.n_invented / max(1, self.n_said), 3),
            "lost_stretches": self.n_lost_stretches,
            "without_length": self.n_untimed,
            **_errors("start", self.starts),
            **_errors("end", self.ends),
            "processor_s": round(self.spent, 1),
            "real_time_factor": round(self.spent / self.seconds, 3) if self.seconds else None,
        }


def _errors(of: str, errors: Sequence[float]) -> dict[str, float | None]:
    off = np.abs(errors)
    n = len(errors)
    return {
        f"{of}_median": round(float(np.median(off)), 3) if n else None,
        f"{of}_p90": round(float(np.percentile(off, 90)), 3) if n else None,
        f"{of}_far": round(float((off > FAR).mean()), 3) if n else None,
    }


def scored(said: Sequence[Said], written: Sequence[Written]) -> Score:
    """Words as they are spoken ("1985" is three), matched by the fewest differences, then by the nearest times.

    A stretch is lost where LOST words in a row were said and nothing was written for any of them.
    """
    known = _spoken([(word.text, word.start, word.end, word.at) for word in said])
    found = _spoken([(word.text, word.start, word.end, word.start) for word in written])
    steps = _matched(known, found)
    starts, ends, lost = [], [], [0]
    n_found = 0
    for i, j in steps:
        if i is not None:
            lost = [*lost[:-1], lost[-1] + 1] if j is None else [*lost, 0]
        if i is None or j is None or known[i].text != found[j].text:
            continue
        n_found += 1
        for errors, true, read in (
            (starts, known[i].start, found[j].start),
            (ends, known[i].end, found[j].end),
        ):
            if true is not None and read is not None:
                errors.append(read - true)
    return Score(
        n_said=len(known),
        n_found=n_found,
        n_invented=sum(i is None for i, _ in steps),
        n_lost_stretches=sum(n >= LOST for n in lost),
        n_untimed=sum(
            1 for w in written if plain(w.text) and (w.start is None or w.end is None or w.end <= w.start)
        ),
        starts=tuple(round(float(error), 3) for error in starts),
        ends=tuple(round(float(error), 3) for error in ends),
    )


def _spoken(words: Iterable[tuple[str, Seconds | None, Seconds | None, Seconds | None]]) -> list[Said]:
    """The words as they are said: a number's first has its start, its last one its end."""
    out: list[Said] = []
    for text, start, end, at in words:
        parts = plain(text)
        near = at if at is not None else out[-1].at if out else 0.0
        for n, part in enumerate(parts):
            first, last = n == 0, n == len(parts) - 1
            out.append(Said(part, near, start if first else None, end if last else None))
    return out


def _matched(known: Sequence[Said], found: Sequence[Said]) -> list[tuple[int | None, int | None]]:
    """Pairs of places, (place, None) for a word that is missing, (None, place) for one too many."""
    n, m = len(known), len(found)
    cost = np.zeros((n + 1, m + 1))
    cost[:, 0], cost[0, :] = np.arange(n + 1), np.arange(m + 1)
    times = np.array([word.at for word in found])
    texts = np.array([word.text for word in found], dtype=object)
    for i, word in enumerate(known, 1):
        pair = np.where(texts == word.text, SAME, OTHER) + 1e-4 * np.minimum(np.abs(times - word.at), 60.0)
        for j in range(1, m + 1):
            cost[i, j] = min(cost[i - 1, j - 1] + pair[j - 1], cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    steps: list[tuple[int | None, int | None]] = []
    i, j = n, m
    while i or j:
        if i and cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
            steps.append((i, None))
        elif j and cost[i, j] == cost[i, j - 1] + 1:
            j -= 1
            steps.append((None, j))
        else:
            i, j = i - 1, j - 1
            steps.append((i, j))
    return steps[::-1]


# --- The page --------------------------------------------------------------------------------------------------

ALL = "all"
NAMES = (
    *("tgsr", "faster-whisper, sequential", "faster-whisper, batched", "whisper-timestamped", "stable-ts"),
    *("PocketSphinx, alone", "PocketSphinx, told the words"),
)
COLUMNS = {
    "found": "words found",
    "invented": "invented",
    "lost_stretches": "stretches lost",
    "start_median": "start: median",
    "start_p90": "p90",
    "start_far": "> 0.2 s",
    "end_median": "end: median",
    "end_p90": "p90",
    "end_far": "> 0.2 s",
    "without_length": "without length",
    "real_time_factor": "processor s / s",
}
SHARES = ("found", "invented", "start_far", "end_far")


def tables(result: dict[str, Any]) -> dict[str, str]:
    """The page's tables by name: all recordings that every tool has heard together, then each kind."""
    every = {name for one in result["recordings"] for name in one["tools"]}
    scores: dict[str, dict[str, Score]] = {ALL: {}}
    for recording in result["recordings"]:
        for kind in (*((ALL,) if every == set(recording["tools"]) else ()), recording["kind"]):
            of_kind = scores.setdefault(kind, {})
            for name, row in recording["tools"].items():
                of_kind[name] = of_kind.get(name, Score()) + Score.of(row)
    return {
        kind: _table({name: of[name].row() for name in NAMES if name in of}) for kind, of in scores.items()
    }


def _table(sides: dict[str, dict[str, Any]]) -> str:
    rows = [f"| | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for side, row in sides.items():
        rows.append(f"| {side} | {' | '.join(_cell(name, row[name]) for name in COLUMNS)} |")
    return "\n".join(rows)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name in SHARES:
        return f"{100 * value:.1f} %"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def page_with(page: str, result: dict[str, Any]) -> str:
    """The page with the result's tables between its marks. ValueError where it has none."""
    if not (BEGIN in page and END in page):
        raise ValueError(f"{PAGE.name}: has no marks {BEGIN} and {END}; write them where the tables belong")
    most = max(len(one["tools"]) for one in result["recordings"])
    seconds: dict[str, float] = {}
    for one in result["recordings"]:
        for kind in (*((ALL,) if len(one["tools"]) == most else ()), one["kind"]):
            seconds[kind] = seconds.get(kind, 0.0) + one["seconds"]
    parts = [
        f"{kind.capitalize()}, {seconds[kind]:.0f} s:\n\n{table}" for kind, table in tables(result).items()
    ]
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return "\n\n".join([before + BEGIN, *parts, END + after])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--queen", type=Path, help="Debian's package of the game, or a folder that has it")
    flag("--textgrids", type=Path, help="recordings, each with a TextGrid of its name")
    flag(
        "--tools",
        nargs="+",
        help="those whose names begin so are measured, the rest keep their numbers in --out",
    )
    flag("--kinds", nargs="+", help="these kinds of recordings alone")
    flag("--seed", type=int, default=0)
    flag("--out", type=Path, default=RESULT)
    flag("--words", type=Path, help="what each tool wrote, a line of JSON each")
    flag("--page", action="store_true", help="write the page's tables anew")
    args = parser.parse_args()
    if args.page:
        PAGE.write_text(page_with(PAGE.read_text(), json.loads(RESULT.read_text())))
        return
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("OMP_NUM_THREADS=1 python benchmarks/word_times.py: each tool is to have one thread")
    heard, missing = all_recordings(args.queen, args.textgrids, args.seed)
    heard = [one for one in heard if not args.kinds or one.kind in args.kinds]
    loaders, absent = tools()
    chosen = {
        name: load for name, load in loaders.items() if not args.tools or name.startswith(tuple(args.tools))
    }
    for line in [*missing, *absent]:
        print(f"left out: {line}")
    hear = {name: load() for name, load in chosen.items()}
    for tool in hear.values():  # what is loaded at first use
        tool(replace(heard[0], samples=heard[0].samples[: 5 * SAMPLE_RATE]))
    from timing import about

    kept = json.loads(args.out.read_text())["recordings"] if args.out.exists() else []
    result: dict[str, Any] = {**about(), "left_out": [*missing, *absent], "recordings": kept}
    for recording in heard:
        sound = hashlib.sha256(recording.samples.tobytes()).hexdigest()
        row = next((one for one in kept if one["sound"] == sound), None)
        if row is None:
            seconds = round(len(recording.samples) / SAMPLE_RATE, 1)
            row = {"kind": recording.kind, "seconds": seconds, "sound": sound, "tools": {}}
            kept.append(row)
        for name, tool in hear.items():
            start = time.process_time()
            written = tool(recording)
            spent = time.process_time() - start
            score = scored(recording.said, written)
            score.spent, score.seconds = round(spent, 2), row["seconds"]
            row["tools"][name] = asdict(score)
            args.out.write_text(json.dumps(result, indent=1) + "\n")
            print(f"{recording.kind:30}{name:30}", json.dumps(score.row()), flush=True)
            if args.words:
                said = {
                    "kind": recording.kind,
                    "tool": name,
                    "words": [(w.text, w.start, w.end) for w in written],
                }
                with args.words.open("a") as lines:
                    print(json.dumps(said), file=lines)


if __name__ == "__main__":
    raise SystemExit(script(main))
