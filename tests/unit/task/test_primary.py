"""One rule says which output is the logits, for networks in every mode, traced ones and files."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edgekd.errors import DataError, ModelError
from edgekd.exporting import foreign
from edgekd.models.build import dropped, macs, network, one_input
from edgekd.models.in_training import training_outputs
from edgekd.quantization import answer, qat
from edgekd.recipe.data import Data
from edgekd.taps.taps import Tapped
from edgekd.task import primary
from edgekd.task.base import Port, Signature
from edgekd.task.image_classification import logits_of, purpose

DATA = Data(source="fashion-mnist-mini", image_size=16)
NETS = """\
from collections import namedtuple
import torch
from torch import nn

Outputs = namedtuple("Outputs", ["aux", "logits"])


class Net(nn.Module):
    def __init__(self, kind, num_classes=10):
        super().__init__()
        self.kind = kind
        self.conv, self.aux, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, num_classes), nn.Linear(8, num_classes)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        z = y.mean((2, 3))
        out, aux = self.fc(z), self.aux(z)
        if self.kind == "train":
            return Outputs(aux, out) if self.training else out
        if self.kind == "train tuple":
            return (aux, out) if self.training else out
        return {
            "named": {"aux": aux, "logits": out},
            "map": (y, out),
            "nested": [{"map": y}, (out, z)],
            "ambiguous": (out, aux),
            "none": {"map": y},
        }[self.kind]
"""


def build(tmp_path: Path, kind: str) -> Any:
    (tmp_path / "net.py").write_text(NETS)
    torch.manual_seed(0)
    return network(f"{tmp_path / 'net.py'}:Net", {"kind": kind}, purpose(DATA, 10))


@pytest.mark.parametrize(
    ("kind", "left_out"),
    [
        ("named", ("aux (1×10)",)),
        ("map", ("0 (1×8×7×7)",)),
        ("nested", ("0.map (1×8×7×7)", "1.1 (1×8)")),
        ("train", ()),
        ("train tuple", ()),
    ],
)
def test_the_logits_of_several_outputs_go_everywhere(tmp_path: Path, kind: str, left_out: tuple[str, ...]) -> None:
    net, x = build(tmp_path, kind), one_input(purpose(DATA).signature, 3)
    expected = net.fc(torch.relu(net.conv(x)).mean((2, 3)))
    assert dropped(net) == left_out
    assert sorted(net.state_dict()) == ["aux.bias", "aux.weight", "conv.bias", "conv.weight", "fc.bias", "fc.weight"]
    for mode in (True, False):
        for paths in ((), ("conv",)):
            out = Tapped(net.train(mode), paths)(x)
            torch.testing.assert_close(out[0], expected)
            assert len(out) == 1 + len(paths)
    prepared = qat.prepare(net.eval(), x[:1])
    qat.set_fake_quant(prepared.module, False)
    torch.testing.assert_close(prepared.module(x), expected)
    assert macs(net, purpose(DATA).signature) > 0


def test_the_answer_of_training_mode_is_that_of_evaluation_mode(tmp_path: Path) -> None:
    """The first of two logits is the auxiliary one here; the values tell."""
    net = build(tmp_path, "train tuple").train()
    x = one_input(purpose(DATA).signature, 3)
    torch.testing.assert_close(net(x), net.eval()(x))
    assert training_outputs(net) == ("0 (1×10)",)
    assert training_outputs(build(tmp_path, "train")) == ("aux (1×10)",)
    assert training_outputs(build(tmp_path, "map")) == ()


def test_two_answers_in_training_mode_that_cannot_be_told_apart_are_named(tmp_path: Path) -> None:
    (tmp_path / "same.py").write_text(NETS.replace("(aux, out) if self.training", "(2 * out, 3 * out) if self.training"))
    net = network(f"{tmp_path / 'same.py'}:Net", {"kind": "train tuple"}, purpose(DATA, 10))
    x = one_input(purpose(DATA).signature, 3)
    assert net.eval()(x).shape == (3, 10)
    with pytest.raises(ModelError, match=r"has 2 outputs: 0 \(3×10\), 1 \(3×10\)"):
        net.train()(x)


def test_none_or_several_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has 2 outputs: 0 \(1×10\), 1 \(1×10\); several of them are \(N, 10\)") as caught:
        build(tmp_path, "ambiguous")
    assert caught.value.hint == "return the logits alone, or a dict that has them as `logits`"
    with pytest.raises(ModelError, match=r"net\.py:Net gives \(1, 8, 7, 7\) for one image"):
        build(tmp_path, "none")


def test_the_rule() -> None:
    assert primary.choose([("a", (1, 4)), ("logits", (1, 10))], logits_of(4), "x").index == 1
    assert primary.choose([("a", None), ("b", (None, None)), ("c", (1, 3, 3))], logits_of(10), "x").dropped == (
        "a (shape unknown)",
        "c (1×3×3)",
    )
    named = namedtuple("named", ["aux", "logits"])
    assert primary.of(named(1, 2), None, "x") == 2
    with pytest.raises(ModelError, match="none of them is"):
        primary.choose([("a", (1, 3, 3)), ("b", (1, 7))], logits_of(10), "x")


def test_files_with_several_outputs(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["z"]),
        helper.make_node("MatMul", ["z", "w"], ["scores"]),
    ]
    shapes = {"x": [1, 3, 16, 16], "z": [1, 3], "scores": [1, 10]}
    values = {name: helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()}
    held = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "two", [values["x"]], [values["z"], values["scores"]], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "two.onnx")
    x = one_input(purpose(DATA).signature).numpy()
    call = foreign.opened(tmp_path / "two.onnx", "onnx", (3, 16, 16), classes=10)
    np.testing.assert_allclose(call(x), x.mean((2, 3)) @ weight, rtol=1e-4, atol=1e-5)
    with pytest.raises(ModelError, match=r"two\.onnx has 2 outputs: z \(1×3\), scores \(1×10\)"):
        foreign.opened(tmp_path / "two.onnx", "onnx", (3, 16, 16), classes=7)


def shipping(tmp_path: Path, kind: str, outputs: Any) -> Any:
    (tmp_path / "net.py").write_text(NETS)
    torch.manual_seed(0)
    return network(f"{tmp_path / 'net.py'}:Net", {"kind": kind}, purpose(DATA, 10), outputs).eval()


@pytest.mark.parametrize(
    ("kind", "outputs", "others", "left_out"),
    [
        ("named", "all", ["aux"], ()),
        ("map", "all", ["0"], ()),
        ("nested", ("1.1",), ["1.1"], ("0.map (1×8×7×7)",)),
    ],
)
def test_several_outputs_are_shipped_behind_the_primary_one(
    tmp_path: Path, kind: str, outputs: Any, others: list[str], left_out: tuple[str, ...]
) -> None:
    net, x = shipping(tmp_path, kind, outputs), one_input(purpose(DATA).signature, 3)
    assert list(net(x)) == ["logits", *others]
    assert dropped(net, outputs) == left_out
    for paths in ((), ("conv",)):
        tapped = Tapped(net, paths)
        logits, *features, rest = tapped(x)
        assert (logits.shape, len(features), list(rest)) == ((3, 10), len(paths), others)
        module = qat.prepare(tapped.eval(), x).module
        module(x)
        assert list(answer.outputs(module.graph)) == ["logits", *others]
        shipped = qat.convert(module, fold_weights=True)(x)
        assert [value.shape for value in shipped] == [value.shape for value in net(x).values()]


def test_an_output_that_cannot_be_shipped_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"net\.py:Net has no output 'boxes'"):
        shipping(tmp_path, "named", ("boxes",))
    with pytest.raises(ModelError, match=r"net\.py:Net has no output 'aux'"):
        shipping(tmp_path, "train", ("aux",))
    (tmp_path / "batch.py").write_text(NETS.replace('{"aux": aux, "logits": out}', '{"aux": aux.mean(0), "logits": out}'))
    with pytest.raises(ModelError, match=r"the output aux \(10\) of .*:Net does not count samples"):
        network(f"{tmp_path / 'batch.py'}:Net", {"kind": "named"}, purpose(DATA, 10), "all")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("torch.ones(1, 3)", r"the output aux \(1×3\) of .*:Net does not have a row for each of two samples.*: primary"),
        ("aux.mean(0, keepdim=True)", r"the output aux \(1×10\) of .*:Net does not have a row for each"),
        ("out", r"the outputs logits and aux of .*:Net are the same tensor"),
        ("out.view(out.shape)", r"the outputs logits and aux of .*:Net are the same tensor"),
    ],
)
def test_an_output_that_no_file_can_have_is_named_before_training(tmp_path: Path, written: str, told: str) -> None:
    (tmp_path / "odd.py").write_text(NETS.replace('{"aux": aux, "logits": out}', f'{{"aux": {written}, "logits": out}}'))
    with pytest.raises(ModelError, match=f"(?s){told}"):
        network(f"{tmp_path / 'odd.py'}:Net", {"kind": "named"}, purpose(DATA, 10), "all")
    network(f"{tmp_path / 'odd.py'}:Net", {"kind": "named"}, purpose(DATA, 10), "primary")


def test_an_output_with_the_name_of_the_input_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(NETS.replace('{"aux": aux, "logits": out}', '{"input": aux, "logits": out}'))
    with pytest.raises(ModelError, match=r"input is an input and an output of the files of .*:Net"):
        network(f"{tmp_path / 'odd.py'}:Net", {"kind": "named"}, purpose(DATA, 10), "all")
    with pytest.raises(DataError, match="values is the name of an input and of an output"):
        Signature((Port("values", ("N", 3)),), (Port("values", ("N", 2)),), "values")
