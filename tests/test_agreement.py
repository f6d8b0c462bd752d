import itertools

import numpy as np
import pytest

from tgsr.statistics.agreement import (
    cohen_kappa,
    design_effect,
    fleiss_kappa,
    krippendorff_alpha,
    n_for_difference,
    with_interval,
)

# The worked example of Krippendorff 2011: four observers, twelve units.
UNITS = [
    [1, 1, None, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [None, 5, 5, 5],
    [None, None, 1, 1],
    [None, 3, None, None],
]
# Fourteen raters, ten subjects, five categories: the table that goes with Fleiss' kappa in most textbooks.
SUBJECTS = [
    (0, 0, 0, 0, 14),
    (0, 2, 6, 4, 2),
    (0, 0, 3, 5, 6),
    (0, 3, 9, 2, 0),
    (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0),
    (3, 2, 6, 3, 0),
    (2, 5, 3, 2, 2),
    (6, 5, 2, 1, 0),
    (0, 2, 2, 3, 7),
]


def spread_out(counts):
    return [category for category, n in enumerate(counts) for _ in range(n)]


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_own_example(level, value):
    assert krippendorff_alpha(UNITS, level) == pytest.approx(value, abs=5e-4)


def test_kappa_of_the_textbook_table():
    assert fleiss_kappa([spread_out(counts) for counts in SUBJECTS]) == pytest.approx(0.210, abs=5e-4)


def test_cohens_kappa_of_a_published_table():
    """Two readers of 50 grant proposals: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no; kappa 0.40."""
    pairs = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert cohen_kappa([(1, 1), (1, 1)]) is None
    assert cohen_kappa([]) is None
    assert cohen_kappa([(0, 1), (1, 0)]) == -1
    with pytest.raises(ValueError, match="two ratings"):
        cohen_kappa([(1, None)])


def test_both_equal_the_libraries_where_they_are_installed():
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    library = pytest.importorskip("krippendorff")
    rng = np.random.default_rng(0)
    for _ in range(20):
        ratings = rng.integers(1, 6, size=(12, 4)).tolist()
        counts, _categories = inter_rater.aggregate_raters(np.array(ratings))
        assert fleiss_kappa(ratings) == pytest.approx(inter_rater.fleiss_kappa(counts))
        holes = [[None if rng.random() < 0.3 else value for value in row] for row in ratings]
        table = np.array([[np.nan if v is None else v for v in row] for row in holes], dtype=float).T
        for level in ("nominal", "ordinal", "interval"):
            expected = library.alpha(reliability_data=table, level_of_measurement=level)
            assert krippendorff_alpha(holes, level) == pytest.approx(expected)


def test_perfect_agreement_is_one_and_order_of_raters_says_nothing():
    ratings = [[1, 1, 1], [2, 2, 2], [5, 5, 5]]
    assert fleiss_kappa(ratings) == 1
    assert krippendorff_alpha(ratings, "ordinal") == 1
    mixed = [[1, 2, 1], [2, 2, 5], [5, 5, 1]]
    values = {
        round(krippendorff_alpha([[row[i] for i in order] for row in mixed], "interval"), 12)
        for order in itertools.permutations(range(3))
    }
    assert len(values) == 1


def test_random_ratings_agree_by_chance_only():
    ratings = np.random.default_rng(1).integers(1, 4, size=(3000, 3)).tolist()
    assert abs(fleiss_kappa(ratings)) < 0.03
    assert abs(krippendorff_alpha(ratings, "interval")) < 0.03


def test_what_nothing_can_be_said_of():
    assert fleiss_kappa([]) is None
    assert fleiss_kappa([[1, 1], [1, 1]]) is None
    assert krippendorff_alpha([[1, None], [None, 2]]) is None
    assert krippendorff_alpha([[3, 3], [3, 3]], "ordinal") is None
    with pytest.raises(ValueError, match="same number of ratings"):
        fleiss_kappa([[1, 2], [1, None]])
    with pytest.raises(ValueError, match="level"):
        krippendorff_alpha(UNITS, "ratio")


def test_interval_holds_the_value_and_narrows_with_more_units():
    rng = np.random.default_rng(2)
    truth = rng.integers(1, 6, size=400)
    table = [[int(np.clip(t + rng.integers(-1, 2), 1, 5)) for _ in range(3)] for t in truth]
    few, many = (
        with_interval(lambda r: krippendorff_alpha(r, "ordinal"), table[:n], 0, 200) for n in (20, 400)
    )
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 2
    assert many.n_units == 400
    alone = with_interval(krippendorff_alpha, [[1, 2], [None, 1]])
    assert (alone.low, alone.n_units) == (None, 1)


def test_sample_sizes_of_published_examples():
    # Cohen's d of 0.5 in pairs: 32 by the normal approximation (34 by the t test, in his tables).
    assert n_for_difference(0.5, 1.0) == 32
    assert design_effect(3, 0.4) == pytest.approx(1.8)
    for wrong in ({"difference": 0, "deviation": 1}, {"difference": 1, "deviation": 1, "power": 1}):
        with pytest.raises(ValueError, match="must"):
            n_for_difference(**wrong)


def test_sample_size_gives_the_power_that_it_promises():
    n, rng = n_for_difference(0.4, 1.0), np.random.default_rng(3)
    draws = rng.normal(0.4, 1.0, size=(4000, n))
    z = draws.mean(1) / (1.0 / np.sqrt(n))
    assert abs((np.abs(z) > 1.96).mean() - 0.8) < 0.03
