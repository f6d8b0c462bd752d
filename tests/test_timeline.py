import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tgsr.timeline import Span, Word, cover, merge

# Whole seconds: unions and intersections can then be counted as sets of seconds, without rounding.
whole_spans = st.tuples(st.integers(0, 30), st.integers(1, 12)).map(
    lambda pair: Span(float(pair[0]), float(pair[0] + pair[1]))
)
seconds = st.floats(0, 1e4, allow_nan=False)
any_spans = (
    st.tuples(seconds, seconds).filter(lambda pair: pair[0] != pair[1]).map(lambda p: Span(*sorted(p)))
)


def cells(*spans: Span) -> set[int]:
    return {second for span in spans for second in range(int(span.start), int(span.end))}


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (-0.1, 1),
        (1, 1),
        (2, 1),
        (math.nan, 1),
        (0, math.nan),
        (0, math.inf),
        (-math.inf, 0),
        (math.inf, math.inf),
    ],
)
def test_a_span_that_is_no_stretch_of_time_is_refused(start: float, end: float) -> None:
    with pytest.raises(ValueError, match="0 <= start < end"):
        Span(start, end)
    with pytest.raises(ValueError, match="0 <= start < end"):
        Word("hello", start, end)


def test_iou_by_hand() -> None:
    assert Span(0, 4).iou(Span(2, 6)) == pytest.approx(2 / 6)
    assert Span(0, 10).iou(Span(4, 5)) == pytest.approx(0.1)
    assert Span(1.5, 2).iou(Span(1.5, 2)) == 1


def test_spans_that_touch_share_no_time() -> None:
    assert Span(0, 1).overlap(Span(1, 2)) == 0
    assert Span(0, 1).iou(Span(1, 2)) == 0


@given(whole_spans, whole_spans)
def test_iou_counts_seconds_as_sets_do(a: Span, b: Span) -> None:
    assert a.overlap(b) == len(cells(a) & cells(b))
    assert a.iou(b) == len(cells(a) & cells(b)) / len(cells(a) | cells(b))


@given(any_spans, any_spans)
def test_iou_is_symmetric_and_never_leaves_0_to_1(a: Span, b: Span) -> None:
    assert a.iou(b) == b.iou(a)
    assert 0 <= a.iou(b) <= 1
    assert a.iou(a) == 1


@given(st.lists(whole_spans, max_size=8))
def test_merging_keeps_every_second_once(spans: list[Span]) -> None:
    merged = merge(spans)
    assert cells(*merged) == cells(*spans)
    assert sum(span.duration for span in merged) == len(cells(*spans))


@given(st.lists(any_spans, max_size=8), st.randoms(use_true_random=False))
def test_merging_knows_no_order_and_is_done_after_once(spans: list[Span], random: object) -> None:
    merged = merge(spans)
    shuffled = list(spans)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merge(shuffled) == merged
    assert merge(merged) == merged
    assert all(earlier.end < later.start for earlier, later in pairwise(merged))


def test_merging_joins_spans_that_touch_and_survives_nesting() -> None:
    assert merge([Span(1, 2), Span(0, 1)]) == [Span(0, 2)]
    assert merge([Span(0, 10), Span(2, 3), Span(9, 11)]) == [Span(0, 11)]
    assert merge([]) == []


@given(st.lists(any_spans, min_size=1, max_size=8))
def test_the_cover_is_the_shortest_span_that_holds_all(spans: list[Span]) -> None:
    whole = cover(spans)
    assert whole is not None
    assert all(whole.start <= span.start and span.end <= whole.end for span in spans)
    assert whole.start in {span.start for span in spans}
    assert whole.end in {span.end for span in spans}


def test_nothing_has_no_cover() -> None:
    assert cover([]) is None
    assert cover(iter([Span(1, 2), Span(5, 6)])) == Span(1, 6)


@given(any_spans, st.floats(0, 10), st.floats(0.1, 1e4))
def test_padding_stays_in_the_clip_and_never_loses_what_was_in_it(
    span: Span, pad: float, duration: float
) -> None:
    padded = span.padded(pad, duration)
    if span.start >= duration:
        assert padded is None
        return
    assert padded is not None
    assert 0 <= padded.start <= span.start
    assert min(span.end, duration) <= padded.end <= duration
    assert padded.duration <= span.duration + 2 * pad + 1e-6


def test_padding_by_hand() -> None:
    assert Span(1, 2).padded(0.5, 10) == Span(0.5, 2.5)
    assert Span(0.2, 2).padded(0.5, 2.1) == Span(0, 2.1)
    assert Span(9.8, 12).padded(0.5, 10) == Span(9.3, 10)
    assert Span(10, 12).padded(0.5, 10) is None, "padding must not make a span of one outside the clip"


@given(any_spans, st.floats(0.1, 1e4))
def test_no_padding_only_cuts(span: Span, duration: float) -> None:
    assume(span.end <= duration)
    assert span.padded(0, duration) == span
