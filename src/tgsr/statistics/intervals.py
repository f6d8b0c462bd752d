"""Means with their intervals, and paired tests: what is sure about a number that was measured on a sample of clips."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_CELLS = 2**22  # of a block of weights: 32 MB
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


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median and 90th percentile, in seconds, of `n` values; None where there are none."""

    median: float | None
    p90: float | None
    n: int


def quantiles(values: Sequence[float] | Floats) -> Quantiles:
    """Both quantiles, interpolated linearly between neighbours. An array's order is lost: it is sorted in place."""
    if len(values) == 0:
        return Quantiles(None, None, 0)
    median, p90 = np.percentile(values, [50, 90], overwrite_input=True)
    return Quantiles(float(median), float(p90), len(values))


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
    return bootstrap_means({"": values}, clusters, seed, n_resamples)[""]


def bootstrap_means(
    columns: Mapping[str, Sequence[float | None]],
    clusters: Sequence[Hashable],
    seed: int = 0,
    n_resamples: int = 1000,
) -> dict[str, Mean]:
    """`bootstrap_mean` of several columns of the same items, each drawn as if it were alone.

    Columns that are scored on the same items have the same clusters and the same seed, so that their draws
    are equal and are made once. ValueError for NaN.
    """
    n_items = len(clusters)
    means: dict[str, Mean] = {}
    alike: dict[bytes, list[tuple[str, Floats]]] = {}
    codes: NDArray[np.int64] | None = None
    for name, column in columns.items():
        scored = [value for value in column if value is not None]
        array = np.array(scored, dtype=float)
        if np.isnan(array).any():
            raise ValueError(f"a value of {name!r} is NaN; use None for what can't be scored")
        if not scored:
            means[name] = Mean(None, None, None, 0, n_items)
        elif len(scored) == n_items:
            alike.setdefault(b"", []).append((name, array))
        else:
            mask = np.array([value is not None for value in column])
            alike.setdefault(mask.tobytes(), []).append((name, array))
    for mask_bytes, members in alike.items():
        if codes is None:
            codes = codes_of(clusters)
        of_these = codes[np.frombuffer(mask_bytes, dtype=bool)] if mask_bytes else codes
        of_these = _by_first_use(of_these) if mask_bytes else of_these
        n_clusters = int(of_these.max()) + 1
        counts = np.bincount(of_these, minlength=n_clusters).astype(float)
        sums = [np.bincount(of_these, weights=array, minlength=n_clusters) for _, array in members]
        n = len(of_these)
        if n_clusters > 1:
            drawn = _drawn_sums(np.stack([counts, *sums], axis=1), seed, n_resamples)
        for at, (name, _) in enumerate(members):
            value = float(sums[at].sum() / n)
            if n_clusters == 1:
                means[name] = Mean(value, None, None, n, n_items - n)
            else:
                low, high = np.percentile(drawn[:, at + 1] / drawn[:, 0], LEVELS)
                means[name] = Mean(value, float(low), float(high), n, n_items - n)
    return {name: means[name] for name in columns}


def bootstrap_sums(
    columns: Mapping[str, Sequence[float]],
    clusters: Sequence[Hashable],
    seed: int = 0,
    n_resamples: int = 1000,
) -> tuple[Floats, Floats | None]:
    """The columns' sums (M,) and those of each resample (n_resamples, M), for what is no mean of items.

    Drawn as in `bootstrap_mean`. None for the resamples of a single cluster.
    """
    codes = codes_of(clusters)
    summed = [np.bincount(codes, weights=np.array(c, dtype=float)) for c in columns.values()]
    sums_CM = np.stack(summed, axis=1).astype(float)
    return sums_CM.sum(axis=0), _drawn_sums(sums_CM, seed, n_resamples) if len(sums_CM) > 1 else None


def codes_of(clusters: Sequence[Hashable]) -> NDArray[np.int64]:
    """Each item's cluster as a number, in order of first use."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters], dtype=np.int64)


def _by_first_use(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same numbers without gaps, again in order of first use."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=np.int64)
    ranks[np.argsort(first)] = np.arange(len(first))
    return np.asarray(ranks[inverse.reshape(-1)], dtype=np.int64)


def _drawn_sums(columns_CM: Floats, seed: int, n_resamples: int) -> Floats:
    """Sums of each column M over as many clusters C as there are, drawn with replacement: (n_resamples, M)."""
    n_clusters = len(columns_CM)
    rng = np.random.default_rng(seed)
    sums_RM = np.empty((n_resamples, columns_CM.shape[1]))
    n_block = max(1, min(n_resamples, MOST_CELLS // n_clusters))
    for start in range(0, n_resamples, n_block):
        weights_RC = np.stack(
            [
                np.bincount(rng.integers(n_clusters, size=n_clusters), minlength=n_clusters)
                for _ in range(min(n_block, n_resamples - start))
            ]
        )
        sums_RM[start : start + n_block] = weights_RC.astype(float) @ columns_CM
    return sums_RM


# --- more clips than memory holds ------------------------------------------------------------------------

# Poisson(1) for each 16-bit number: the counts 0 to 8, as often as their probability says.
_POISSON = np.repeat(
    np.arange(9, dtype=np.uint8),
    np.diff(np.rint(65536 * np.cumsum([math.exp(-1) / math.factorial(k) for k in range(8)])), prepend=0, append=65536)
    .astype(int),
)  # fmt: skip


def poisson_weights(rng: np.random.Generator, n_clusters: int, n_resamples: int) -> NDArray[np.float32]:
    """How often each resample draws each cluster: independent Poisson(1) counts, (n_clusters, n_resamples).

    Drawing with replacement from n clusters draws each of them Binomial(n, 1/n) times; for many clusters that
    is Poisson(1), which needs no n, so that clusters can come in parts. A 16-bit table: probabilities are exact
    to 1e-5.
    """
    drawn = rng.integers(65536, size=(n_clusters, n_resamples), dtype=np.uint16)
    return _POISSON[drawn].astype(np.float32)


# --- paired tests ----------------------------------------------------------------------------------------


def mcnemar_exact(n_first_only: int, n_second_only: int) -> float | None:
    """Two-sided exact p of McNemar's test: are the discordant pairs split as by a fair coin?

    The probability that Binomial(n, 1/2) is at least as far from n/2, at most 1. None without discordant pairs.
    Questions are taken as independent, which those about one clip are not: see `swap_test`.
    """
    n, fewer = n_first_only + n_second_only, min(n_first_only, n_second_only)
    if n == 0:
        return None
    # in logarithms: 2^-n is 0 in floating point from n = 1075 on
    total = math.lgamma(n + 1) - n * math.log(2)
    logs = [total - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def swap_test(clip_sums: Sequence[float] | Floats, seed: int = 0, n_swaps: int = 10_000) -> float | None:
    """Two-sided p of the paired randomisation test: in each swap every clip's answers change sides or stay.

    `clip_sums`: over each clip's items, the sum of the differences. p is the share of swaps, the observed one
    among them, whose total is at least as far from 0. None where no clip has a difference.
    """
    return SwapTest(seed, n_swaps).add(clip_sums).p


class SwapTest:
    """`swap_test` for clips that come in parts: only the swaps' totals and counts of equal sums are kept."""

    def __init__(self, seed: int, n_swaps: int) -> None:
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._n_swaps = n_swaps
        self._swapped = np.zeros(n_swaps)
        self._total = 0.0
        self._whole: dict[int, int] = {}
        self._has_difference = False

    def add(self, clip_sums: Sequence[float] | Floats) -> SwapTest:
        sums = np.asarray(clip_sums, dtype=float)
        sums = sums[sums != 0]
        self._has_difference |= bool(len(sums))
        self._total += float(sums.sum())
        is_whole = sums == np.rint(sums)
        for size, n in zip(*np.unique(np.abs(sums[is_whole]), return_counts=True), strict=True):
            self._whole[int(size)] = self._whole.get(int(size), 0) + int(n)
        rest = sums[~is_whole]
        n_block = max(1, MOST_CELLS // self._n_swaps)
        for start in range(0, len(rest), n_block):
            part = rest[start : start + n_block]
            bits = self._rng.integers(256, size=(self._n_swaps, -(-len(part) // 8)), dtype=np.uint8)
            signs = np.unpackbits(bits, axis=1, count=len(part)).astype(np.float32)
            self._swapped += 2 * (signs @ part.astype(np.float32)).astype(float) - float(part.sum())
        return self

    @property
    def p(self) -> float | None:
        """None where no clip has a difference."""
        if not self._has_difference:
            return None
        swapped = self._swapped.copy()
        rng = np.random.default_rng((self._seed, 1))
        for size, n in sorted(self._whole.items()):
            # of n clips with the same difference only the number that change sides matters
            swapped += size * (2.0 * rng.binomial(n, 0.5, size=self._n_swaps) - n)
        slack = 1e-6 * max(1.0, abs(self._total))
        n_as_far = int((np.abs(swapped) >= abs(self._total) - slack).sum())
        return (n_as_far + 1) / (self._n_swaps + 1)
