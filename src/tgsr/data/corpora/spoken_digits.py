"""The miniature's world: clips joined from real recordings of spoken digits, with exact word times.

The recordings are the Free Spoken Digit Dataset (CC BY-SA 4.0; assets/fsdd/CREDITS.md): ten digits,
six people, fifty times each. Recordings 0-4 of every digit and speaker, and one speaker completely,
never enter training. Clips are endless: a seed gives one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import soundfile
import soxr

from tgsr.audio import SAMPLE_RATE
from tgsr.disk.whole import whole, write_whole
from tgsr.records import Clip
from tgsr.timeline import Seconds, Span, Word

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HELD_OUT_SPEAKER = "lucas"
HELD_OUT_TAKES = range(5)  # recordings 0-4 of every digit and speaker
SPLITS = ("train", "heldout-recordings", "heldout-speaker")
SHORTEST, LONGEST = 2.0, 10.0  # seconds that a clip is asked to have; of two long words it has more
VOICE_RATES = (0.84, 0.92, 1.0, 1.09, 1.19)  # played at another rate, a person is another voice
LONG_PAUSE: Seconds = 1.0  # gaps are at most 0.6 s or at least 1.1 s, so that the question has one answer
EDGE: Seconds = 0.01  # kept on both sides of a trimmed recording
SOURCE = "Free Spoken Digit Dataset"
LICENCE = "CC BY-SA 4.0"


@dataclass(frozen=True, slots=True)
class Recording:
    """One person saying one digit once: 16 kHz mono, trimmed to the speech."""

    digit: int
    speaker: str
    take: int
    samples: np.ndarray

    @property
    def split(self) -> str:
        return split_of(self.speaker, self.take)


def split_of(speaker: str, take: int) -> str:
    if speaker == HELD_OUT_SPEAKER:
        return "heldout-speaker"
    return "heldout-recordings" if take in HELD_OUT_TAKES else "train"


@dataclass(frozen=True, slots=True)
class DigitClip:
    """A composed clip: its samples and its record (words with exact times and speakers)."""

    samples: np.ndarray
    clip: Clip


def pack(recordings: Path, assets: Path) -> None:
    """The publisher's folder (DIGIT_SPEAKER_TAKE.wav, 8 kHz) as one FLAC file a speaker and an index."""
    index: dict[str, list[list[int]]] = {}
    for speaker in sorted({path.stem.split("_")[1] for path in recordings.glob("*.wav")}):
        parts, rows = [], []
        for path in sorted(recordings.glob(f"*_{speaker}_*.wav")):
            samples, rate = soundfile.read(path, dtype="int16")
            if rate != 8000 or samples.ndim != 1:
                raise ValueError(f"{path}: expected 8 kHz mono, got {rate} Hz and shape {samples.shape}")
            digit, _, take = path.stem.split("_")
            rows.append([int(digit), int(take), len(samples)])
            parts.append(samples)
        with whole(assets / f"{speaker}.flac") as half:
            soundfile.write(half, np.concatenate(parts), 8000, subtype="PCM_16")
        index[speaker] = rows
    write_whole(assets / "index.json", json.dumps(index, separators=(",", ":")) + "\n")


def trim(samples: np.ndarray, rate: int) -> np.ndarray:
    """The recording from the first to the last 10-ms frame within 30 dB of its loudest, and EDGE around.

    The times of a clip's words then mean speech, not the room before and after it.
    """
    frame = rate // 100
    n_frames = len(samples) // frame
    if n_frames == 0:
        return samples
    energy = (samples[: n_frames * frame].reshape(n_frames, frame) ** 2).mean(axis=1)
    loud = np.flatnonzero(energy >= energy.max() * 1e-3)
    edge = round(EDGE * rate)
    return samples[max(0, loud[0] * frame - edge) : (loud[-1] + 1) * frame + edge]


@cache
def recordings(split: str) -> dict[tuple[str, int], tuple[Recording, ...]]:
    """The split's recordings by (speaker, digit). Raises ValueError for an unknown split."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    folder = files("tgsr") / "assets" / "fsdd"
    by_speaker: dict[tuple[str, int], list[Recording]] = {}
    for speaker, rows in json.loads((folder / "index.json").read_text()).items():
        with (folder / f"{speaker}.flac").open("rb") as stream:
            samples, rate = soundfile.read(stream, dtype="float32")
        starts = np.cumsum([n_samples for _, _, n_samples in rows])[:-1]
        for (digit, take, _), part in zip(rows, np.split(samples, starts), strict=True):
            if split_of(speaker, take) == split:  # resampling is what takes long
                resampled = soxr.resample(trim(part, rate), rate, SAMPLE_RATE)
                by_speaker.setdefault((speaker, digit), []).append(Recording(digit, speaker, take, resampled))
    return {key: tuple(value) for key, value in by_speaker.items()}


def said_sequence(rng: np.random.Generator, speakers: list[str], n_words: int) -> list[tuple[str, int]]:
    """(speaker, digit) for each word: one speaker, or two who take turns of one to five digits."""
    spoken: list[tuple[str, int]] = []
    turns = cycle(speakers)
    while len(spoken) < n_words:
        speaker, n_digits = next(turns), min(int(rng.integers(1, 6)), n_words - len(spoken))
        spoken += [(speaker, int(rng.integers(10))) for _ in range(n_digits)]
    return spoken


def compose(
    seed: int,
    split: str,
    *,
    seconds: tuple[Seconds, Seconds] = (SHORTEST, LONGEST),
    two_speakers: float = 0.5,
    clip_id: str | None = None,
    vary_voices: bool = False,
) -> DigitClip:
    """One clip of the split, of a length drawn from `seconds`; the same seed gives the same clip.

    Silences of 0.05-0.6 s lie between the words. Half of the clips are to have one or two that last
    1.1-1.6 s, before words from the 2nd to the 14th; many end earlier: of 2 to 10 s 29 % have one.
    Each clip has its own level (-15 to 0 dB), noise (15-40 dB below the speech) and,
    with probability `two_speakers`, a second speaker (in 45 %: some short ones end before their turn).
    No clip is longer than `seconds[1]`, unless its first two words are (7 s at most): a clip has two words or more.
    With `vary_voices` each speaker is played at one of VOICE_RATES, higher and faster or lower and slower, and is
    named for it: few people then give many voices.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split)))
    pool = recordings(split)
    everybody = sorted({speaker for speaker, _ in pool})
    n_speakers = 2 if rng.random() < two_speakers and len(everybody) > 1 else 1
    speakers = [str(s) for s in rng.choice(everybody, n_speakers, replace=False)]
    rates = {s: float(rng.choice(VOICE_RATES)) if vary_voices else 1.0 for s in speakers}
    length = rng.uniform(*seconds)
    long_pauses: set[int] = set()
    if rng.random() < 0.5:
        long_pauses.update(rng.integers(1, 14, size=1 + int(rng.random() < 0.25)).tolist())

    pieces: list[np.ndarray] = []
    words: list[Word] = []
    position = 0
    for index, (speaker, digit) in enumerate(said_sequence(rng, speakers, 40)):
        if index in long_pauses:
            gap = rng.uniform(1.1, 1.6)
        else:
            gap = rng.uniform(0.05, 0.6) if index == 0 or rng.random() < 0.4 else rng.uniform(0.05, 0.25)
        takes = pool[speaker, digit]
        samples = takes[int(rng.integers(len(takes)))].samples
        if rates[speaker] != 1:
            samples = soxr.resample(samples, SAMPLE_RATE * rates[speaker], SAMPLE_RATE)
        n_gap = round(gap * SAMPLE_RATE)
        if position + n_gap + len(samples) > length * SAMPLE_RATE and len(words) >= 2:
            break
        level = 10 ** (rng.uniform(-3, 3) / 20) * 0.1 / max(1e-6, float(np.sqrt((samples**2).mean())))
        pieces += [np.zeros(n_gap, np.float32), samples * np.float32(level)]
        start = position + n_gap
        position = start + len(samples)
        voice = speaker if rates[speaker] == 1 else f"{speaker} x{rates[speaker]:g}"
        words.append(Word(DIGITS[digit], start / SAMPLE_RATE, position / SAMPLE_RATE, voice, "exact"))
    shortest, longest = (round(bound * SAMPLE_RATE) - position for bound in seconds)
    n_tail = min(round(rng.uniform(0.05, 0.5) * SAMPLE_RATE), max(0, longest))
    pieces.append(np.zeros(max(n_tail, shortest), np.float32))
    speech = np.concatenate(pieces)
    noise = rng.standard_normal(len(speech)).astype(np.float32)
    noise *= np.float32(0.1 * 10 ** (-rng.uniform(15, 40) / 20))
    mixed = (speech + noise) * np.float32(10 ** (-rng.uniform(0, 15) / 20))
    mixed = (mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32)
    # 16 bits: a file gives the same samples back
    mixed = (np.round(mixed * 32767) / np.float32(32768)).astype(np.float32)
    identity = clip_id or f"digits-{split}-{seed:06d}"
    duration, file = len(mixed) / SAMPLE_RATE, f"audio/{identity}.flac"
    return DigitClip(mixed, Clip(identity, file, duration, tuple(words), split, SOURCE, LICENCE))


def speakers_in_order(words: tuple[Word, ...]) -> tuple[str, ...]:
    """Who speaks, in order of their first word."""
    return tuple(dict.fromkeys(word.speaker for word in words if word.speaker is not None))


def pauses(words: tuple[Word, ...]) -> list[Span]:
    """The gaps between words that last longer than LONG_PAUSE."""
    return [Span(a.end, b.start) for a, b in pairwise(words) if b.start - a.end > LONG_PAUSE]
