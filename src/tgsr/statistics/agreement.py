"""How far raters agree, and how many of them a study needs: plain functions on tables of ratings.

Axes: U units (what is rated), R raters, K categories.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

Level = Literal["nominal", "ordinal", "interval"]
Ratings = Sequence[Sequence[float | None]]
"""ratings_UR: one row a unit, one value a rater; None where that rater didn't rate that unit."""


def fleiss_kappa(ratings: Ratings) -> float | None:
    """Fleiss' kappa of nominal ratings, in [-1, 1]: agreement beyond what the categories' shares make by chance.

    Every unit needs the same number of ratings, two at least; which raters gave them does not matter. None where
    there is no unit, or where all ratings are one category: chance agreement is 1 then. ValueError where units
    have different numbers of ratings (Krippendorff's alpha takes those) or only one.
    Source: Fleiss 1971, Measuring nominal scale agreement among many raters, equations 1 to 7.
    """
    if not ratings:
        return None
    categories = sorted({value for row in ratings for value in row if value is not None})
    counts_UK = np.array([[list(row).count(value) for value in categories] for row in ratings], dtype=float)
    n_of_unit_U = counts_UK.sum(1)
    n = n_of_unit_U[0]
    if n < 2 or (n_of_unit_U != n).any():
        raise ValueError(
            f"every unit needs the same number of ratings, at least 2, got {sorted(set(n_of_unit_U.tolist()))}: "
            "use krippendorff_alpha for other tables"
        )
    observed = float(((counts_UK**2).sum(1) - n).mean() / (n * (n - 1)))
    share_K = counts_UK.sum(0) / counts_UK.sum()
    by_chance = float((share_K**2).sum())
    return None if math.isclose(by_chance, 1.0) else (observed - by_chance) / (1 - by_chance)


def cohen_kappa(ratings: Ratings) -> float | None:
    """Cohen's kappa of two raters' nominal ratings, in [-1, 1]: agreement beyond what each one's shares make by chance.

    Every unit has two values, the first rater's and the second's. None where there is no unit, or where both raters
    use one and the same category: chance agreement is 1 then. ValueError where a unit has other than two ratings.
    Source: Cohen 1960, A coefficient of agreement for nominal scales, equation 1.
    """
    if any(len(row) != 2 or None in row for row in ratings):
        raise ValueError("every unit needs two ratings, the first rater's and the second's")
    if not ratings:
        return None
    first, second = Counter(row[0] for row in ratings), Counter(row[1] for row in ratings)
    observed = sum(row[0] == row[1] for row in ratings) / len(ratings)
    by_chance = sum(first[value] * second[value] for value in first) / len(ratings) ** 2
    return None if math.isclose(by_chance, 1.0) else (observed - by_chance) / (1 - by_chance)


def krippendorff_alpha(ratings: Ratings, level: Level = "nominal") -> float | None:
    """Krippendorff's alpha, at most 1: 1 less the observed disagreement over the one expected by chance.

    Any number of raters, any ratings missing; a unit with one rating says nothing and is left out. None where no
    unit has two ratings, or where all ratings are equal: nothing could disagree. ValueError for an unknown level.
    Source: Krippendorff 2011, Computing Krippendorff's alpha-reliability, sections C and D.
    """
    if level not in ("nominal", "ordinal", "interval"):
        raise ValueError(f"level must be nominal, ordinal or interval, got {level!r}")
    units = [[value for value in row if value is not None] for row in ratings]
    units = [row for row in units if len(row) > 1]
    values = sorted({value for row in units for value in row})
    if len(values) < 2:
        return None
    coincidence_KK = np.zeros((len(values), len(values)))
    for row in units:
        count_K = np.array([row.count(value) for value in values], dtype=float)
        coincidence_KK += (np.outer(count_K, count_K) - np.diag(count_K)) / (len(row) - 1)
    n_K = coincidence_KK.sum(1)
    distance_KK = _squared_distance(values, n_K, level)
    n = n_K.sum()
    observed = float((coincidence_KK * distance_KK).sum())
    expected = float((np.outer(n_K, n_K) * distance_KK).sum() / (n - 1))
    return 1 - observed / expected


def _squared_distance(values: Sequence[float], n_K: np.ndarray, level: Level) -> np.ndarray:
    value_K = np.array(values, dtype=float)
    if level == "nominal":
        return (value_K[:, None] != value_K[None]).astype(float)
    if level == "interval":
        return (value_K[:, None] - value_K[None]) ** 2
    rank_K = np.cumsum(n_K) - n_K / 2  # ordinal: how many ratings lie between two values
    return (rank_K[:, None] - rank_K[None]) ** 2


@dataclass(frozen=True, slots=True)
class Agreement:
    """A coefficient with its 95 % interval over units; `n_units` have two ratings or more.

    None where the table lets nothing be said; `low` and `high` also where most resamples let nothing be said.
    """

    value: float | None
    low: float | None
    high: float | None
    n_units: int


def with_interval(
    coefficient: Callable[[Ratings], float | None],
    ratings: Ratings,
    seed: int = 0,
    n_resamples: int = 1000,
    clusters: Sequence[Hashable] | None = None,
) -> Agreement:
    """The coefficient with the percentile bootstrap over units: other units could have been rated as well.

    `clusters` names the cluster of each unit where several are alike, such as the trials about one item: whole
    clusters are drawn then. ValueError where the lengths differ.
    """
    rows_of: dict[Hashable, list[Sequence[float | None]]] = {}
    for cluster, row in zip(range(len(ratings)) if clusters is None else clusters, ratings, strict=True):
        if sum(value is not None for value in row) > 1:
            rows_of.setdefault(cluster, []).append(row)
    groups = list(rows_of.values())
    rated = [row for group in groups for row in group]
    value = coefficient(rated) if rated else None
    if value is None or len(groups) < 2:
        return Agreement(value, None, None, len(rated))
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(groups), size=len(groups)) for _ in range(n_resamples))
    drawn = (coefficient([row for number in draw for row in groups[number]]) for draw in draws)
    known = [value for value in drawn if value is not None]
    if len(known) < n_resamples / 2:
        return Agreement(value, None, None, len(rated))
    low, high = np.percentile(known, [2.5, 97.5])
    return Agreement(value, float(low), float(high), len(rated))


# --- how many ratings are needed ---------------------------------------------------------------------------


def n_for_difference(difference: float, deviation: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Paired items that show a mean difference of that size, two-sided, with that power.

    `deviation` is the standard deviation of the paired differences, in the same unit. The normal approximation:
    ((z_{1 - alpha/2} + z_power) deviation / difference)^2, rounded up, at least 2; below some 30 items a t test
    needs two or three more. ValueError unless both are positive and both shares lie in (0, 1).
    """
    if not (0 < power < 1 and 0 < alpha < 1):
        raise ValueError(f"power and alpha must lie in (0, 1), got {power} and {alpha}")
    if not (difference > 0 and deviation > 0):
        raise ValueError(f"difference and deviation must be above 0, got {difference} and {deviation}")
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    return max(2, math.ceil((z * deviation / difference) ** 2))


def design_effect(n_per_cluster: float, correlation: float) -> float:
    """By what the number of ratings grows because ratings of one item resemble each other: 1 + (n - 1) correlation."""
    return 1 + (max(1.0, n_per_cluster) - 1) * correlation
