"""Intervals and paired tests: against enumeration, published numbers, scipy where it is installed, and each other."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgsr.statistics.intervals import (
    Bootstrap,
    binomial_tail,
    bootstrap_mean,
    interval_of,
    mcnemar_exact,
    quantiles,
    swap_test,
)


def _one_by_one(values: list[float | None], clusters: list[int], seed: int, n: int) -> tuple[float, float]:
    """The bootstrap as one would write it first: draw clusters, take the mean of their items, n times."""
    by_cluster: dict[int, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        if value is not None:
            by_cluster.setdefault(cluster, []).append(value)
    groups, rng = list(by_cluster.values()), np.random.default_rng(seed)
    means = []
    for _ in range(n):
        drawn = [groups[at] for at in rng.integers(len(groups), size=len(groups))]
        means.append(sum(map(sum, drawn)) / sum(map(len, drawn)))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@given(
    st.lists(st.tuples(st.none() | st.floats(0, 1), st.integers(0, 5)), min_size=2, max_size=30),
    st.integers(0, 3),
)
def test_the_bootstrap_draws_whole_clusters(pairs: list[tuple[float | None, int]], seed: int) -> None:
    values, clusters = [value for value, _ in pairs], [cluster for _, cluster in pairs]
    mean = bootstrap_mean(values, clusters, seed, 40)
    if len({c for v, c in pairs if v is not None}) < 2:
        assert (mean.low, mean.high) == (None, None)
        return
    assert (mean.low, mean.high) == pytest.approx(_one_by_one(values, clusters, seed, 40))


def test_columns_together_are_columns_alone() -> None:
    rng = np.random.default_rng(0)
    columns = {
        "whole": [float(x) for x in rng.random(50)],
        "gaps": [None if x < 0.3 else float(x) for x in rng.random(50)],
        "none": [None] * 50,
        "whole too": [float(x > 0.5) for x in rng.random(50)],
    }
    clusters = [int(x) for x in rng.integers(12, size=50)]
    together = Bootstrap(3, 100).means(columns, clusters)
    assert list(together) == list(columns)
    for name, column in columns.items():
        assert together[name] == bootstrap_mean(column, clusters, 3, 100)


def test_what_a_ratio_cannot_be_counted_of_is_not_drawn() -> None:
    # 2 of 40 clips cite, both past the end: that is all of their citations in every resample that has one
    above, below = [3.0, 1.0, *[0.0] * 38], [3.0, 1.0, *[0.0] * 38]
    found = Bootstrap().ratio(above, below, list(range(40)))
    assert (found.value, found.low, found.high, found.n, found.n_unscored) == (1.0, 1.0, 1.0, 2, 38)
    alone = Bootstrap().ratio([1.0, 2.0], [4.0, 4.0], "ab")
    assert replace(alone, n_unscored=1) == Bootstrap().ratio([1.0, 0.0, 2.0], [4.0, 0.0, 4.0], "aab")


def test_quantiles_of_nothing_are_none() -> None:
    assert (quantiles([]).median, quantiles([]).p90, quantiles([]).n) == (None, None, 0)
    found = quantiles([3.0, 1.0, 2.0])
    assert (found.median, found.p90, found.n) == (2.0, pytest.approx(2.8), 3)


@pytest.mark.parametrize("pair", [(a, b) for a in range(6) for b in range(6)])
def test_mcnemar_is_the_share_of_coin_tosses_as_uneven(pair: tuple[int, int]) -> None:
    n = sum(pair)
    if n == 0:
        assert mcnemar_exact(*pair) is None
        return
    uneven = abs(pair[0] - pair[1])
    tosses = [sum(toss) for toss in itertools.product((1, -1), repeat=n)]
    expected = sum(abs(total) >= uneven for total in tosses) / len(tosses)
    assert mcnemar_exact(*pair) == pytest.approx(expected)


def test_mcnemar_of_the_published_example() -> None:
    """statsmodels' documentation of `mcnemar` with exact=True: the table 101, 121, 59, 33."""
    assert mcnemar_exact(121, 59) == pytest.approx(4.434449e-06, rel=1e-6)


def test_mcnemar_of_very_many_pairs_is_still_a_number() -> None:
    p = mcnemar_exact(50_000, 50_500)
    assert p is not None
    z = 499 / math.sqrt(100_500)  # the normal approximation with its continuity correction
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)
    assert mcnemar_exact(0, 5000) == 0.0


def test_mcnemar_is_scipys_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    for a, b in ((3, 11), (40, 61), (500, 441)):
        assert mcnemar_exact(a, b) == pytest.approx(stats.binomtest(a, a + b, 0.5).pvalue)


def test_swapping_single_questions_is_mcnemar() -> None:
    p = swap_test([1.0] * 15 + [-1.0] * 5 + [0.0] * 30, n_swaps=40_000)
    assert p == pytest.approx(mcnemar_exact(15, 5), abs=0.004)


@pytest.mark.parametrize("sums", [[2, -1, 3, 1, -1], [0.3, -0.2, 0.7, 0.1], [1, 0.5, -0.25, 2, 2, -1]])
def test_swaps_are_all_changes_of_sign(sums: list[float]) -> None:
    total = abs(sum(sums))
    changes = [
        abs(sum(s * x for s, x in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    expected = sum(change >= total - 1e-9 for change in changes) / len(changes)
    assert swap_test(sums, n_swaps=40_000) == pytest.approx(expected, abs=0.01)


def test_swaps_of_clips_are_less_sure_than_swaps_of_questions() -> None:
    """Ten questions of one clip, all alike, say no more than one."""
    by_question, by_clip = swap_test([1.0] * 40), swap_test([10.0] * 4)
    assert by_question is not None
    assert by_clip is not None
    assert by_question < 0.001
    assert by_clip == pytest.approx(2 / 16, abs=0.02)


@pytest.mark.parametrize("unit", [0.1, 0.2, 1 / 3])
def test_ties_of_many_tenths_and_thirds_are_as_far(unit: float) -> None:
    """The p of as many coin tosses: rounding of a long sum must not part what is equal."""
    n, more = 1000, 505
    tosses = math.fsum(math.comb(n, k) for k in range(more, n + 1)) * 2 / 2**n
    assert tosses == pytest.approx(0.7759635, abs=1e-6)
    p = swap_test([unit] * more + [-unit] * (n - more), n_swaps=40_000)
    assert p == pytest.approx(tosses, abs=0.008)


def test_a_binomial_tail_is_the_share_of_all_outcomes() -> None:
    for n, share in ((0, 0.3), (1, 0.25), (6, 0.25), (5, 0.5)):
        for n_hits in range(n + 2):
            outcomes = itertools.product((True, False), repeat=n)
            expected = sum(
                share ** sum(one) * (1 - share) ** (n - sum(one)) for one in outcomes if sum(one) >= n_hits
            )
            assert binomial_tail(n_hits, n, share) == pytest.approx(expected)
    assert binomial_tail(0, 10, 0.0) == binomial_tail(10, 10, 1.0) == 1.0
    assert binomial_tail(1, 10, 0.0) == 0.0
    assert binomial_tail(260, 1000, 0.25) == pytest.approx(
        0.2418, abs=2e-3
    )  # normal with its correction: z 0.694


def test_clips_that_say_nothing_of_a_ratio_are_in_no_resample_of_it() -> None:
    """Two clips of ten have something below the line: of their ratios 1 and 0.5 no resample is 0, or undefined."""
    above, below = [2.0, 1.0, *[0.0] * 8], [2.0, 2.0, *[0.0] * 8]
    mean = Bootstrap().ratio(above, below, range(10))
    assert (mean.value, mean.low, mean.high, mean.n, mean.n_unscored) == (0.75, 0.5, 1.0, 2, 8)
    alone = Bootstrap().ratio([1.0, 0.0], [1.0, 0.0], "ab")
    assert (alone.value, alone.low, alone.high) == (1.0, None, None)
    assert Bootstrap().ratio([], [], []).value is None
    assert Bootstrap().ratio([0.0], [0.0], "a").value is None


def test_without_any_difference_there_is_no_p() -> None:
    assert swap_test([]) is None
    assert swap_test([0.0, 0.0]) is None


# --- over training runs ----------------------------------------------------------------------------------


def test_one_run_has_the_interval_over_clips_alone() -> None:
    values, clips = [1.0, 0.0, 0.5, 1.0, 0.0], ["a", "a", "b", "c", "d"]
    mean = bootstrap_mean(values, clips)
    value, resamples = Bootstrap().over_runs([np.array(values)], clips)
    assert (value, *interval_of(resamples)) == pytest.approx((mean.value, mean.low, mean.high))


def test_what_another_seed_would_change_is_in_the_interval() -> None:
    """Runs that differ and clips that do not: the means of three draws of three runs."""
    runs = [np.full(4, value) for value in (0.0, 0.3, 0.9)]
    value, resamples = Bootstrap(n_resamples=4000).over_runs(runs, "abcd")
    drawn = [np.mean(three) for three in itertools.product((0.0, 0.3, 0.9), repeat=3)]
    assert value == pytest.approx(0.4)
    assert set(resamples.round(6)) == set(np.round(drawn, 6))
    assert float(resamples.std()) == pytest.approx(float(np.std(drawn)), rel=0.05)


def test_runs_of_the_same_seeds_and_clips_are_paired() -> None:
    rng = np.random.default_rng(0)
    first = [rng.random(20) + seed for seed in range(3)]
    second = [run - 0.25 for run in first]
    (_, a), (_, b) = (Bootstrap().over_runs(runs, range(20)) for runs in (first, second))
    assert interval_of(a - b) == pytest.approx((0.25, 0.25))
    assert interval_of(a)[1] - interval_of(a)[0] > 1


def test_what_is_unscored_is_in_no_mean() -> None:
    """A resample without the second run's one clip has no mean of it."""
    value, resamples = Bootstrap().over_runs([np.array([1.0, 0.0]), np.array([np.nan, 1.0])], "ab")
    assert value == pytest.approx(0.75)
    assert set(resamples[~np.isnan(resamples)]) == {0.0, 0.5, 0.75, 1.0}
    assert float(np.isnan(resamples).mean()) == pytest.approx(3 / 16, abs=0.05)


def test_one_clip_says_nothing_of_the_spread_between_clips() -> None:
    value, resamples = Bootstrap().over_runs([np.array([1.0, 0.0]), np.array([1.0, 1.0])], "aa")
    assert value == pytest.approx(0.75)
    assert np.isnan(resamples).all()


def test_resamples_of_runs_and_clips_are_those_of_the_definition() -> None:
    """All that can be drawn, each as likely as another, of three clips of one to three items and two runs."""
    clips, rng = "aabccc", np.random.default_rng(1)
    runs = [rng.random(6), rng.random(6) + 0.4]
    items = {clip: [at for at, of in enumerate(clips) if of == clip] for clip in "abc"}
    every = []
    for drawn in itertools.product("abc", repeat=3):
        places = [at for clip in drawn for at in items[clip]]
        means = [run[places].mean() for run in runs]
        every += [np.mean(two) for two in itertools.product(means, repeat=2)]
    value, resamples = Bootstrap(n_resamples=40_000).over_runs(runs, clips)
    assert value == pytest.approx(np.mean([run.mean() for run in runs]))
    assert set(resamples.round(9)) <= set(np.round(every, 9))
    assert [resamples.mean(), resamples.std()] == pytest.approx([np.mean(every), np.std(every)], rel=0.01)
