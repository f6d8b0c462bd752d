"""sed_eval's segment-based and event-based F1: each clip's counts, and F1 pooled over the clips; one event class.

Source: Mesaros et al. 2016, sections 3.1 and 3.2, with sed_eval's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tgsr.timeline import Seconds, Span


@dataclass(frozen=True, slots=True)
class Collars:
    """How far a start may be off, each for a score of its own, in seconds; and what share of the reference's length an
    end may be off, where that is more: 0.5 is sed_eval's, 0.2 DESED's.
    """

    seconds: tuple[Seconds, ...] = (0.1, 0.2, 0.5)
    length_share: float = 0.5


SED_EVAL = Collars()
Counts = tuple[int, int, int]
"""Hits, how many were predicted, how many the reference has."""


def segment_counts(predicted: Sequence[Span], reference: Sequence[Span], resolution: Seconds = 1.0) -> Counts:
    """One clip's segments of `resolution` seconds that are active on both sides, and on each: a span touches them."""
    active, right = _segments(predicted, resolution), _segments(reference, resolution)
    common = [min(a[1], b[1]) - max(a[0], b[0]) for a in active for b in right]
    n_active, n_right = (sum([end - start for start, end in ranges]) for ranges in (active, right))
    return sum([n for n in common if n > 0]), n_active, n_right


def event_counts(
    predicted: Sequence[Span], reference: Sequence[Span], collar: Seconds = 0.2, length_share: float = 0.5
) -> Counts:
    """One clip's pairs of spans that meet, its predicted spans, its reference spans.

    A predicted span meets a reference span where the starts differ by at most `collar` seconds and the ends by at most
    the larger of `collar` and `length_share` of the reference's length. Each span is used once, in the matching with
    most pairs.
    """
    pairs = [
        (row, column)
        for row, span in enumerate(predicted)
        for column, other in enumerate(reference)
        if abs(span.start - other.start) <= collar
        and abs(span.end - other.end) <= max(collar, length_share * other.duration)
    ]
    n_hits = min(1, len(pairs))
    if len(predicted) > 1 and pairs:
        import networkx  # takes a third of a second, and a phrase has one predicted span

        graph = networkx.Graph((row, -1 - column) for row, column in pairs)
        n_hits = len(networkx.bipartite.maximum_matching(graph, {row for row, _ in pairs})) // 2
    return n_hits, len(predicted), len(reference)


def _segments(spans: Sequence[Span], resolution: Seconds) -> list[tuple[int, int]]:
    """The active segments as disjoint ranges [first, end), in order: a span of hours is one range, not a million."""
    ranges: list[tuple[int, int]] = []
    for span in sorted(spans):
        start, end = math.floor(span.start / resolution), math.ceil(span.end / resolution)
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], end))
        else:
            ranges.append((start, end))
    return ranges


def pooled_f1(counts: Iterable[Counts]) -> float | None:
    """2 hits / (predicted + reference) over the sums; None (in sed_eval NaN) where a side has none: precision or recall
    is undefined then.
    """
    n_hits, n_predicted, n_reference = np.array([(0, 0, 0), *counts]).sum(axis=0).tolist()
    return 2 * n_hits / (n_predicted + n_reference) if n_predicted and n_reference else None
