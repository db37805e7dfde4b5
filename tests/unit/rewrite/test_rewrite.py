"""student.rewrite on networks of the model libraries and on networks as users write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import ModelError
from edgekd.exporting.exporter import Options, Source
from edgekd.exporting.formats.onnx import OnnxExporter
from edgekd.models import build
from edgekd.quantization import qat
from edgekd.quantization.fold import fold
from edgekd.recipe.data import Data
from edgekd.recipe.student import Rewrite
from edgekd.rewrite import activations, rewrite
from edgekd.taps.taps import Tapped
from edgekd.task.image_classification import purpose
from edgekd.task.named import call

DATA = Data(source="fashion-mnist-mini", image_size=32)
X = build.one_input(purpose(DATA).signature, 2)

NETS = [
    ("torchvision:mobilenet_v3_small", {"hardswish": "relu6"}, ["hardswish → relu6: 19 places"]),
    ("torchvision:mobilenet_v3_small", {"hardswish": "relu", "gate": "sigmoid"},
     ["hardswish → relu: 19 places", "hardsigmoid → sigmoid: 9 places"]),
    ("torchvision:mobilenet_v3_small", {"se": "drop"}, ["squeeze-excite → nothing: 9 places"]),
    ("torchvision:efficientnet_b0", {"silu": "relu6", "gate": "hardsigmoid"},
     ["silu → relu6: 49 places", "sigmoid → hardsigmoid: 16 places"]),
    ("torchvision:efficientnet_b0", {"silu": "relu6", "se": "drop"},
     ["squeeze-excite → nothing: 16 places", "silu → relu6: 33 places"]),
    ("timm:mobilenetv3_small_050", {"hardswish": "relu6", "se": "drop"},
     ["squeeze-excite → nothing: 9 places", "hardswish → relu6: 19 places"]),
    ("timm:efficientnet_b0", {"silu": "relu", "gate": "hardsigmoid"},  # timm's own Sigmoid class
     ["silu → relu: 49 places", "sigmoid → hardsigmoid: 16 places"]),
    ("torchvision:convnext_tiny", {"gelu": "relu"}, ["gelu → relu: 18 places"]),
]  # fmt: skip


@pytest.mark.parametrize(("source", "rules", "told"), NETS)
def test_library_networks(source: str, rules: dict[str, Any], told: list[str]) -> None:
    if source.startswith("timm:"):
        pytest.importorskip("timm")
    net = build.network(source, {}, purpose(DATA, 10))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = rewrite(net, Rewrite(**rules), X)
    assert [str(change) for change in found.changes] == told
    assert found.left == ()
    assert found.model is net
    assert found.model.eval()(X).shape == (2, 10)
    after = found.model.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    gone = {name.rpartition(".")[0] for name in before.keys() - after.keys()}
    blocks = [path for change in found.changes if change.what == "squeeze-excite" for path in change.places]
    assert all(any(path.startswith(block) for block in blocks) for path in gone)
    assert bool(gone) == bool(blocks)
    assert not {change.what for change in found.changes} & activations.census(found.model, X).keys()


def test_no_slow_operator_reaches_the_float_file(tmp_path: Path) -> None:
    rules = {"hardswish": "relu6", "gate": "sigmoid"}
    net = rewrite(build.network("torchvision:mobilenet_v3_small", {}, purpose(DATA, 10)), Rewrite(**rules), X).model.eval()
    path = tmp_path / "net.onnx"
    OnnxExporter().export(Source(fold(net, X[:1]), X[:1]), path, Options("float32", "float32", tmp_path / "log"))
    ops = {node.op_type for node in onnx.load(path).graph.node}
    assert "HardSwish" not in ops
    assert "HardSigmoid" not in ops
    assert "Sigmoid" in ops


class HandWritten(nn.Module):
    """Hard-swish as most repositories wrote it before torch had one."""

    def __init__(self) -> None:
        super().__init__()
        self.relu6 = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.relu6(x + 3) / 6


class Functional(nn.Module):
    """Activations called in forward, next to a dropout that depends on the mode."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        x = x * self.gate(x).sigmoid()
        x = F.dropout(x, 0.5, training=self.training)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


FUNCTIONS = [
    (F.hardswish, "hardswish"),
    (F.silu, "silu"),
    (F.gelu, "gelu"),
    (lambda x: F.gelu(x, approximate="tanh"), "gelu"),
    (lambda x: x * torch.sigmoid(x), "silu"),
    (lambda x: x.sigmoid().mul(x), "silu"),
    (lambda x: x * F.hardsigmoid(x), "hardswish"),
]


@pytest.mark.parametrize(("function", "kind"), FUNCTIONS)
def test_functions_in_forward(function: Any, kind: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Functional(function))
    expected = nn.Sequential(Functional(F.relu6))
    expected.load_state_dict(net.state_dict())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = rewrite(net, Rewrite.model_validate({kind: "relu6"}), X)
    assert [(change.what, change.places) for change in found.changes] == [(kind, ("0",))]
    assert torch.equal(found.model.eval()(X), expected.eval()(X))
    assert {name: id(value) for name, value in found.model.named_parameters()}.keys() == dict(net.named_parameters()).keys()
    assert before.keys() == found.model.state_dict().keys()
    found.model.train()  # dropout is still there, and only there
    assert not torch.equal(found.model(X), found.model(X))
    assert torch.equal(found.model.eval()(X), found.model(X))


def test_a_gate_is_not_part_of_a_silu() -> None:
    net = nn.Sequential(Functional(lambda x: x * torch.sigmoid(x)))
    found = rewrite(net, Rewrite(gate="hardsigmoid"), X)
    assert [str(change) for change in found.changes] == ["sigmoid → hardsigmoid: 1 place"]
    code = found.model.get_submodule("0").code
    assert (code.count("hardsigmoid("), code.count("torch.sigmoid(")) == (1, 1)


def test_a_network_rewritten_at_its_root_goes_on_through_the_chain() -> None:
    torch.manual_seed(0)
    net = Functional(F.hardswish)
    found = rewrite(net, Rewrite(hardswish="relu6", gate="hardsigmoid"), X)
    assert found.model is not net
    assert all(a is b for a, b in zip(found.model.parameters(), net.parameters(), strict=True))
    logits, feature = Tapped(found.model, ["norm"]).eval()(X)
    assert torch.equal(logits, found.model.eval()(X))
    assert feature.shape == (2, 8, 32, 32)
    assert qat.prepare(Tapped(found.model, ["norm"]).eval(), X).float_ops == ()


def test_modules_are_known_by_what_they_compute() -> None:
    class Scaled(nn.Module):
        """A Swish with a learnt slope is another function."""

        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.slope * x)

    net = nn.Sequential(nn.Conv2d(3, 4, 1), HandWritten(), nn.Sequential(nn.SiLU(), nn.Dropout()), Scaled(), nn.LeakyReLU())
    found = rewrite(net, Rewrite(hardswish="relu6", silu="relu"), X)
    assert [str(change) for change in found.changes] == ["hardswish → relu6: 1 place", "silu → relu: 1 place"]
    kinds = [type(module).__name__ for module in net.modules()]
    assert kinds == ["Sequential", "Conv2d", "ReLU6", "Sequential", "ReLU", "Dropout", "Scaled", "LeakyReLU"]


def test_a_forward_that_cannot_be_traced_is_reported() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.silu(x) if x.sum() > 1e9 else F.silu(x + 1)

    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), Branching())
    found = rewrite(net, Rewrite(silu="relu6"), X)
    assert [str(change) for change in found.changes] == ["silu → relu6: 1 place"]
    assert len(found.left) == 1
    assert found.left[0].startswith("silu in the forward of 2, which cannot be traced: symbolically traced")


@pytest.mark.parametrize(
    ("net", "rules", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.ReLU6(), nn.ReLU()), {"silu": "relu"},
         "student.rewrite.silu: Sequential has no silu; it has 2 relu, 1 relu6\n  → remove rewrite.silu"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Hardsigmoid()), {"gelu": "relu6"},
         "student.rewrite.gelu: Sequential has no gelu; it has 1 silu, 1 hardsigmoid\n  → remove rewrite.gelu"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.Hardsigmoid()), {"gate": "hardsigmoid"},
         "student.rewrite.gate: Sequential has no sigmoid; it has 1 hardsigmoid\n  → remove rewrite.gate"),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), {"gelu": "relu"},
         "student.rewrite.gelu: Sequential has no gelu; it has no activation\n  → remove rewrite.gelu"),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), {"se": "drop"},
         "student.rewrite.se: Sequential has no squeeze-excite block\n  → remove rewrite.se"),
    ],
)  # fmt: skip
def test_a_rule_that_finds_nothing_says_what_there_is(net: nn.Module, rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as error:
        rewrite(net, Rewrite(**rules), X)
    assert str(error.value) == message


def test_without_rules_nothing_is_looked_at() -> None:
    class Fragile(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("it was run")

    net = Fragile()
    found = rewrite(net, Rewrite(), X)
    assert (found.model, found.changes) == (net, ())


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.second(F.relu(self.first(x.mean((2, 3), keepdim=True)))))


class Two(nn.Module):
    """A picture and facts; a squeeze-excite block, functions and modules to replace, and widths to round up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 6, 3, 2, 1), nn.Hardswish()
        self.scale = Squeeze()
        self.body, self.facts, self.head = nn.Conv2d(6, 6, 3, 1, 1), nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, picture: Tensor, facts: Tensor) -> dict[str, Tensor]:
        where = self.body(self.scale(self.act(self.stem(picture))))
        return {"logits": self.head(where.mean((2, 3)) + F.hardswish(self.facts(facts))), "where": where}


def test_every_rewrite_takes_several_inputs() -> None:
    torch.manual_seed(0)
    example = {"facts": torch.randn(2, 5), "picture": torch.randn(2, 3, 8, 8)}  # in any order
    net = Two().eval()
    before = call(net, example)
    widened = rewrite(net, Rewrite(round_channels=8), example)
    assert net.body.weight.shape[:2] == (6, 8)  # its output leaves the network
    assert torch.allclose(call(widened.model, example)["logits"], before["logits"], atol=1e-5)
    changed = rewrite(Two().eval(), Rewrite(hardswish="relu6", se="drop"), example)
    assert {change.what: change.places for change in changed.changes} == {
        "squeeze-excite": ("scale",),
        "hardswish": ("act", ""),
    }
    assert {*call(changed.model, example)} == {"logits", "where"}
