"""Stretches of speech: all of it is in one, none is too long, and cuts are where nobody speaks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgsr.audio import SAMPLE_RATE
from tgsr.data.transcribe.speech import FRAME
from tgsr.data.transcribe.whisper import PART
from tgsr.data.transcribe.windows import LONGEST, LONGEST_PAUSE, MARGIN, speech_regions

FRAME_SAMPLES = round(FRAME * SAMPLE_RATE)


def frames(*stretches: tuple[float, float]) -> np.ndarray:
    """(seconds, probability of speech) one after the other, as frames."""
    return np.concatenate(
        [np.full(round(seconds / FRAME), probability) for seconds, probability in stretches]
    )


def bounds(probability: np.ndarray) -> list[tuple[float, float]]:
    samples = np.zeros(len(probability) * FRAME_SAMPLES, np.float32)
    regions = speech_regions(samples, 0, probability)
    return [(region.start, region.start + region.duration) for region in regions]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.2, 40), st.sampled_from([0.0, 0.3, 0.9])), max_size=8))
def test_all_that_may_be_speech_is_in_one_stretch_of_a_window(stretches: list[tuple[float, float]]) -> None:
    probability = frames((0.5, 0.0), *stretches)
    found = bounds(probability)
    assert all(end - start <= LONGEST + 2 * MARGIN + FRAME for start, end in found)
    assert all(before <= start + 1e-3 for (_, before), (start, _) in pairwise(found))
    for frame in np.flatnonzero(probability >= 0.3):
        middle = (frame + 0.5) * FRAME
        assert any(start <= middle <= end for start, end in found)


def test_a_cut_is_in_the_longest_pause_of_the_last_half() -> None:
    """Whisper ends a part as a sentence: a long pause, where one ends, is worth a shorter part."""
    probability = frames((5, 0.9), (1.5, 0), (9.5, 0.9), (0.8, 0), (9.2, 0.9), (0.3, 0), (9, 0.9))
    (_, first), (second, _) = bounds(probability)
    assert first == pytest.approx(5 + 1.5 + 9.5 + 0.4, abs=2 * FRAME)
    assert second == pytest.approx(first)


@pytest.mark.parametrize(("seconds", "n"), [(13.0, 1), (27.5, 1), (30.0, 2), (100.0, 7)])
def test_speech_that_fits_is_heard_whole_and_longer_speech_in_short_parts(seconds: float, n: int) -> None:
    """Attention costs the square of a stretch; a cut may cost a word, so what fits has none."""
    probability = frames((seconds, 0.9))
    samples = np.zeros(len(probability) * FRAME_SAMPLES, np.float32)
    found = [region.duration for region in speech_regions(samples, 0, probability, part=PART)]
    assert sum(found) == pytest.approx(seconds, abs=FRAME)
    assert len(found) == 1 if n == 1 else n <= len(found) and max(found) <= PART + MARGIN


def test_speech_without_any_pause_is_cut_where_it_is_least_sure() -> None:
    probability = frames((60, 0.9))
    probability[round(25 / FRAME)] = 0.6
    assert bounds(probability)[0][1] == pytest.approx(25, abs=2 * FRAME)


def test_a_long_pause_is_left_out_and_a_short_one_is_not() -> None:
    assert len(bounds(frames((2, 0.9), (LONGEST_PAUSE + 0.1, 0), (2, 0.9)))) == 2
    assert len(bounds(frames((2, 0.9), (LONGEST_PAUSE - 0.1, 0), (2, 0.9)))) == 1


def test_a_click_is_not_heard() -> None:
    assert bounds(frames((2, 0), (0.032, 0.9), (2, 0))) == []
    assert bounds(np.zeros(0)) == []
