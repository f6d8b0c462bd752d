"""Speech in stretches of at most 29 s: Whisper hears 30 s at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tgsr.audio import SAMPLE_RATE
from tgsr.data.transcribe.speech import FRAME, runs
from tgsr.timeline import Seconds

WINDOW: Seconds = 30.0
LONGEST: Seconds = 28.0  # of speech in a region, and
MARGIN: Seconds = 0.4  # around it
LONGEST_PAUSE: Seconds = 2.0  # in a region; a longer one is left out
SHORTEST: Seconds = 0.1  # of what may be speech
MOST_FIRST, MOST_TOKENS_A_SECOND = 24, 8.0  # of Whisper's tokens; fast speech has five words a second,
MOST_FOREIGN = 24.0  # of other scripts it has a token a byte of some characters
MAYBE = 0.25  # the probability of speech from which it is heard


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of speech: which clip it is from, where it begins there, and its samples; at most 29 s."""

    clip: int
    start: Seconds
    samples: np.ndarray

    @property
    def duration(self) -> Seconds:
        return len(self.samples) / SAMPLE_RATE


def most_tokens(regions: Sequence[Region], is_english: bool) -> int:
    """More of Whisper's tokens than anyone says in the longest of the regions; a loop goes on until it is stopped."""
    a_second = MOST_TOKENS_A_SECOND if is_english else MOST_FOREIGN
    return MOST_FIRST + round(a_second * max(region.duration for region in regions))


def speech_regions(
    samples: np.ndarray,
    clip: int,
    probability: np.ndarray,
    longest: Seconds = LONGEST,
    part: Seconds | None = None,
) -> list[Region]:
    """Stretches around speech, in order, of up to `longest` and a margin; longer speech is cut at pauses in parts of
    up to `part` (None: `longest`). None in silence.

    What may be speech is heard, from MAYBE on (`probability`: speech.py's): Whisper says better than voice activity
    detection what is none.
    """
    maybe = probability >= MAYBE
    bounds: list[list[int]] = []
    for start, end in runs(maybe):
        if bounds and (start - bounds[-1][1]) * FRAME <= LONGEST_PAUSE:
            bounds[-1][1] = end
        else:
            bounds.append([start, end])
    spoken = [(start, end) for start, end in bounds if maybe[start:end].sum() * FRAME >= SHORTEST]
    parts = part or longest
    cut = [
        frames
        for start, end in spoken
        for frames in _cut(probability, start, end, longest if (end - start) * FRAME <= longest else parts)
    ]
    regions = []
    for index, (start, end) in enumerate(cut):
        before = cut[index - 1][1] if index else 0
        after = cut[index + 1][0] if index + 1 < len(cut) else np.inf
        first = max(start - MARGIN / FRAME, (before + start) / 2 if index else 0.0)
        stop = min(end + MARGIN / FRAME, (end + after) / 2, len(samples) / SAMPLE_RATE / FRAME)
        first_sample, stop_sample = round(first * FRAME * SAMPLE_RATE), round(stop * FRAME * SAMPLE_RATE)
        regions.append(Region(clip, first_sample / SAMPLE_RATE, samples[first_sample:stop_sample]))
    return regions


def _cut(probability: np.ndarray, start: int, end: int, seconds: Seconds) -> list[tuple[int, int]]:
    """Frames [start, end) in parts of so many seconds at most, each cut in the longest pause of its last half.

    Whisper ends a part as it ends a sentence. Of a last quarter of 16 s, 36 % of the cuts fell within a sentence; of
    the last half of 20 s, 12 % (benchmarks/asked*), with as many words wrong.
    """
    longest = int(seconds / FRAME)
    if end - start <= longest:
        return [(start, end)]
    first = start + longest // 2
    last_half = probability[first : start + longest]
    pauses = runs(last_half < MAYBE)
    a, b = max(pauses, key=lambda pause: pause[1] - pause[0], default=(int(last_half.argmin()),) * 2)
    middle = first + (a + b) // 2
    return [(start, middle), *_cut(probability, middle, end, seconds)]
