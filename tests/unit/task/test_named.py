"""Inputs of a network go to the arguments of their names, in training, in files and between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from torch import Tensor, nn

import edgekd
from edgekd import registry
from edgekd.distill.teachers import Combination, Ensemble
from edgekd.errors import ModelError
from edgekd.models import build
from edgekd.taps.taps import Tapped
from edgekd.task import named
from edgekd.task.base import Port, Signature

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.own, self.other, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, right, left):
        return self.out((self.own(left) - 0.1 * self.other(right)).relu())
"""
RECIPE = {
    "edgekd": 2,
    "task": "pair",
    "data": {"source": "npz:pair.npz"},
    "student": {"model": "net.py:Net"},
    "distill": {"epochs": 12, "batch_size": 16, "lr": 0.02, "losses": [{"kind": "task"}]},
    "quantize": {"method": "qat", "epochs": 2},
    "export": ["onnx"],
}


class Distance:
    """Mean absolute error."""

    name, label, unit, better = "mae", "MAE", "", "lower"

    def per_sample(self, outputs: Any, targets: Any, primary: str) -> Any:
        wanted = targets[primary] if isinstance(targets, dict) else targets
        return np.abs(outputs[primary].astype(np.float64) - wanted).mean(axis=1)[:, None]

    def reduce(self, rows: Any, weights: Any = None) -> float:
        return float(np.average(rows[:, 0], weights=weights))


class Pair:
    """Values of vectors; the inputs have the order of the archive."""

    kind, gives = "pair", ()
    metrics, agreement = (Distance(),), Distance()

    def signature(self, samples: Any) -> Signature:
        inputs = tuple(Port(name, ("N", *shape), dtype) for name, (shape, dtype) in samples.inputs.items())
        return Signature(inputs, (Port("values", ("N", *samples.target)),), "values")

    def builder_args(self, samples: Any) -> dict[str, Any]:
        return {}

    def stratum(self, targets: Any) -> None:
        return None

    def criterion(self, primary: Any, target: Any, smoothing: float) -> Any:
        return nn.functional.mse_loss(primary, target)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of two inputs, which only ``left`` decides."""
    random, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 120), ("test", 40)):
        left, right = random.normal(size=(2, count, 6)).astype(np.float32)
        arrays |= {f"x_{split}.left": left, f"x_{split}.right": 3 * right, f"y_{split}": left[:, :2] - left[:, 2:4]}
    np.savez(tmp_path / "pair.npz", **arrays)  # type: ignore[arg-type]
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "pair.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(registry.tasks._entries, Pair.kind, Pair)
    return tmp_path


def test_a_network_with_its_arguments_in_another_order_is_trained_and_shipped_alike(folder: Path) -> None:
    outcome = edgekd.run(folder / "pair.yaml", quiet=True)
    result = outcome.result
    assert result is not None
    found = {model.name: model for model in result.models}
    figures = {name: found[name].figure("mae").value for name in ("distilled", "qat", "onnx_float", "onnx")}  # type: ignore[union-attr]
    assert figures["onnx_float"] == pytest.approx(figures["distilled"], abs=1e-4)
    assert figures["onnx"] == pytest.approx(figures["qat"], abs=1e-2)
    # in the comparison layer by layer, too
    differences = [layer.differences["onnx"] for layer in result.layers if "onnx" in layer.differences]
    assert differences
    assert max(one.steps for one in differences) <= 1
    # `left` was trained as `left`: a network that has learned to read its targets there, and uses them in the test
    first, *_, last = next(curve for curve in result.curves if curve.model == "distilled").val["mae"]
    assert last < first / 2
    assert figures["distilled"] < 1.5 * last
    (file,) = (outcome.folder / "artifacts").glob("*float*.onnx")
    session, stored = onnxruntime.InferenceSession(file.read_bytes()), np.load(folder / "pair.npz")
    assert {port.name for port in session.get_inputs()} == {"left", "right"}
    given = [
        session.run(None, {"left": stored["x_test.left"][at : at + 1], "right": stored["x_test.right"][at : at + 1]})[0][0]
        for at in range(40)
    ]
    assert np.abs(np.stack(given) - stored["y_test"]).mean() == pytest.approx(figures["onnx_float"], abs=1e-4)


class Swapped(nn.Module):
    """Tells its arguments apart."""

    def forward(self, right: Tensor, left: Tensor) -> Tensor:
        return left - 10 * right


class Straight(nn.Module):
    """The same in another order."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left - 10 * right


class Starred(nn.Module):
    """Has no names."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] - 10 * inputs[1]


class Partly(nn.Module):
    """Has one of the names."""

    def forward(self, right: Tensor, other: Tensor) -> Tensor:
        return right + other


INPUTS = {"left": torch.tensor([[1.0, 2.0]]), "right": torch.tensor([[3.0, 4.0]])}
WANTED = torch.tensor([[-29.0, -38.0]])


@pytest.mark.parametrize("network", [Swapped(), Straight(), Starred()])
def test_a_network_gets_each_input_by_its_name(network: nn.Module) -> None:
    assert named.call(network, INPUTS).equal(WANTED)
    (tapped,) = named.call(Tapped(network), INPUTS)
    assert tapped.equal(WANTED)
    assert named.by_position(network, INPUTS) == isinstance(network, Starred)


def test_each_of_several_teachers_gets_the_inputs_in_its_own_order() -> None:
    ensemble = Ensemble({"one": Swapped(), "two": Straight()}, Combination("logits"))
    assert named.call(ensemble, INPUTS).equal(WANTED)


def test_a_wrapper_is_traced_with_the_names_of_the_inputs() -> None:
    network = named.with_arguments(Tapped(Starred()), INPUTS)
    program = torch.export.export(network, tuple(INPUTS.values()), strict=False).module()
    assert named.arguments(program) == ("left", "right")


def test_names_that_fit_in_part_are_refused() -> None:
    with pytest.raises(ModelError, match=r"Partly.forward\(\) takes right, other, and the inputs are left, right: only"):
        named.call(Partly(), INPUTS)
    assert not named.by_position(Partly(), INPUTS)


class Keyword(nn.Module):
    def forward(self, x: Tensor, *, scale: float = 2.0) -> Tensor:
        return x * scale


class KeywordAlone(nn.Module):
    def forward(self, *, x: Tensor) -> Tensor:
        return x


def test_an_argument_by_keyword_alone_is_no_input() -> None:
    x = torch.ones(1, 2)
    assert torch.equal(named.call(Keyword(), x), 2 * x)
    with pytest.raises(ModelError, match=r"KeywordAlone.forward\(\) takes x by keyword alone") as caught:
        named.call(KeywordAlone(), x)
    assert caught.value.hint == "remove the * from the arguments of forward()"


def test_one_input_needs_no_name() -> None:
    assert named.call(nn.Identity(), {"left": WANTED}).equal(WANTED)
    assert not named.by_position(nn.Identity(), {"left": WANTED})


def test_macs_are_counted_with_inputs_by_name() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = nn.Linear(3, 2), nn.Linear(5, 2)

        def forward(self, large: Tensor, small: Tensor) -> Tensor:
            out: Tensor = self.small(small) + self.large(large)
            return out

    ports = (Port("small", ("N", 3)), Port("large", ("N", 5)))
    assert build.macs(Sized(), Signature(ports, (Port("values", ("N", 2)),), "values")) == 16
