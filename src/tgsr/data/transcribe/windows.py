"""Speech in windows of 30 s, which is what Whisper hears at a time: several short clips share one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tgsr.audio import SAMPLE_RATE
from tgsr.timeline import Seconds

WINDOW: Seconds = 30.0
GAP: Seconds = 0.5  # of silence between two regions, so that words of different clips stay apart


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of speech: which clip it is from, where it begins there, and its samples; at most 29 s."""

    clip: int
    start: Seconds
    samples: np.ndarray

    @property
    def duration(self) -> Seconds:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Placed:
    """A region in a window, and where in the window it begins."""

    region: Region
    at: Seconds


def speech_regions(samples: np.ndarray, clip: int = 0) -> list[Region]:
    """Stretches of up to 29 s around speech, in order; a pause is the cut wherever there is one. None in silence.

    Voice activity detection is silero's, which comes with faster-whisper.
    """
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    spoken = get_speech_timestamps(samples, VadOptions(max_speech_duration_s=WINDOW - 1))
    bounds: list[list[int]] = []
    for stretch in spoken:
        start, end = int(stretch["start"]), int(stretch["end"])
        if bounds and end - bounds[-1][0] <= (WINDOW - 1) * SAMPLE_RATE:
            bounds[-1][1] = end
        else:
            bounds.append([start, end])
    return [Region(clip, start / SAMPLE_RATE, samples[start:end]) for start, end in bounds]


def packed(regions: Sequence[Region]) -> list[list[Placed]]:
    """The regions in order in as few windows as this order allows, GAP apart."""
    windows: list[list[Placed]] = []
    filled = WINDOW
    for region in regions:
        if filled + GAP + region.duration > WINDOW:
            windows.append([])
            filled = -GAP
        windows[-1].append(Placed(region, filled + GAP))
        filled += GAP + region.duration
    return windows


def sound_of(window: Sequence[Placed]) -> np.ndarray:
    """The window's samples, silence between its regions."""
    last = window[-1]
    sound = np.zeros(round((last.at + last.region.duration) * SAMPLE_RATE) + 1, np.float32)
    for placed in window:
        first = round(placed.at * SAMPLE_RATE)
        sound[first : first + len(placed.region.samples)] = placed.region.samples
    return sound


def region_at(window: Sequence[Placed], seconds: Seconds) -> Placed:
    """The region that is heard there, or the one that is nearest."""
    return min(window, key=lambda one: max(one.at - seconds, seconds - one.at - one.region.duration, 0.0))
