"""Short clips that share a window: what goes in comes out at its own place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgsr.audio import SAMPLE_RATE
from tgsr.data.transcribe.windows import GAP, WINDOW, Region, packed, region_at, sound_of


def region(clip: int, seconds: float) -> Region:
    return Region(clip, 0.0, np.full(round(seconds * SAMPLE_RATE), clip + 1, np.float32))


@given(st.lists(st.floats(0.1, 29), max_size=12))
def test_every_region_is_in_one_window_in_order_and_none_is_too_long(seconds: list[float]) -> None:
    windows = packed([region(i, s) for i, s in enumerate(seconds)])
    assert [placed.region.clip for window in windows for placed in window] == list(range(len(seconds)))
    for window in windows:
        assert window[0].at == 0
        assert window[-1].at + window[-1].region.duration <= WINDOW + 1e-6
        for a, b in itertools.pairwise(window):
            assert b.at - a.at - a.region.duration == pytest.approx(GAP)


def test_the_sound_is_the_regions_with_silence_between() -> None:
    (window,) = packed([region(0, 1.0), region(1, 2.0)])
    sound = sound_of(window)
    assert set(sound[:SAMPLE_RATE]) == {1.0}
    assert set(sound[SAMPLE_RATE : round((1 + GAP) * SAMPLE_RATE)]) == {0.0}
    assert set(sound[round((1 + GAP) * SAMPLE_RATE) : round((3 + GAP) * SAMPLE_RATE)]) == {2.0}


def test_a_word_in_the_gap_belongs_to_the_nearest_region() -> None:
    (window,) = packed([region(0, 1.0), region(1, 2.0)])
    assert [region_at(window, s).region.clip for s in (0.5, 1.1, 1.4, 2.0, 9.0)] == [0, 0, 1, 1, 1]
