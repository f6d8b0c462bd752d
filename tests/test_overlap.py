"""Spans against spans: table 1, traces, crops, sound event detection, and means with intervals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgsr.evaluation.scoring.event_f1 import event_counts, pooled_f1, segment_counts
from tgsr.overlap import evidence_crop, high_overlap, item_f1, item_iou, trace_iou
from tgsr.statistics.intervals import bootstrap_mean
from tgsr.timeline import Span

SPANS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 300)).map(lambda t: Span(t[0] / 100, (t[0] + t[1]) / 100)),
    max_size=4,
)


def test_a_repeated_interval_weighs_once_in_trace_iou() -> None:
    reference = [Span(0, 2), Span(4, 6)]
    assert trace_iou([Span(0, 2), Span(0, 2), Span(5, 6)], reference) == pytest.approx((1 + 0.5) / 2)


def test_a_trace_without_times_is_unscored_and_not_zero() -> None:
    assert trace_iou([], [Span(0, 1)]) is None
    assert trace_iou([Span(0, 1)], []) is None
    assert trace_iou([Span(8, 9)], [Span(0, 1)]) == 0.0


def test_a_crop_is_padded_cut_and_merged() -> None:
    spans = [Span(8, 9.8), Span(2, 3), Span(0.2, 1.2), Span(2, 3), Span(12, 13)]
    assert evidence_crop(spans, duration=10) == [Span(0, 3.5), Span(7.5, 10)]


def test_a_crop_of_spans_past_the_end_is_empty() -> None:
    # 10.2 - 0.5 lies inside the clip, but nothing of the span does
    assert evidence_crop([Span(10.2, 11), Span(10, 12)], duration=10) == []
    assert evidence_crop([], duration=10) == []


def test_a_crop_cannot_be_narrower_than_its_spans() -> None:
    with pytest.raises(ValueError, match="-1"):
        evidence_crop([Span(0, 1)], duration=10, pad=-1)


@given(SPANS, st.floats(0.1, 8), st.floats(0, 1))
def test_crop_pieces_are_disjoint_and_inside(spans: list[Span], duration: float, pad: float) -> None:
    pieces = evidence_crop(spans, duration, pad)
    assert all(piece.end <= duration for piece in pieces)
    assert all(first.end < second.start for first, second in itertools.pairwise(pieces))
    inside = [span for span in spans if span.start < duration]
    assert all(
        any(piece.start <= span.start and min(span.end, duration) <= piece.end for piece in pieces)
        for span in inside
    )


def test_only_the_first_predicted_span_answers_a_phrase() -> None:
    assert item_iou([Span(0, 1), Span(2, 4)], Span(2, 4)) == 0.0
    assert item_iou([Span(2, 3), Span(9, 10)], Span(2, 4)) == 0.5
    assert item_iou([], Span(2, 4)) == 0.0


def test_item_f1_is_the_f1_of_shared_time() -> None:
    predicted, reference = Span(1, 4), Span(2, 6)
    precision, recall = 2 / 3, 2 / 4
    expected = 2 * precision * recall / (precision + recall)
    assert item_f1(predicted.iou(reference)) == pytest.approx(expected)
    assert (item_f1(0), item_f1(1)) == (0, 1)


def test_the_threshold_itself_is_high_overlap() -> None:
    assert high_overlap(0.7)
    assert not high_overlap(0.6999)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("length", [0.5, 1.0, 2.0, 3.0])
def test_a_threshold_that_is_reached_is_so_wherever_in_the_clip(threshold: float, length: float) -> None:
    # seven tenths of it are seven tenths at 0.2 s too, where (2.3 - 0.2) / (3.2 - 0.2) is 0.6999999999999998
    for start in (tenth / 10 for tenth in range(100)):
        reference = Span(start, round(start + length, 4))
        predicted = Span(start, round(start + threshold * length, 4))
        assert high_overlap(predicted.iou(reference), threshold)
        assert not high_overlap(Span(start, predicted.end - 0.001).iou(reference), threshold)


def test_none_is_left_out_of_the_mean_and_counted() -> None:
    mean = bootstrap_mean([1.0, None, 0.0, None], ["a", "a", "b", "c"])
    assert (mean.value, mean.n, mean.n_unscored) == (0.5, 2, 2)
    assert (mean.low, mean.high) == (0.0, 1.0)


def test_nothing_scored_has_no_mean() -> None:
    mean = bootstrap_mean([None, None], ["a", "b"])
    assert (mean.value, mean.low, mean.high, mean.n, mean.n_unscored) == (None, None, None, 0, 2)
    assert bootstrap_mean([], []).value is None


def test_one_clip_says_nothing_of_the_spread_between_clips() -> None:
    mean = bootstrap_mean([0.0, 1.0, 1.0, 1.0], ["a"] * 4)
    assert (mean.value, mean.low, mean.high) == (0.75, None, None)


def test_copies_of_a_clip_do_not_narrow_the_interval() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    once = bootstrap_mean(values, list(range(5)))
    copied = bootstrap_mean(values * 20, list(range(5)) * 20)
    assert (once.value, once.low, once.high) == (copied.value, copied.low, copied.high)
    assert bootstrap_mean(values * 20, list(range(100))).low > once.low


def test_the_interval_is_that_of_a_large_sample() -> None:
    values = np.random.default_rng(1).normal(size=2000)
    mean = bootstrap_mean(values.tolist(), list(range(2000)), seed=3)
    half_width = 1.96 * values.std() / math.sqrt(2000)
    assert mean.low is not None
    assert mean.high is not None
    assert mean.high - mean.low == pytest.approx(2 * half_width, rel=0.15)
    assert mean == bootstrap_mean(values.tolist(), list(range(2000)), seed=3)
    assert mean != bootstrap_mean(values.tolist(), list(range(2000)), seed=4)


def test_nan_and_missing_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        bootstrap_mean([math.nan], ["a"])
    with pytest.raises(ValueError, match="2 clusters"):
        bootstrap_mean([1.0], ["a", "b"])


Clips = list[tuple[list[Span], list[Span]]]


def segment_f1(clips: Clips) -> float | None:
    return pooled_f1(segment_counts(predicted, reference) for predicted, reference in clips)


def event_f1(clips: Clips) -> float | None:
    return pooled_f1(event_counts(predicted, reference) for predicted, reference in clips)


def test_segments_that_a_span_only_touches_are_active() -> None:
    # active seconds: predicted 0, 1, 2; reference 1, 2, 3
    assert segment_f1([([Span(0.9, 2.1)], [Span(1.0, 3.5)])]) == pytest.approx(2 * 2 / (3 + 3))


def test_event_ends_may_differ_by_half_the_length() -> None:
    reference = [Span(1, 5)]
    assert event_f1([([Span(1.1, 6.9)], reference)]) == 1.0
    assert event_f1([([Span(1.1, 7.1)], reference)]) == 0.0
    assert event_f1([([Span(1.3, 5)], reference)]) == 0.0


def test_events_are_matched_to_give_the_most_pairs() -> None:
    # the first prediction meets both references, the second only the first one
    reference = [Span(1.0, 2.0), Span(1.3, 2.3)]
    assert event_f1([([Span(1.15, 2.1), Span(0.85, 2.0)], reference)]) == 1.0


def test_nothing_predicted_has_no_f1() -> None:
    assert segment_f1([([], [Span(0, 1)])]) is None
    assert event_f1([([], [Span(0, 1)])]) is None
    assert segment_f1([]) is None
    assert event_f1([([Span(5, 6)], [Span(0, 1)])]) == 0.0


@given(st.lists(st.tuples(SPANS, SPANS), min_size=1, max_size=3))
def test_event_matching_is_the_best_of_all_assignments(clips: list[tuple[list[Span], list[Span]]]) -> None:
    def n_best(predicted: list[Span], reference: list[Span]) -> int:
        smaller, larger = sorted((predicted, reference), key=len)
        orders = itertools.permutations(larger, len(smaller))
        return max(
            sum(_meets(a, b, larger is reference) for a, b in zip(smaller, o, strict=True)) for o in orders
        )

    n_hits = sum(n_best(predicted, reference) for predicted, reference in clips)
    n_predicted, n_reference = (sum(len(clip[side]) for clip in clips) for side in (0, 1))
    expected = 2 * n_hits / (n_predicted + n_reference) if n_predicted and n_reference else None
    assert event_f1(clips) == expected


def _meets(small: Span, large: Span, large_is_reference: bool) -> bool:
    span, other = (small, large) if large_is_reference else (large, small)
    slack = max(0.2, 0.5 * other.duration)
    return abs(span.start - other.start) <= 0.2 and abs(span.end - other.end) <= slack


@pytest.mark.parametrize(("collar", "length_share"), [(0.2, 0.5), (0.5, 0.2), (0.1, 0.0)])
def test_both_sound_event_scores_are_those_of_sed_eval(collar: float, length_share: float) -> None:
    sed_eval = pytest.importorskip("sed_eval")
    rng = np.random.default_rng(0)
    clips = [(_random_spans(rng), _random_spans(rng)) for _ in range(60)]
    clips += [([Span(s.start + 0.05, s.end + 0.05) for s in right], right) for _, right in clips[:30]]
    by_segment = sed_eval.sound_event.SegmentBasedMetrics(["speech"], time_resolution=1.0)
    by_event = sed_eval.sound_event.EventBasedMetrics(
        ["speech"], t_collar=collar, percentage_of_length=length_share
    )
    for number, (predicted, reference) in enumerate(clips):
        rows = [_rows(spans, number) for spans in (reference, predicted)]
        by_segment.evaluate(rows[0], rows[1], evaluated_length_seconds=20.0)
        by_event.evaluate(rows[0], rows[1])
    expected = by_segment.results_overall_metrics()["f_measure"]["f_measure"]
    assert segment_f1(clips) == pytest.approx(expected)
    expected = by_event.results_overall_metrics()["f_measure"]["f_measure"]
    assert pooled_f1(event_counts(*clip, collar, length_share) for clip in clips) == pytest.approx(expected)


def _random_spans(rng: np.random.Generator) -> list[Span]:
    starts = np.sort(rng.uniform(0, 15, size=rng.integers(1, 4))).round(2)
    return [Span(float(start), float(start + rng.uniform(0.3, 3))) for start in starts]


def _rows(spans: list[Span], number: int) -> list[dict[str, object]]:
    return [
        {"file": f"{number}.wav", "event_label": "speech", "event_onset": s.start, "event_offset": s.end}
        for s in spans
    ]
