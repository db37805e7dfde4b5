import numpy as np
import pytest

from edgekd.profiling import stats
from edgekd.report import trust

QUIET = stats.Conditions(load_before=0.1, load_after=0.9, cores=4, others=0.2)
STEADY = [1.0] * 7


def test_percentiles_are_of_all_samples_pooled():
    figures = stats.latency([range(1, 51), range(51, 102)])
    assert (figures.p50, figures.p90, figures.p99) == (51.0, 91.0, 100.0)
    assert (figures.min, figures.mean, figures.n) == (1.0, 51.0, 101)


def test_interval_of_equal_blocks_is_their_common_median():
    assert stats.interval([[1.0, 2.0, 3.0]] * 5, 50) == (2.0, 2.0)


def test_interval_follows_the_blocks_not_the_number_of_samples():
    """A thousand samples inside a block must not make blocks that disagree look certain."""
    low, high = stats.interval([[1.0] * 1000, [2.0] * 1000, [3.0] * 1000], 50)
    assert (low, high) == (1.0, 3.0)


@pytest.mark.parametrize("sizes", [(5, 5, 5), (3, 8, 4, 6), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("percentile", [50, 90])
def test_interval_is_that_of_the_plain_bootstrap(sizes, percentile):
    rng = np.random.default_rng(1)
    blocks = [rng.normal(size=size) for size in sizes]
    draws = np.random.default_rng(0).integers(len(blocks), size=(300, len(blocks)))
    found = [np.percentile(np.concatenate([blocks[i] for i in draw]), percentile) for draw in draws]
    plain = np.percentile(found, [2.5, 97.5])
    assert stats.interval(blocks, percentile, resamples=300) == pytest.approx(tuple(plain))


def test_p50_and_p90_each_have_an_interval():
    """A gate on p90 of an untrusted measurement asks where the whole interval of p90 is."""
    figures = stats.latency([np.linspace(1, 2, 50), np.linspace(1, 4, 50), np.linspace(1, 3, 50)])
    assert figures.ci[0] <= figures.p50 <= figures.ci[1] < figures.p90
    assert figures.ci_p90[0] <= figures.p90 <= figures.ci_p90[1]


def test_interval_is_reproducible():
    blocks = list(np.random.default_rng(2).normal(size=(7, 30)))
    assert stats.interval(blocks, 90, seed=3) == stats.interval(blocks, 90, seed=3)


def test_drift_and_spread_have_their_defined_values():
    assert stats.block_medians([[1, 2, 9], [4, 4]]) == (2.0, 4.0)
    assert stats.drift([2.0, 9.0, 3.0]) == pytest.approx(0.5)
    assert stats.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)


def test_a_quiet_session_is_trusted():
    assert not stats.doubts(STEADY, busy=1.0, threads=1, asked=1, conditions=QUIET)
    found = stats.trust(STEADY, [], QUIET)
    assert (found.verdict, found.reasons, found.drift, found.spread) == ("trusted", (), 0.0, 0.0)
    assert (found.load_before, found.load_after) == (0.1, 0.9)


def test_the_load_average_alone_is_no_reason():
    """It still holds edgekd's own training that has just ended."""
    after_training = stats.Conditions(load_before=4.0, load_after=3.0, cores=4, others=0.0)
    assert not stats.doubts(STEADY, 1.0, 1, 1, after_training)


@pytest.mark.parametrize(
    ("medians", "reason"),
    [
        ([1.0, 1.0, 1.0, 1.0, 1.11], "the last block was 11 % slower than the first"),
        ([1.0, 1.0, 1.0, 1.0, 0.8], "the last block was 20 % faster than the first"),
        ([1.0, 1.4, 1.4, 1.0, 1.0], "the blocks differ by 40 % (interquartile range over median)"),
    ],
)
def test_restless_blocks_are_told(medians, reason):
    (doubt,) = stats.doubts(medians, 1.0, 1, 1, QUIET)
    assert (trust.sentence(doubt.fact), doubt.cure) == (reason, "again")
    found = stats.trust(medians, [doubt], QUIET)
    assert (found.verdict, found.reasons) == ("untrusted", (doubt.fact,))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"others": 1.5}, ("other processes kept 1.5 of 4 cores busy", "again")),
        ({"others": None}, ("the load of other processes on the device could not be read", "")),
        ({"steal": 0.2}, ("the hypervisor took 20 % of the CPU time for other machines", "again")),
        ({"throttled": {3: "throttled"}}, ("throttled in block 3", "cool")),
        ({"throttled": {3: "throttled", 1: "throttled"}}, ("throttled in blocks 1 and 3", "cool")),
        ({"throttled": dict.fromkeys(range(2, 6), "under-voltage")}, ("under-voltage in blocks 2 to 5", "cool")),
        ({"governor": "powersave", "held_down": True}, ("the frequency governor powersave holds the clock down", "")),
        ({"emulated": True}, ("the device is emulated: its times are not the hardware's", "")),
    ],
)
def test_a_disturbed_machine_is_told(change, reason):
    conditions = stats.Conditions(**{"load_before": 0.0, "load_after": 0.0, "cores": 4, "others": 0.0, **change})
    (doubt,) = stats.doubts(STEADY, 1.0, 1, 1, conditions)
    assert (trust.sentence(doubt.fact), doubt.cure) == reason


def test_a_process_that_waited_or_had_more_threads_is_told():
    found = stats.doubts(STEADY, busy=0.6, threads=3, asked=2, conditions=QUIET)
    assert tuple(trust.sentence(doubt.fact) for doubt in found) == (
        "the process had a CPU for only 60 % of the time",
        "3 threads worked, 2 asked for",
    )
