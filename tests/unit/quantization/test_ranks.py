"""Inputs of every rank and type, layers of every rank, and operands of several types: trained, calibrated and exported."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.exporting.nets import BITS
from torch import Tensor, nn

from edgekd.exporting.exporter import Options, Source
from edgekd.models.layout import laid_out, lay_out, layout
from edgekd.quantization import ptq, qat
from edgekd.quantization.fold import fold
from edgekd.recipe.quantize import Ptq
from edgekd.registry import exporters
from edgekd.runtimes import base
from edgekd.task.named import call

SHAPES = {1: (), 2: (6,), 3: (6, 4), 4: (6, 4, 3), 5: (6, 3, 3, 3)}
N = 16


class Ranks(nn.Module):
    """A number, a vector, a signal, an image and a video; ids and masks of the shapes of the first and of the last."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = (nn.Conv1d(6, 3, 3), nn.Conv2d(6, 3, 3), nn.Conv3d(6, 3, 3))
        self.layers = nn.ModuleList([nn.Linear(1, 3), nn.Linear(6, 3), *convolutions])
        self.words, self.head = nn.Embedding(9, 3), nn.Linear(3, 2)

    def forward(self, *inputs: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        floats, ids, masks = inputs[:5], inputs[5:7], inputs[7:]
        masked = (floats[0] * masks[0], *floats[1:4], floats[4] * masks[1])
        for layer, x in zip(self.layers, masked, strict=True):
            x = layer(x[:, None] if x.ndim == 1 else x).relu()
            total = total + x.reshape(x.shape[0], 3, -1).mean(2)
        for words in (self.words(each) for each in ids):
            total = total + words.reshape(words.shape[0], -1, 3).mean(1)
        out: Tensor = self.head(total)
        return out


def samples() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    draw: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
        "f": lambda shape: torch.randn(shape, generator=g),
        "i": lambda shape: torch.randint(0, 9, shape, generator=g),
        "b": lambda shape: torch.rand(shape, generator=g) > 0.3,
    }
    return {f"{kind}{rank}": draw[kind]((N, *SHAPES[rank])) for kind, rank in product(draw, SHAPES)}


def int8_file(net: nn.Module, inputs: dict[str, Tensor], folder: Path) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return the outputs of the float network, of the int8 graph and of its ONNX file, and the size of an int8 step."""
    one = {name: value[:1] for name, value in inputs.items()}
    prepared = qat.prepare(net.eval(), one, weight_bits=BITS)
    ptq.quantize(prepared.module, inputs, Ptq(method="ptq", observer="minmax"))
    source = Source(net, one, lambda folded: qat.convert(prepared.module, fold_weights=folded), prepared.float_ops)
    path = folder / "model.onnx"
    exporters.get("onnx")().export(source, path, Options(precision="int8", log=folder / "log"))
    session = base.load(path, "onnx", 1)
    rows = ({name: value[at : at + 1].numpy() for name, value in inputs.items()} for at in range(N))
    found = np.concatenate([next(iter(session.run(row).values())) for row in rows])
    with torch.no_grad():
        floats, int8 = call(net, inputs), call(qat.convert(prepared.module, fold_weights=True), inputs)
    return floats, int8, torch.from_numpy(found), qat.output_scale(prepared.module)[0]


def test_inputs_and_layers_of_every_rank_and_type(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, inputs = Ranks(), {name: value for name, value in samples().items() if name[0] == "f" or name[1] in "15"}
    form = layout(net)
    optimizer = torch.optim.SGD(lay_out(net, form).parameters(), 0.01)
    before = {name: value.clone() for name, value in net.named_parameters()}
    call(net, laid_out(inputs, form)).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in net.named_parameters() if name.endswith("weight"))
    floats, int8, file, step = int8_file(net, inputs, tmp_path)
    assert (file - int8).abs().max() <= 1.01 * step
    assert (int8 - floats).abs().max() <= 8 * step


class Mixing(nn.Module):
    """Operators whose operands are floats and what is none: masked by an input, by a comparison, by a constant."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = nn.Linear(6, 6), nn.Linear(42, 4)
        self.register_buffer("fixed", torch.tensor([True, False, True, True, True, False]))

    def forward(self, x: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        x = self.before(x).relu()
        parts = [x * mask, mask * x, x + mask, x - ids, x * ids, x * self.fixed, x * (x > 0.1)]
        out: Tensor = self.after(torch.cat(parts, 1))
        return out


def test_operands_of_several_types(tmp_path: Path) -> None:
    given = samples()
    inputs = {"x": given["f2"], "mask": given["b2"], "ids": given["i2"] % 3}
    floats, int8, file, step = int8_file(Mixing(), inputs, tmp_path)
    assert (file - int8).abs().max() <= 1.01 * step
    assert (int8 - floats).abs().max() <= 8 * step


def test_the_bool_side_of_a_product_is_converted_and_its_result_is_int8() -> None:
    given = samples()
    prepared = qat.prepare(Mixing().eval(), {"x": given["f2"], "mask": given["b2"], "ids": given["i2"] % 3})
    assert {left.operator for left in prepared.float_ops} == {"to_copy"}, (
        "only what compares the input itself stays in float"
    )


@pytest.mark.parametrize("mixed", [torch.pow, lambda x, y: torch.cat([x, y], 1), lambda x, y: torch.stack([x, y], 1)])
def test_a_float_graph_has_operands_of_one_type(mixed: Callable[[Tensor, Tensor], Tensor]) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return mixed(x, y)

    inputs = {"x": samples()["f2"], "y": samples()["b2"]}
    graph = fold(Net(), inputs)
    (node,) = [node for node in graph.graph.nodes if len(node.all_input_nodes) == 2]
    assert {operand.meta["val"].dtype for operand in node.all_input_nodes} == {torch.float32}
    torch.testing.assert_close(call(graph, inputs), mixed(inputs["x"], inputs["y"]))
