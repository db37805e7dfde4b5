"""How close logits are to those of the float model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from edgekd.metrics import fidelity, quality
from edgekd.metrics.classification import Top1
from edgekd.results.layers import EXACT_DB

Array = NDArray[np.float32]


def drawn(n: int = 2000, classes: int = 10, seed: int = 0, scale: float = 2.0) -> Array:
    return (scale * np.random.default_rng(seed).normal(size=(n, classes))).astype(np.float32)


def compared(reference: Any, output: Any, labels: Any) -> Any:
    rows = [quality.rows_of((Top1(),), {"logits": logits}, labels, "logits") for logits in (output, reference)]
    return fidelity.compare("student", reference, output, quality.drops(*rows))


def test_agreement_and_drop_are_counted() -> None:
    reference = np.eye(4, dtype=np.float32)
    output = reference[[0, 1, 3, 2]]
    found = compared(reference, output, np.array([0, 1, 2, 2]))
    assert (found.reference, found.agreement.value, found.agreement.n) == ("student", 0.5, 4)
    assert found.drops["top1"].value == 0.0, "one image lost, one won"
    assert found.drops["top1"].low is not None
    assert found.drops["top1"].low < -0.4 < 0.4 < found.drops["top1"].high  # type: ignore[operator]
    assert not fidelity.compare("student", reference, output).drops


def test_three_images_that_agree_prove_nothing() -> None:
    x = drawn(3)
    found = compared(x, x.copy(), x.argmax(axis=1))
    assert found.agreement.value == 1.0
    assert found.agreement.low == pytest.approx(3 / (3 + 1.959964**2), abs=1e-6)  # Wilson at 3 of 3
    assert found.drops["top1"].high is not None
    assert found.drops["top1"].high > 0.3
    assert (found.expected_drop.low, found.expected_drop.high) == (0.0, 1.0)


def test_sqnr_is_of_what_the_logits_say_about_an_image() -> None:
    """A constant in a logit says nothing: it makes no signal, however large."""
    x, noise = drawn(), drawn(seed=1, scale=0.2)
    x, noise = (values - values.mean(axis=1, keepdims=True) for values in (x, noise))
    expected = 10 * np.log10(np.var(x, axis=0, ddof=1).sum() / np.square(noise).mean(axis=0).sum())
    found = fidelity.sqnr(x, x + noise)
    assert found.value == pytest.approx(expected, abs=1e-3)
    shift = np.arange(10, dtype=np.float32) * 100
    assert fidelity.sqnr(x + shift, x + noise + shift).value == pytest.approx(expected, abs=0.01)
    shared = 100 * drawn(2000, 1, seed=5)  # all logits of an image
    assert fidelity.sqnr(x + shared, x + noise + shared).value == pytest.approx(expected, abs=0.01)
    assert fidelity.relative_error(x, x + noise) == pytest.approx(10 ** (-expected / 20), rel=1e-3)
    assert fidelity.sqnr(x, x).value == EXACT_DB


def test_the_interval_of_sqnr_covers_the_truth() -> None:
    """19 of 20 samples of 100 images; the signal-to-noise ratio of all is 20 dB."""
    inside = 0
    for seed in range(200):
        x = drawn(100, seed=seed)
        found = fidelity.sqnr(x, x + drawn(100, seed=1000 + seed, scale=0.2))
        inside += found.low < 20 < found.high  # type: ignore[operator]
    assert 180 <= inside <= 199


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 4), st.integers(0, 10**6), st.floats(-4, 4), st.booleans())
def test_an_offset_hides_no_error(n: int, values: int, seed: int, power: float, classes: bool) -> None:
    """A pressure of 101,325 ± 14 Pa: the figure is that of ± 14, as long as float32 has it."""
    x, noise = drawn(n, values, seed), drawn(n, values, seed + 1, scale=1.0)
    if classes:
        values_of = (x, noise)
        x, noise = (part - part.mean(axis=1, keepdims=True) for part in values_of)
    offset = np.float64(10.0**power)
    reference = x.astype(np.float64) + offset
    shifted = fidelity.sqnr(reference, reference + noise, classes=classes).value  # type: ignore[arg-type]
    assert shifted == pytest.approx(fidelity.sqnr(x, x + noise, classes=classes).value, abs=1e-3)


def test_a_constant_is_no_pressure() -> None:
    exact = (101_325 + drawn(200, 1, scale=14.0)).astype(np.float32)
    found = fidelity.sqnr(exact, np.full_like(exact, exact.mean()), classes=False)
    assert found.value < 0.1
    assert fidelity.worst({"y": exact}, {"y": np.full_like(exact, 101_300.0)}).sqnr_db.value < 0  # type: ignore[union-attr]


def test_a_class_that_is_never_given_again_is_found() -> None:
    """Of 1,000 parts 5 are defect; top-1 falls by half a point."""
    good = np.arange(1000) >= 5
    reference = np.where(good[:, None], [3.0, -3.0], [-3.0, 3.0]).astype(np.float32)
    same = np.tile(np.array([0.1, -0.1], np.float32), (1000, 1))
    found = fidelity.compare("student", reference, same, {}).lost_classes
    assert found is not None
    assert (found.looked_for, found.lost) == (2, (1,))
    one = np.where((np.arange(1000) == 0)[:, None], reference, same)
    for output, lost in ((one, ()), (reference, ())):
        other = fidelity.lost_classes(reference, output)
        assert other is not None
        assert other.lost == lost
    assert fidelity.lost_classes(reference[1:], same[1:]).lost == (), "four samples are no class"  # type: ignore[union-attr]
    wavering = np.where(good[:, None], [3.0, -3.0], [-0.01, 0.01]).astype(np.float32)
    assert fidelity.lost_classes(wavering, same).lost == (), "float was not sure of it"  # type: ignore[union-attr]
    assert fidelity.lost_classes(np.eye(4, dtype=np.float32), np.zeros((4, 4), np.float32)) is None


def test_a_mask_of_small_objects_that_int8_never_sets_is_found() -> None:
    """Two of 256 positions in most samples: 99 % of the positions are the same."""
    random = np.random.default_rng(0)
    mask = np.zeros((200, 16, 16), np.int64)
    with_object = random.uniform(size=200) < 0.8
    for index in np.flatnonzero(with_object):
        mask[index, random.integers(16), random.integers(15, size=2)] = 1
    found = fidelity.same(mask, np.zeros_like(mask))
    assert found.value == pytest.approx(0.5)
    assert found.high is not None
    assert found.high < 0.8
    few = np.zeros_like(mask)
    few[0] = mask[np.flatnonzero(with_object)[0]]
    assert fidelity.same(few, np.zeros_like(mask)).value > 0.9, "one sample is no class"


def test_logits_that_are_the_same_for_all_images_are_not_destroyed_by_rounding() -> None:
    constant = np.tile(np.arange(10, dtype=np.float32), (50, 1))
    assert fidelity.relative_error(constant, constant + np.float32(1e-6)) < 0.01
    assert fidelity.relative_error(constant, constant + np.float32(1.0)) > 1


def test_the_expected_drop_is_the_drop_where_confidence_is_right() -> None:
    """Labels drawn from the float model's own softmax: its confidence is true, and the estimate is that of the labels."""
    rng = np.random.default_rng(0)
    x = drawn(20_000, scale=5.0)
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    assert p.max(axis=1).mean() > fidelity.CONFIDENCE
    labels = (p.cumsum(axis=1) > rng.uniform(size=(len(x), 1))).argmax(axis=1)
    for noise in (0.6, 4.0):
        found = compared(x, x + drawn(20_000, seed=2, scale=noise), labels)
        assert found.expected_drop.value == pytest.approx(found.drops["top1"].value, abs=0.006)


def test_logits_of_any_size_cannot_hide_a_loss() -> None:
    """Cosines make a softmax that is nearly flat; the estimate does not depend on the factor that a user left out."""
    x, noise = drawn(scale=4.0), drawn(seed=3, scale=4.0)
    small = fidelity.expected_drop(x / 100, (x + noise) / 100).value
    assert small > 0.15
    assert small == pytest.approx(fidelity.expected_drop(x / 1000, (x + noise) / 1000).value, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(2, 6), st.integers(0, 10**6), st.floats(0, 100), st.booleans())
def test_laws(n: int, classes: int, seed: int, noise: float, equal: bool) -> None:
    """Whatever the logits: shares are shares, an interval holds its estimate, and less noise is no worse."""
    x = np.zeros((n, classes), np.float32) if equal else drawn(n, classes, seed)
    y = x + drawn(n, classes, seed + 1, noise)
    found = compared(x, y, x.argmax(axis=1))
    assert 0 <= found.expected_drop.value <= 1 - found.agreement.value + 1e-9 <= 1 + 1e-9
    for figure in (found.agreement, found.expected_drop, found.sqnr_db, found.drops["top1"]):
        assert figure.n == n
        assert figure.low is None or figure.low <= figure.value + 1e-9
        assert figure.high is None or figure.value - 1e-9 <= figure.high
    half = fidelity.sqnr(x, (x + y) / 2)
    assert half.value >= found.sqnr_db.value - 1e-6


def test_agresti_min_beside_the_exact_interval() -> None:
    """The interval of paired shares covers the truth in 95 % of samples, of few and of many changes."""
    from edgekd.statistics import paired_shares

    rng = np.random.default_rng(0)
    for n, lost, gained in ((100, 0.03, 0.01), (2000, 0.02, 0.02), (300, 0.2, 0.05)):
        counts = rng.multinomial(n, (lost, gained, 1 - lost - gained), size=2000)
        inside = [low <= lost - gained <= high for low, high in (paired_shares(int(b), int(c), n) for b, c, _ in counts)]
        assert stats.binomtest(sum(inside), 2000).proportion_ci().high > 0.945


def test_the_value_that_int8_has_lost_is_found() -> None:
    """x and y in pixels, w and h in shares: with one step for all of them the shares become a constant."""
    random = np.random.default_rng(0)
    box = np.concatenate([random.uniform(0, 300, (400, 2)), random.uniform(0.6, 0.8, (400, 2))], axis=1).astype(np.float32)
    step = np.float32(300 / 255)
    int8 = np.round(box / step) * step
    assert fidelity.sqnr(box, int8, classes=False).value > 40  # as a whole it is fine
    found = fidelity.worst({"map": box[:, :2, None, None], "box": box}, {"map": int8[:, :2, None, None], "box": int8})
    assert found is not None
    assert (found.output, found.index in (2, 3)) == ("box", True)
    assert found.sqnr_db.value < 0
    assert found.sqnr_db.n == 400
    assert str(found) == f"box[{found.index}]"
    assert found.outputs.keys() == {"map", "box"}
    assert found.outputs["map"] > 40
    assert fidelity.worst({"box": box[:, None, :, None]}, {"box": int8[:, None, :, None]}) == fidelity.worst(
        {"box": box}, {"box": int8}
    )
    assert found.outputs["box"] == pytest.approx(found.sqnr_db.value)
    broken = fidelity.worst({"map": box[:, :, None], "same": box}, {"map": box[:, :, None] * np.nan, "same": box})
    assert broken is not None
    assert broken.outputs == {"map": -fidelity.EXACT_DB, "same": fidelity.EXACT_DB}


def test_the_flag_that_int8_never_sets_is_found() -> None:
    """Most samples have the same value by chance, and the other flags of the output are right."""
    random = np.random.default_rng(0)
    flags = random.uniform(size=(400, 3)) < (0.5, 0.04, 0.5)
    int8 = flags.copy()
    int8[:, 1] = False
    found = fidelity.worst_agreement({"scores": np.ones((400, 2), np.float32), "flags": flags}, {"flags": int8})
    assert found is not None
    assert (str(found), found.agreement.n) == ("flags[1]", 400)
    assert found.agreement.value == pytest.approx(0.5)
    assert found.agreement.high is not None
    assert found.agreement.high < 0.8
    assert found.outputs == {"flags": found.agreement.value}
    assert fidelity.worst_agreement({"flags": flags[:, :, None]}, {"flags": int8[:, :, None]}) == found


def test_agreement_of_integers_is_what_was_counted() -> None:
    random = np.random.default_rng(0)
    classes = np.repeat(np.arange(4), 100)
    healthy = np.where(random.uniform(size=400) < 0.03, (classes + 1) % 4, classes).astype(np.int32)
    found = fidelity.same(classes, healthy)
    assert found.value == pytest.approx((classes == healthy).mean())
    assert found.low is not None
    assert found.high is not None
    assert 0.9 < found.low < found.value < found.high
    maps = np.broadcast_to(classes[:, None, None], (400, 5, 5))
    assert fidelity.same(maps, maps) == fidelity.same(classes, classes)
    assert fidelity.same(classes, classes).value == 1
    rare = np.zeros(400, np.int64)
    rare[0] = 1
    assert fidelity.same(rare, 0 * rare).value > 0.9, "one sample is no class"
    assert fidelity.worst_agreement({"x": np.ones((3, 2), np.float32)}, {"x": np.ones((3, 2), np.float32)}) is None


def test_outputs_that_are_no_vectors_count_as_a_whole() -> None:
    random = np.random.default_rng(0)
    maps = random.normal(size=(50, 4, 3, 3)).astype(np.float32)
    found = fidelity.worst({"map": maps, "ids": np.ones((50, 2), np.int64)}, {"map": maps + 0.01, "ids": np.zeros((50, 2))})
    assert found is not None
    assert str(found) == "map"
    assert fidelity.worst({}, {}) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("both", [True, False])
def test_what_is_no_number_has_the_least_ratio(value: float, both: bool) -> None:
    """Also where float and int8 agree on it, and wherever it stands."""
    exact = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    output = exact.copy()
    output[3, 1] = value
    reference = output if both else exact
    with np.errstate(invalid="ignore"):
        assert fidelity.sqnr(reference, output, classes=False).value == -EXACT_DB
        found = fidelity.worst({"box": reference}, {"box": output})
    assert found is not None
    assert (str(found), found.sqnr_db.value) == ("box[1]", -EXACT_DB)
