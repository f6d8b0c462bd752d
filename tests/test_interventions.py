"""Sound that is taken away, kept and moved: what is left, and where it is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgsr.audio import SAMPLE_RATE, Samples
from tgsr.evaluation.controls.interventions import (
    N_RAMP,
    RAMP,
    SCATTERED,
    backwards,
    backwards_spans,
    cropped,
    cropped_spans,
    derangement,
    gain_of,
    kept,
    noise_floor,
    noisy,
    pieces,
    random_stretches,
    removed,
    rolled,
    rolled_spans,
    scattered,
    shifted,
    shifted_spans,
    silenced,
    spoken_over,
)
from tgsr.timeline import Span

PLACE = Span(1.0, 1.5)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def marked(duration: float = 4.0, place: Span = PLACE) -> Samples:
    """Faint noise, and a tone at the place."""
    samples = (0.001 * rng().standard_normal(round(duration * SAMPLE_RATE))).astype(np.float32)
    first, last = round(place.start * SAMPLE_RATE), round(place.end * SAMPLE_RATE)
    samples[first:last] += 0.5 * np.sin(2 * np.pi * 440 * np.arange(last - first) / SAMPLE_RATE).astype("f4")
    return samples


def found(samples: Samples) -> tuple[float, float]:
    """Where the tone is heard, in seconds."""
    loud = np.flatnonzero(np.abs(samples) > 0.1)
    return loud[0] / SAMPLE_RATE, (loud[-1] + 1) / SAMPLE_RATE


def seconds(span: Span) -> slice:
    return slice(round(span.start * SAMPLE_RATE), round(span.end * SAMPLE_RATE))


@pytest.mark.parametrize("fill", ["silence", "noise"])
def test_what_is_kept_and_what_is_removed_make_the_clip(fill: str) -> None:
    samples = marked()
    spans = [PLACE, Span(3.0, 3.4)]
    only, without = (f(samples, spans, fill, rng()) for f in (kept, removed))  # type: ignore[arg-type]
    assert np.array_equal(only[seconds(PLACE)], samples[seconds(PLACE)])
    far = slice(round(2 * SAMPLE_RATE), round(2.9 * SAMPLE_RATE))
    assert np.array_equal(without[far], samples[far])
    assert np.abs(without[seconds(PLACE)]).max() < 0.01
    if fill == "silence":
        assert not without[seconds(PLACE)].any()
        assert not only[far].any()
        assert np.allclose(only + without, samples, atol=1e-6)
    else:
        assert np.sqrt((only[far] ** 2).mean()) == pytest.approx(noise_floor(samples), rel=0.05)


def test_a_cut_in_a_loud_tone_makes_no_click() -> None:
    """A click is a jump: the step between neighbouring samples stays what a sine's own steps are."""
    tone = np.cos(2 * np.pi * 100 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    own = np.abs(np.diff(tone)).max()
    hard = tone.copy()
    hard[4000:8000] = 0
    assert np.abs(np.diff(hard)).max() > 10 * own
    spans = [Span(0.25, 0.5)]
    made = [
        removed(tone, spans, "silence", rng()),
        kept(tone, spans, "silence", rng()),
        shifted(tone, 0.3, "silence", rng()),
        rolled(tone, 0.3333),
        cropped(tone, [Span(0.1, 0.2), Span(0.5, 0.61)]),
    ]
    for samples in made:
        assert np.abs(np.diff(samples)).max() < 1.6 * own


def test_gain_is_whole_inside_and_fades_outside() -> None:
    gain = gain_of([Span(0.1, 0.2)], SAMPLE_RATE)
    assert (gain[1600:3200] == 1).all()
    assert 0 < gain[1600 - N_RAMP] < gain[1599] < 1
    assert not gain[: 1600 - N_RAMP].any()
    assert not gain[3200 + N_RAMP :].any()
    assert gain_of([Span(0.0, 0.001), Span(0.99, 3.0), Span(5.0, 6.0)], SAMPLE_RATE)[-1] == 1
    # two spans whose fades meet are not quieter between than one of them alone
    both = gain_of([Span(0.1, 0.2), Span(0.205, 0.3)], SAMPLE_RATE)
    assert (both >= gain).all()


def test_noise_is_as_loud_as_the_quiet_parts_and_never_nothing() -> None:
    assert noise_floor(marked()) == pytest.approx(0.001, rel=0.1)
    assert noise_floor(np.zeros(16000, np.float32)) == noise_floor(np.zeros(0, np.float32)) == 1e-4
    assert not silenced(marked(), "silence", rng()).any()
    noise = silenced(marked(), "noise", rng())
    assert len(noise) == len(marked())
    assert np.abs(noise).max() < 0.01


@pytest.mark.parametrize("fill", ["silence", "noise"])
def test_a_shift_moves_the_tone_by_delta(fill: str) -> None:
    samples = marked()
    moved = shifted(samples, 0.75, fill, rng())  # type: ignore[arg-type]
    assert len(moved) == len(samples) + 12000
    assert found(moved) == pytest.approx(np.array(found(samples)) + 0.75, abs=1e-3)
    (place,) = shifted_spans([PLACE], 0.75)
    assert found(moved) == pytest.approx((place.start, place.end), abs=1e-3)
    assert np.array_equal(moved[12000 + N_RAMP :], samples[N_RAMP:])
    before = np.sqrt((moved[:12000] ** 2).mean())
    assert before == pytest.approx(0.0 if fill == "silence" else noise_floor(samples), rel=0.05)
    assert len(shifted(samples[:50], 0.75, fill, rng())) == 12050  # type: ignore[arg-type]
    assert np.array_equal(shifted(samples, 0, "noise", rng()), samples)
    with pytest.raises(ValueError, match="delta >= 0"):
        shifted(samples, -1, "silence", rng())


def test_rolling_and_reversing_move_the_tone_where_their_spans_say() -> None:
    samples = marked()
    turned, back = rolled(samples, 2.75), backwards(samples)
    assert len(turned) == len(back) == len(samples)
    # 1.0 + 2.75 = 3.75: across the seam of a clip of 4 s
    assert rolled_spans([PLACE], 2.75, 4.0) == (Span(3.75, 4.0), Span(0.0, 0.25))
    assert rolled_spans([PLACE], 3.0, 4.0)[0].start == 0.0
    (place,) = rolled_spans([PLACE], 1.0, 4.0)
    assert found(rolled(samples, 1.0)) == pytest.approx((place.start, place.end), abs=1e-3)
    (place,) = backwards_spans([PLACE], 4.0)
    assert found(back) == pytest.approx((place.start, place.end), abs=1e-3)
    assert backwards_spans([Span(3.0, 4.04), Span(4.0, 5.0)], 4.0) == (Span(0.0, 1.0),)
    assert np.array_equal(rolled(samples, 4.0), samples)
    assert len(rolled(np.zeros(0, np.float32), 1.0)) == 0


def test_a_crop_is_the_pieces_and_says_where_places_went() -> None:
    samples = marked()
    spans = [Span(0.2, 0.4), Span(0.9, 1.6)]
    cut = cropped(samples, spans)
    assert len(cut) == pytest.approx(sum(p.duration for p in pieces(spans)) * SAMPLE_RATE, abs=1)
    (place,) = cropped_spans([PLACE, Span(2.0, 3.0)], spans)
    assert found(cut) == pytest.approx((place.start, place.end), abs=1e-3)
    # a place of which half is kept
    (half,) = cropped_spans([Span(0.0, 1.0)], [Span(0.5, 0.8)])
    assert (half.start, half.end) == pytest.approx((0.0, 0.3 + 2 * RAMP))
    with pytest.raises(ValueError, match="nothing to keep"):
        cropped(samples, [Span(7.0, 8.0)])


spans_of_a_clip = st.lists(
    st.tuples(st.floats(0, 0.9), st.floats(0.01, 0.2)).map(lambda t: Span(t[0] * 5, min(5, t[0] * 5 + t[1]))),
    min_size=1,
    max_size=4,
)


@given(spans_of_a_clip, st.integers(0, 100))
def test_random_stretches_are_as_long_and_elsewhere(spans: list[Span], seed: int) -> None:
    evidence = pieces(spans)
    stretches = random_stretches(evidence, 6.0, np.random.default_rng(seed))
    assert stretches is not None
    lengths = sorted(s.duration for s in stretches)
    assert lengths == pytest.approx(sorted(s.duration for s in evidence))
    assert all(s.start >= 0 and s.end <= 6.0 for s in stretches)
    for i, stretch in enumerate(stretches):
        for other in [*evidence, *stretches[:i]]:
            assert max(stretch.start - other.end, other.start - stretch.end) >= RAMP - 1e-9


def test_random_stretches_reach_every_free_place_and_none_where_there_is_no_room() -> None:
    starts = [
        random_stretches([PLACE], 3.0, np.random.default_rng(s))[0].start  # type: ignore[index]
        for s in range(300)
    ]
    # free starts: [0, 0.49] and [1.51, 2.5]
    assert min(starts) < 0.05
    assert max(starts) > 2.4
    assert sum(start < 1 for start in starts) / 300 == pytest.approx(0.49 / 1.48, abs=0.1)
    assert random_stretches([Span(0.0, 2.0)], 3.0, rng()) is None
    assert random_stretches([Span(0.0, 1.49)], 3.0, rng()) is not None
    assert random_stretches([], 3.0, rng()) == ()


@pytest.mark.parametrize("n", [2, 3, 8, 9, 10, 17, 100])
def test_nobody_gets_his_own_sound_and_lengths_are_alike(n: int) -> None:
    durations = {f"c{i}": 2.0 + 0.1 * i for i in range(n)}
    others = derangement(durations, rng())
    assert sorted(others) == sorted(others.values()) == sorted(durations)
    assert all(one != other for one, other in others.items())
    assert max(abs(durations[one] - durations[other]) for one, other in others.items()) < 0.95
    assert others == derangement(dict(reversed(durations.items())), rng())


def test_a_single_clip_has_no_other() -> None:
    assert derangement({"a": 1.0}, rng()) == derangement({}, rng()) == {}


@given(st.floats(0.3, 20), st.sampled_from([0, 5, 20, 50, 80, 99, 100]), st.integers(0, 99))
def test_masks_are_short_apart_and_as_much_as_was_asked_for(duration: float, share: float, seed: int) -> None:
    spans = scattered(duration, share, np.random.default_rng(seed))
    assert sum(span.duration for span in spans) == pytest.approx(duration * share / 100, abs=1e-6)
    assert all(span.duration <= SCATTERED[1] + 1e-9 for span in spans)
    ends = [0.0, *(end for span in spans for end in (span.start, span.end)), duration]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(ends))


@pytest.mark.parametrize("snr", [20, 0, -20])
def test_noise_is_so_many_decibels_below_the_clip(snr: float) -> None:
    clip = marked() / 100  # so quiet that nothing is cut off
    noise = noisy(clip, snr, rng()) - clip
    assert 10 * np.log10((clip @ clip) / (noise @ noise)) == pytest.approx(snr, abs=0.2)
    assert np.abs(noisy(marked(), snr, rng())).max() <= 1  # what would be cut off is quieter as a whole


def test_of_nothing_no_noise_is_made() -> None:
    assert not noisy(np.zeros(100, np.float32), 0, rng()).any()
    assert len(noisy(np.zeros(0, np.float32), 0, rng())) == 0


def test_what_is_spoken_over_a_clip_is_no_louder_than_it_and_ends_with_it() -> None:
    clip, speech = marked(), np.full(SAMPLE_RATE, 0.9, np.float32)
    heard = spoken_over(clip, speech, 3.5)
    added = heard - clip
    assert len(heard) == len(clip)
    assert not added[: round(3.5 * SAMPLE_RATE)].any()
    loudness = np.sqrt((added[round(3.5 * SAMPLE_RATE) :] ** 2).mean())
    assert loudness == pytest.approx(np.sqrt((clip**2).mean()), rel=0.01)
    quiet = spoken_over(clip, speech / 1000, 0.0) - clip
    assert quiet[:SAMPLE_RATE] == pytest.approx(np.full(SAMPLE_RATE, 0.0009), abs=1e-5)
