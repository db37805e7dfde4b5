"""Sensitivity on networks whose weak layer is known, and what keeping it in float gives back."""

from __future__ import annotations

import math

import pytest
import torch
from tests.unit.exporting.nets import Residual, images
from torch import Tensor, nn

from edgekd.errors import QuantizeError
from edgekd.quantization import qat, sensitivity
from edgekd.results.layers import EXACT_DB


def calibrated(net: nn.Module, **options: object) -> qat.Prepared:
    prepared = qat.prepare(net.eval(), images(1), **options)  # type: ignore[arg-type]
    qat.set_fake_quant(prepared.module, False)
    with torch.no_grad():
        for seed in range(3):
            prepared.module(images(16, seed=seed))
    qat.set_fake_quant(prepared.module, True)
    qat.freeze_observers(prepared.module)
    return prepared


def snr(net: nn.Module, prepared: qat.Prepared) -> float:
    """Of the logits, in dB, by hand."""
    x = images(32, seed=5)
    with torch.no_grad():
        exact, rounded = net(x), qat.convert(prepared.module, fold_weights=True)(x)
    return float(10 * torch.log10(exact.square().sum() / (exact - rounded).square().sum()))


class Chain(nn.Module):
    """Convolutions with a depthwise one in the middle; ``spoil`` makes one place bad for int8."""

    def __init__(self, spoil: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 5)
        with torch.no_grad():
            if spoil == "channels":  # the small channels matter as much as the great ones: the next layer undoes the scale
                scale = torch.logspace(0, -3, 16)
                self.depthwise.weight.mul_(scale.reshape(16, 1, 1, 1))
                self.depthwise.bias.mul_(scale)
                self.pointwise.weight.div_(scale.reshape(1, 16, 1, 1))
            if spoil == "outlier":  # one channel a thousand times the others, which nothing reads
                self.pointwise.weight[3].mul_(1000)
                self.last.weight[:, 3] = 0

            self.head.bias.sub_(self(images(64)).mean(0))  # so that every class is the answer now and then

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.pointwise(self.depthwise(self.stem(x))))
        logits: Tensor = self.head(self.last(x).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("spoil", "path", "kept"),
    [("channels", "depthwise", {"depthwise", "pointwise"}), ("outlier", "pointwise", {"pointwise", "relu", "last"})],
)
def test_the_bad_layer_is_the_worst_and_float_restores_it(spoil: str, path: str, kept: set[str]) -> None:
    net = Chain(spoil).eval()
    prepared = calibrated(net)
    worst, *rest = sensitivity.measure(prepared.module, [images(16, seed=8)])
    assert (worst.path, worst.op, worst.cause) == (path, "conv2d", "output")
    assert all(worst.logits_db < row.logits_db - 10 for row in rest if f"%{row.name}" not in worst.keep_float)
    repaired = calibrated(net, keep_float=worst.keep_float)
    assert {f"%{left.node}" for left in repaired.float_ops} == set(worst.keep_float)
    assert snr(net, repaired) > snr(net, prepared) + 10
    assert snr(net, repaired) > 10
    by_path = calibrated(net, keep_float=kept)  # relu is the name of a module here and of another node
    assert by_path.float_ops == repaired.float_ops


def test_a_signal_to_noise_ratio_at_the_layer_misses_small_channels() -> None:
    """Why the logits decide."""
    rows = sensitivity.measure(calibrated(Chain("channels")).module, [images(16, seed=8)])
    depthwise = next(row for row in rows if row.path == "depthwise")
    assert depthwise.alone_db > 30 > depthwise.logits_db


def test_figures_are_those_of_the_graph() -> None:
    torch.manual_seed(0)
    net = Residual().eval()
    prepared = calibrated(net)
    rows = sensitivity.measure(prepared.module, [images(32, seed=5)])
    by_path = {(row.path, row.op): row for row in rows}
    last = by_path["head.3", "linear"]
    assert last.total_db == pytest.approx(snr(net, prepared), abs=1.5)  # but for the rounding of biases
    with torch.no_grad():
        exact = net(images(32, seed=5)).double()
    offset = 10 * math.log10(float((exact - exact.mean(dim=0)).square().sum() / exact.square().sum()))
    assert last.logits_db == pytest.approx(last.alone_db + offset), "what all samples share says nothing"
    assert [row.logits_db for row in rows] == sorted(row.logits_db for row in rows)
    assert all(math.isfinite(row.alone_db) and row.alone_db <= EXACT_DB for row in rows)
    assert set(by_path) == {
        ("input", "input"), ("stem.0", "conv2d"), ("branch.0", "conv2d"), ("branch.3", "conv2d"), ("", "add"),
        ("head.0", "mean"), ("head.3", "linear"),
    }  # fmt: skip
    expected = 20 * math.log10(127) + 10 * math.log10(3)  # of a full-range symmetric weight, halves of a step at most
    assert 25 < by_path["branch.3", "conv2d"].alone_db < expected + 20
    assert by_path["branch.3", "conv2d"].float_bytes == 3 * 16 * 16


def test_measuring_changes_nothing() -> None:
    module = calibrated(Residual()).module
    before = qat.state(module)
    sensitivity.measure(module, [images(4)])
    assert all(torch.equal(value, before[name]) for name, value in qat.state(module).items())


def test_the_sum_goes_over_all_batches() -> None:
    module = calibrated(Residual()).module
    x = images(8, seed=4)
    whole, parts = sensitivity.measure(module, [x]), sensitivity.measure(module, [x[:3], x[3:]])
    for a, b in zip(sorted(whole, key=lambda row: row.name), sorted(parts, key=lambda row: row.name), strict=True):
        assert a.logits_db == pytest.approx(b.logits_db, abs=0.05)
        assert a.total_db == pytest.approx(b.total_db, abs=0.05)


def test_a_path_keeps_all_that_is_inside_in_float() -> None:
    prepared = calibrated(Residual(), keep_float=["branch"])
    nodes = ("conv2d", "conv2d_1"), ("relu", "relu_1"), ("conv2d", "conv2d_2")
    assert [(left.operator, left.node) for left in prepared.float_ops] == list(nodes)
    assert {(left.reason, left.asked) for left in prepared.float_ops} == {("kept in float", True)}
    assert all(left.layer.startswith("branch") for left in prepared.float_ops)
    assert prepared.module(images(2)).shape == (2, 10)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(QuantizeError) as error:
        qat.prepare(Chain().eval(), images(1), keep_float=["depthwize"])
    assert str(error.value) == "keep_float: the graph has no layer 'depthwize'\n  → did you mean depthwise?"


def test_of_a_chain_of_float_operators_the_one_that_is_rounded_is_named() -> None:
    class Exponential(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head((self.conv(x) * 3).clamp(max=9.0).exp().mean((2, 3)))
            return logits

    rows = sensitivity.measure(calibrated(Exponential()).module, [images(16, seed=8)])
    assert {"exp", "conv2d", "mean"} <= {row.op for row in rows}
    assert "clamp" not in {row.op for row in rows}


class Several(nn.Module):
    """Outputs that are parts of one layer's result, an integer of such a part, and one of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.first, self.second = nn.Linear(4, 5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x)
        first, second = self.first(y), self.second(y)
        return {"logits": second, "part": first[:, :3], "flag": first[:, 4] > 0, "both": torch.cat([first, second], 1)}


def test_the_layers_that_give_an_output_are_the_first_on_each_way_back() -> None:
    torch.manual_seed(0)
    rows = sensitivity.measure(calibrated(Several()).module, [images(8)])
    assert {row.path: row.gives for row in rows if row.gives} == {
        "first": ("part", "flag", "both"), "second": ("logits", "both"),
    }  # fmt: skip
    kept = calibrated(Several(), keep_float=("first",))
    rows = sensitivity.measure(kept.module, [images(8)])
    # The concatenation still rounds what is kept; its parts are float.
    assert {row.path: row.gives for row in rows if row.gives} == {"first": ("both",), "second": ("logits", "both")}


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_an_offset_hides_no_noise_of_a_layer(offset: float) -> None:
    """Of all classes: a softmax does not see it."""

    class Offset(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + offset

    torch.manual_seed(0)
    rows = sensitivity.measure(calibrated(Offset()).module, [images(32, seed=5)], classes=True)
    assert (rows[0].logits_db < 0) is bool(offset), rows  # the offset is folded into the last layer's bias


class Computed(nn.Module):
    """Outputs that are computed from layers with weights, and one that is computed from the input alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.first, self.second, self.third = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.body(x)
        total, mean = self.first(y) + self.second(y), x.mean((2, 3))
        return {"logits": total, "late": total.softmax(1) * 2 + self.third(y), "mean": mean + mean.square()}


def test_what_computes_with_layers_is_named_with_them_and_the_input_never() -> None:
    torch.manual_seed(0)
    rows = sensitivity.measure(calibrated(Computed()).module, [images(8)])
    found = {name: {row.path or row.op for row in rows if name in row.gives} for name in ("logits", "late", "mean")}
    sums = {row.name for row in rows if row.op == "add" and "late" in row.gives}
    assert found["logits"] == {"add", "first", "second"}
    assert found["late"] == {"add", "mul", "softmax", "first", "second", "third"}
    assert len(sums) == 2
    assert found["mean"] == {"add", "square", "mean"}
