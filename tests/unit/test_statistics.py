from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgekd.statistics import Spread, holm, paired, ranks, spread

OURS = [0.871, 0.866, 0.879, 0.874, 0.868]
THEIRS = [0.862, 0.867, 0.865, 0.870, 0.861]


def test_a_spread_is_numpys_and_its_interval_scipys() -> None:
    found = spread(OURS)
    assert found.n == 5
    assert found.mean == pytest.approx(np.mean(OURS), abs=1e-15)
    assert found.sd == pytest.approx(np.std(OURS, ddof=1), rel=1e-12)
    expected = stats.t.interval(0.95, 4, loc=np.mean(OURS), scale=stats.sem(OURS))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)


def test_an_interval_by_the_table_of_student() -> None:
    """t for 2 degrees of freedom and 95 % is 4.303 in every printed table."""
    found = spread([1.0, 2.0, 3.0])
    assert (found.mean, found.sd) == (2.0, 1.0)
    assert found.low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4)
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)


def test_one_seed_has_no_spread() -> None:
    assert spread([0.8]) == Spread(1, 0.8)
    assert paired([0.8], [0.7]).p is None


def test_paired_differences_are_scipys() -> None:
    found = paired(OURS, THEIRS)
    expected = stats.ttest_rel(OURS, THEIRS)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.95)
    assert (found.gain.low, found.gain.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.gain.sd == pytest.approx(np.std(np.subtract(OURS, THEIRS), ddof=1), rel=1e-9)


def test_pairs_say_more_than_two_spreads() -> None:
    """The same gain in every seed is seen through a spread between seeds that hides it."""
    seeds = np.array([0.70, 0.80, 0.90])
    better = seeds + np.array([0.010, 0.011, 0.012])
    found = paired(list(better), list(seeds))
    assert found.gain.low is not None
    assert found.gain.low > 0
    assert stats.ttest_ind(better, seeds).pvalue > 0.5


def test_seeds_that_agree_by_chance_are_not_certainty() -> None:
    """Two differences of the same number of images: no interval of width 0, no p of 0."""
    found = paired([0.5, 0.75], [0.25, 0.5])
    assert (found.gain.mean, found.gain.sd) == (0.25, 0.0)
    assert (found.gain.low, found.p) == (None, None)


def test_equal_differences_have_no_spread_whatever_their_last_bits() -> None:
    """Nine images of 2,000 in both seeds: in floating point the differences differ by 1e-16."""
    found = paired([1662 / 2000, 1614 / 2000], [1653 / 2000, 1605 / 2000])
    assert found.gain.mean == pytest.approx(0.0045)
    assert (found.gain.sd, found.gain.low, found.p) == (0.0, None, None)
    one_image = paired([1662 / 2000, 1615 / 2000], [1653 / 2000, 1605 / 2000])
    assert one_image.p is not None


def test_holm_by_hand() -> None:
    """Sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, and never less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_out_what_was_not_tested_and_stays_a_probability() -> None:
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_ranks_that_intervals_leave_open() -> None:
    """A clear first; two that overlap each other; one that touches the third alone."""
    assert ranks([(8, 9), (4, 6), (5, 7), (3, 4.5)]) == [(1, 1), (2, 4), (2, 3), (3, 4)]
