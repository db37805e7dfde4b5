"""What the figures of benchmarks/distill_quality.py rest on."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd.data import dataset
from edgekd.data.batches import Normalize, loader
from edgekd.distill.outputs import Batch, Facts, Outputs, adapter_of
from edgekd.recipe.data import Data
from edgekd.registry import losses
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair
from edgekd.taps.taps import Tapped


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize("kind", ["kd", "attention_transfer"])
def test_the_same_method_of_both_libraries_has_the_same_value_and_gradients(module: Callable[[str], Any], kind: str) -> None:
    """With its shipped weight, where both follow the same formula."""
    torch.manual_seed(0)
    shapes = [(8, 16, 16), (12, 8, 8)]
    pairs = tuple(Pair(Layer("s", shape), Layer("t", shape)) for shape in shapes)
    student, teacher = (Outputs(torch.randn(6, 4), tuple(torch.randn(6, *shape) for shape in shapes)) for _ in range(2))
    batch = Batch(torch.arange(6) % 4, torch.arange(6))
    theirs = next(loss for loss in module("torchdistill_losses").all_losses(epochs=16) if loss.kind == kind)
    learning = (student.primary,) if kind == "kd" else student.features
    for tensor in learning:
        tensor.requires_grad_()
    found = []
    for loss in (losses.get(kind)(), theirs):
        value = loss.weight * loss(student, teacher, batch, adapter_of(loss, pairs, Facts(4, 6)))
        found.append((value.detach(), *torch.autograd.grad(value, learning)))
    assert all(gradient.any() for gradient in found[0][1:])
    for ours, other in zip(*found, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_every_loss_of_torchdistill_reaches_the_student(module: Callable[[str], Any]) -> None:
    shapes = {"logits": [], "stages": [(8, 16, 16), (12, 8, 8)], "last_stage": [(12, 8, 8)], "embedding": [(8,)]}
    labels = torch.arange(6) % 4
    for loss in module("torchdistill_losses").all_losses(epochs=16):
        torch.manual_seed(0)
        pairs = tuple(Pair(Layer("s", shape), Layer("t", shape)) for shape in shapes[loss.reads])
        student, teacher = (
            Outputs(torch.randn(6, 4), tuple(torch.randn(6, *pair.student.shape) for pair in pairs)) for _ in "st"
        )
        compared = student.features or (student.primary,)
        for tensor in compared:
            tensor.requires_grad_()
        adapter = adapter_of(loss, pairs, Facts(4, 6, labels))
        value = loss(student, teacher, Batch(labels, torch.arange(6)), adapter)
        value.backward()
        assert value.isfinite(), loss.kind
        assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in compared), loss.kind


def test_what_is_remembered_of_the_teacher_is_what_it_says(
    module: Callable[[str], Any], npz: Callable[..., str], small: Any
) -> None:
    section = Data(source=npz(), image_size=16, augment=("flip",))
    images = dataset.load(section)
    teacher, paths = small().eval(), ("down1", "stem")
    remembered = module("distill_quality").Remembered(teacher, images)
    remembered.of(("stem",))
    batches, augmented, _ = loader(images.train, section, 16, 0)
    augmented.epoch = 5
    x = Normalize(images.preprocessing)(next(iter(batches))[0]["image"])
    with torch.no_grad():
        for found, expected in zip(remembered.of(paths)(x), Tapped(teacher, paths).eval()(x), strict=True):
            torch.testing.assert_close(found, expected)


def test_gains_are_paired_by_seed(module: Callable[[str], Any]) -> None:
    quality = module("distill_quality")
    known = {"sha256": "0", "top1": 0.9}
    top1 = {("alone", ""): (0.80, 0.84), ("kd", "edgekd"): (0.83, 0.86), ("kd", "torchdistill"): (0.82, 0.86)}

    def page(seeds: int) -> str:
        rows = {
            case.key("0"): {"test_last": top1[case.kind, case.library][case.seed], "test_best": 0.81, "cpu_seconds": 9}
            for case in quality.cases(["resnet32x4-resnet8x4"], 2, ["kd"])
        }
        return quality.table(rows, known, argparse.Namespace(seeds=seeds))

    found = page(2)
    assert "| `kd` | edgekd | 84.50 ± 2.12 | +2.50 ± 0.71 | +0.50 [-5.85, +6.85] | 81.00 ± 0.00 | 9 |" in found
    assert "| `kd` | torchdistill | 84.00 ± 2.83 | +2.00 ± 0.00 |  | 81.00 ± 0.00 | 9 |" in found
    assert found.index("`kd`") < found.index("| student alone | ")
    assert "`kd` helps most: +2.50 points; the standard deviation of the student alone is 2.83. Of 1 that" in found
    assert "by more than the noise in none." in found
    assert "| `kd` (seeds: 2) | edgekd |" in page(3)
    assert "No loss has all its seeds yet." in page(3)


@pytest.mark.parametrize("theirs", [(0.84, 0.8501), (0.84, 0.85)], ids=["more or less", "by the same"])
def test_a_loss_that_is_below_is_named(module: Callable[[str], Any], theirs: tuple[float, float]) -> None:
    quality = module("distill_quality")
    top1 = {("alone", ""): (0.80, 0.81), ("kd", "edgekd"): (0.82, 0.83), ("kd", "torchdistill"): theirs}
    rows = {
        case.key("0"): {"test_last": top1[case.kind, case.library][case.seed], "test_best": 0.81, "cpu_seconds": 9}
        for case in quality.cases(["resnet32x4-shufflenet_v2"], 2, ["kd"])
    }
    assert "noise in `kd`." in quality.table(rows, {"sha256": "0", "top1": 0.9}, argparse.Namespace(seeds=2))


def test_a_variant_is_a_row_of_its_own(module: Callable[[str], Any]) -> None:
    quality = module("distill_quality")
    cases = {case.kind: case for case in quality.cases(["resnet32x4-resnet8x4"], 1, ["dkd", "dkd, no warm-up"])}
    assert cases.keys() == {"alone", "dkd", "dkd, no warm-up"}
    assert len({case.key("0") for case in cases.values()}) == 3
