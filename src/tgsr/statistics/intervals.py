"""Means with their intervals, and paired tests: what is sure about a number that was measured on a sample of clips."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_CELLS = 2**21  # of a block of swaps: 16 MB
CACHED_CELLS = 2**18  # of a block of weights as floats: 2 MB, which the processor's cache holds
MOST_KEPT = 2**29  # bytes of weights, beyond which they are drawn again
LEVELS = (2.5, 97.5)


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


NOT_MEASURED = Mean(None, None, None, 0, 0)


def number(mean: Mean, digits: int = 3, scale: float = 1, unit: str = "") -> str:
    """ "0.740 [0.710, 0.770]" with the 95 % interval; "-" where nothing could be scored."""
    if mean.value is None:
        return "-"
    text = f"{scale * mean.value:.{digits}f}{unit}"
    if mean.low is None or mean.high is None:
        return text
    return f"{text} [{scale * mean.low:.{digits}f}, {scale * mean.high:.{digits}f}]"


def percent(mean: Mean, unit: str = " %") -> str:
    """ "74.5 % [71.0, 77.9]" with the 95 % interval; "-" where nothing could be scored."""
    return number(mean, 1, 100, unit)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median and 90th percentile, in seconds, of `n` values; None where there are none."""

    median: float | None
    p90: float | None
    n: int


def quantiles(values: Sequence[float] | Floats) -> Quantiles:
    """Both quantiles, interpolated linearly between neighbours."""
    if len(values) == 0:
        return Quantiles(None, None, 0)
    median, p90 = np.percentile(values, [50, 90])
    return Quantiles(float(median), float(p90), len(values))


def bootstrap_mean(
    values: Sequence[float | None], clusters: Sequence[Hashable], seed: int = 0, n_resamples: int = 1000
) -> Mean:
    """The mean of the values that aren't None, with the percentile bootstrap's 95 % interval.

    Whole clusters (clips) are drawn with replacement, because items of one clip share its difficulty;
    `clusters` names the cluster of each value. Equal input and seed give equal output. ValueError where
    the lengths differ, for NaN, which hides why there is no score, and for n_resamples < 1.
    """
    if any(value is not None and math.isnan(value) for value in values):
        raise ValueError("a value is NaN; use None for what can't be scored")
    return Bootstrap(seed, n_resamples).means({"": values}, clusters)[""]


def interval_of(resamples: Floats) -> tuple[float, float]:
    """The ends of the percentile bootstrap's 95 % interval; NaN where a resample is."""
    low, high = np.percentile(resamples, LEVELS)
    return float(low), float(high)


class Bootstrap:
    """Resamples of whole clusters, drawn with replacement. As many clusters always get the same draws, made once."""

    def __init__(self, seed: int = 0, n_resamples: int = 1000) -> None:
        if n_resamples < 1:
            raise ValueError(f"need n_resamples >= 1, got {n_resamples}")
        self.seed, self.n_resamples = seed, n_resamples
        self._weights_RC: dict[int, NDArray[np.uint8]] = {}

    def means(
        self, columns: Mapping[str, Sequence[float | None] | Floats], clusters: Sequence[Hashable]
    ) -> dict[str, Mean]:
        """The mean of each column over the items that have a value there (not None or NaN), as if it were alone."""
        codes = codes_of(clusters)
        arrays = {name: np.array(column, dtype=float) for name, column in columns.items()}
        alike: dict[bytes, list[str]] = {}  # by the items that have a value: these share their draws
        for name, array in arrays.items():
            if len(array) != len(codes):
                raise ValueError(
                    f"need a cluster for each value, got {len(array)} values, {len(codes)} clusters"
                )
            alike.setdefault((~np.isnan(array)).tobytes(), []).append(name)
        means = dict.fromkeys(columns, Mean(None, None, None, 0, len(codes)))
        for mask, names in alike.items():
            is_scored = np.frombuffer(mask, dtype=bool)
            n = int(is_scored.sum())
            if n == 0:
                continue
            scored_arrays = [arrays[name][is_scored] for name in names]
            sums, draws_RM = self.sums([np.ones(n), *scored_arrays], codes[is_scored])
            for column_number, name in enumerate(names, 1):
                low = high = None
                if draws_RM is not None:
                    low, high = map(float, np.percentile(draws_RM[:, column_number] / draws_RM[:, 0], LEVELS))
                means[name] = Mean(float(sums[column_number] / n), low, high, n, len(codes) - n)
        return means

    def paired(
        self, differences: Sequence[float | None], clusters: Sequence[Hashable]
    ) -> tuple[Mean | None, float | None]:
        """The mean of paired differences, and the p of their `swap_test` by cluster; None twice without any."""
        if not differences:
            return None, None
        values = np.nan_to_num(np.array(differences, dtype=float))  # what is not scored adds nothing
        sums = np.bincount(codes_of(clusters), weights=values).astype(float)
        return self.means({"": differences}, clusters)[""], swap_test(sums, self.seed)

    def sums(self, columns: Sequence[Floats], codes: NDArray[np.int64]) -> tuple[Floats, Floats | None]:
        """The columns' sums (M,) and those of each resample (n_resamples, M), of clusters by number.

        None for the resamples of a single cluster, which says nothing of the spread between clusters.
        """
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        ranks = np.argsort(np.argsort(first))  # the clusters' numbers in order of first use, without gaps
        sums_MC = np.stack([np.bincount(ranks[inverse.reshape(-1)], weights=column) for column in columns])
        n_clusters = len(first)
        if n_clusters == 1:
            return sums_MC.sum(axis=1), None
        weights_RC = self._weights(n_clusters)
        n_rows = max(1, CACHED_CELLS // n_clusters)
        starts = range(0, self.n_resamples, n_rows)
        blocks = [weights_RC[start : start + n_rows].astype(float) @ sums_MC.T for start in starts]
        return sums_MC.sum(axis=1), np.concatenate(blocks)

    def ratio(self, above: Sequence[float], below: Sequence[float], clusters: Sequence[Hashable]) -> Mean:
        """The sum of one column over the sum of another, both of the same items; NOT_MEASURED where that is 0.

        Items with 0 below, which nothing can be counted of, are unscored, and as in `means` they are not drawn: a
        resample of them alone has no ratio.
        """
        is_scored = np.array(below, dtype=float) > 0
        if not is_scored.any():
            return NOT_MEASURED
        columns = [np.array(column, dtype=float)[is_scored] for column in (above, below)]
        sums, draws_RM = self.sums(columns, codes_of(clusters)[is_scored])
        low = high = None
        if draws_RM is not None:
            low, high = interval_of(draws_RM[:, 0] / draws_RM[:, 1])
        n = int(is_scored.sum())
        return Mean(float(sums[0] / sums[1]), low, high, n, len(clusters) - n)

    def over_runs(self, columns: Sequence[Floats], clusters: Sequence[Hashable]) -> tuple[float, Floats]:
        """The mean over training runs (seeds) of their means over the same items, and its resamples (n_resamples,).

        A column a run, NaN where an item is unscored. A resample draws clusters, the same for all runs, and runs, both
        with replacement (hierarchical bootstrap), so that its interval holds what another seed would change. Equal
        numbers of runs and clusters get equal draws: two resamples less each other are paired by clip and by seed.
        Of three runs that differ more than clips do it reaches from about the least to the greatest, which has the mean
        of all runs in it with a probability of 1 - 2^(1 - 3), not 95 %. NaN where a run has no scored item; so are all
        resamples of a single cluster, which says nothing of the spread between clusters.
        """
        codes = codes_of(clusters)
        means, draws_SR = [], []
        for column in columns:
            is_scored = ~np.isnan(column)
            sums, draws_RM = self.sums([is_scored.astype(float), np.nan_to_num(column)], codes)
            with np.errstate(invalid="ignore"):
                means.append(sums[1] / sums[0])
                ends = np.full((self.n_resamples, 2), np.nan) if draws_RM is None else draws_RM
                draws_SR.append(ends[:, 1] / ends[:, 0])
        n_runs = len(columns)
        drawn_RS = np.random.default_rng((self.seed, n_runs)).integers(
            n_runs, size=(self.n_resamples, n_runs)
        )
        resamples = np.stack(draws_SR)[drawn_RS, np.arange(self.n_resamples)[:, None]].mean(axis=1)
        return float(np.mean(means)), resamples

    def _weights(self, n_clusters: int) -> NDArray[np.uint8]:
        """How often each resample draws each cluster: (n_resamples, n_clusters)."""
        if n_clusters not in self._weights_RC:
            if sum(weights.nbytes for weights in self._weights_RC.values()) > MOST_KEPT:
                self._weights_RC.clear()
            rng = np.random.default_rng(self.seed)
            n_rows = max(1, CACHED_CELLS // n_clusters)
            blocks = []
            for start in range(0, self.n_resamples, n_rows):
                n = min(n_rows, self.n_resamples - start)
                drawn = rng.integers(n_clusters, size=(n, n_clusters))
                cells = drawn + n_clusters * np.arange(n)[:, None]  # a resample counts in its own cells
                counts = np.bincount(cells.ravel(), minlength=cells.size)
                blocks.append(counts.astype(np.uint8).reshape(drawn.shape))
            self._weights_RC[n_clusters] = np.concatenate(blocks)
        return self._weights_RC[n_clusters]


def codes_of(clusters: Sequence[Hashable]) -> NDArray[np.int64]:
    """Each item's cluster as a number, in order of first use."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)


# --- paired tests ----------------------------------------------------------------------------------------


def mcnemar_exact(n_first_only: int, n_second_only: int) -> float | None:
    """Two-sided exact p of McNemar's test: are the discordant pairs split as by a fair coin?

    The probability that Binomial(n, 1/2) is at least as far from n/2, at most 1. None without discordant pairs.
    Questions are taken as independent, which those about one clip are not: see `swap_test`.
    """
    n, fewer = n_first_only + n_second_only, min(n_first_only, n_second_only)
    if n == 0:
        return None
    return min(1.0, 2 * binomial_tail(n - fewer, n, 0.5))


def binomial_tail(n_hits: int, n: int, share: float) -> float:
    """P(Binomial(n, share) >= n_hits), exact, for a share in [0, 1]: how often chance has so many hits, or more."""
    if n_hits <= 0 or share >= 1:
        return float(n_hits <= n)
    if n_hits > n or share <= 0:
        return 0.0
    # in logarithms: 2^-n is 0 in floating point from n = 1075 on
    total, hit, miss = math.lgamma(n + 1), math.log(share), math.log1p(-share)
    logs = [
        total - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * hit + (n - k) * miss
        for k in range(n_hits, n + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


def swap_test(clip_sums: Sequence[float] | Floats, seed: int = 0, n_swaps: int = 10_000) -> float | None:
    """Two-sided p of the paired randomisation test: in each swap every clip's answers change sides or stay.

    `clip_sums`: over each clip's items, the sum of the differences. p is the share of swaps, the observed one
    among them, whose total is at least as far from 0. None where no clip has a difference.
    """
    sums = np.asarray(clip_sums, dtype=float)
    sums = sums[sums != 0]
    if not len(sums):
        return None
    is_whole = sums == np.rint(sums)
    rng = np.random.default_rng(seed)
    swapped = np.zeros(n_swaps)
    rest = sums[~is_whole]
    n_block = max(1, MOST_CELLS // n_swaps)
    for start in range(0, len(rest), n_block):
        block = rest[start : start + n_block]
        bits = rng.integers(256, size=(n_swaps, -(-len(block) // 8)), dtype=np.uint8)
        signs = np.unpackbits(bits, axis=1, count=len(block)).astype(float)
        swapped += 2 * (signs @ block) - float(block.sum())
    rng = np.random.default_rng((seed, 1))
    for size, n in zip(*np.unique(np.abs(sums[is_whole]), return_counts=True), strict=True):
        # of n clips with the same difference only the number that change sides matters
        swapped += size * (2.0 * rng.binomial(n, 0.5, size=n_swaps) - n)
    # what is as far but for the rounding of so many sums: thirds and tenths tie often
    least = abs(float(sums.sum())) - 1e-9 * float(np.abs(sums).sum())
    return (int((np.abs(swapped) >= least).sum()) + 1) / (n_swaps + 1)
