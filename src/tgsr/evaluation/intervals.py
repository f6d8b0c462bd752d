"""Means with their intervals: what is sure about a number that was measured on a sample of clips."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over the scored items, its 95 % interval, and how many items are in it and left out of it.

    `value` is None where nothing was scored; `low` and `high` also where all items are of one clip,
    which says nothing of the spread between clips.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_unscored: int


def bootstrap_mean(
    values: Sequence[float | None], clusters: Sequence[Hashable], seed: int = 0, n_resamples: int = 1000
) -> Mean:
    """The mean of the values that aren't None, with the percentile bootstrap's 95 % interval.

    Whole clusters (clips) are drawn with replacement, because items of one clip share its difficulty;
    `clusters` names the cluster of each value. Equal input and seed give equal output. ValueError where
    the lengths differ, for NaN, which hides why there is no score, and for n_resamples < 1.
    """
    if len(values) != len(clusters) or n_resamples < 1:
        raise ValueError(
            f"need a cluster for each value and n_resamples >= 1, got {len(values)} values, "
            f"{len(clusters)} clusters, n_resamples = {n_resamples}"
        )
    totals: dict[Hashable, tuple[float, int]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        if value is None:
            continue
        if math.isnan(value):
            raise ValueError(f"a value of cluster {cluster!r} is NaN; use None for what can't be scored")
        total, count = totals.get(cluster, (0.0, 0))
        totals[cluster] = (total + value, count + 1)
    if not totals:
        return Mean(None, None, None, 0, len(values))
    sums = np.array([total for total, _ in totals.values()])
    counts = np.array([count for _, count in totals.values()])
    n = int(counts.sum())
    value = float(sums.sum() / n)
    if len(totals) == 1:
        return Mean(value, None, None, n, len(values) - n)
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    for resample in range(n_resamples):
        drawn = rng.integers(len(sums), size=len(sums))
        means[resample] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return Mean(value, float(low), float(high), n, len(values) - n)
