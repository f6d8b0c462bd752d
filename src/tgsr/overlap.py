"""How well predicted spans meet the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tgsr.timeline import ROUNDING, Seconds, Span, merge

HIGH_OVERLAP = 0.7  # table 1
RECALLS = (
    0.3,
    0.5,
)  # R@0.3 and R@0.5 of LAT-Bench and SpotSound-Bench, beside 0.7: the same share at other thresholds


# --- one phrase, one reference span (table 1) ----------------------------------------------------------


def item_iou(predicted: Sequence[Span], reference: Span) -> float:
    """IoU of the first predicted span with the reference, in [0, 1]; 0 where nothing is predicted."""
    return predicted[0].iou(reference) if predicted else 0.0


def place_iou(predicted: Sequence[Span], reference: Sequence[Span]) -> float:
    """`item_iou` with the one reference span, `set_iou` with several. ValueError for none."""
    if not reference:
        raise ValueError("no reference span: there is nothing to overlap with")
    return item_iou(predicted, reference[0]) if len(reference) == 1 else set_iou(predicted, reference)


def set_iou(predicted: Sequence[Span], reference: Sequence[Span]) -> float:
    """IoU of the time that two sets of spans cover, in [0, 1]; 0 where either is empty, and of one span each their IoU.

    What LAT-Bench's neighbours, which ask for all places of a sound, call mIoU is its mean.
    """
    covered = (merge(predicted), merge(reference), merge([*predicted, *reference]))
    one, other, union = (math.fsum(span.duration for span in spans) for spans in covered)
    return max(0.0, one + other - union) / union if one and other else 0.0


def item_f1(iou: float) -> float:
    """F1 of the time that two spans share, 2 iou / (1 + iou), in [0, 1].

    Its mean over the items is the reading of table 1's F1 that agrees with all of its rows.
    """
    return 2 * iou / (1 + iou)


def high_overlap(iou: float, threshold: float = HIGH_OVERLAP) -> bool:
    """Whether the IoU reaches the threshold (table 1: 0.7, reached by 0.7 itself, wherever in the clip it lies)."""
    return iou >= threshold - ROUNDING


# --- a reasoning trace ---------------------------------------------------------------------------------


def trace_iou(predicted: Sequence[Span], reference: Sequence[Span]) -> float | None:
    """avg_iou of a trace: over its distinct spans, the mean of the best IoU with any reference span.

    In [0, 1]. None where nothing is predicted or nothing is known: there is nothing to average, and a
    trace without times is counted by its k instead. Source: the avg_iou of the authors' traces.
    """
    distinct = set(predicted)
    if not distinct or not reference:
        return None
    return math.fsum(max(span.iou(other) for other in reference) for span in distinct) / len(distinct)


def evidence_crop(spans: Sequence[Span], duration: Seconds, pad: Seconds = 0.5) -> list[Span]:
    """The stretches of a clip of `duration` seconds that a trace points at, disjoint, in order of time.

    Each distinct span is widened by `pad` on both sides and cut to [0, duration); what overlaps or
    touches is merged. A span that starts at or past the clip's end vanishes. [] where none is left.
    ValueError for a negative pad.
    """
    if pad < 0:
        raise ValueError(f"pad must be at least 0 s, got {pad}")
    padded = (span.padded(pad, duration) for span in set(spans))
    return merge(span for span in padded if span is not None)
