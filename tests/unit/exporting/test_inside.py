"""Every layer as the runtimes compute it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tests.unit.exporting.nets import BITS, Residual, Together, Tokens, images
from tests.unit.exporting.test_operators import Branches, SqueezeExcite
from torch import Tensor, fx, nn

from edgekd.exporting import inside
from edgekd.exporting.exporter import Exported, Options, Source
from edgekd.quantization import qat
from edgekd.quantization.naming import layer_path
from edgekd.quantization.sensitivity import exact_outputs, measure
from edgekd.registry import exporters
from edgekd.taps.taps import Tapped
from edgekd.task import named

X = images(32, seed=9)
TOGETHER = {"residual": Residual, "squeeze_excite": SqueezeExcite, "concatenation": Branches, "tokens": Tokens}
NETS: dict[str, Callable[[], nn.Module]] = {
    "all": lambda: Together({name: make() for name, make in TOGETHER.items()}),
    "residual": Residual,
    "concatenation": Branches,
}
Write = Callable[[str, str], Exported]


@dataclass(frozen=True)
class Network:
    """What a file is made from, and of each layer the exact values and what torch says of int8."""

    source: Source
    graph: fx.GraphModule
    exact: list[dict[str, inside.Tensor]]
    torch_db: dict[str, float]


@cache
def network(name: str) -> Network:
    torch.manual_seed(0)
    model = NETS[name]().eval()
    prepared = qat.prepare(model, images(1), weight_bits=BITS)
    for seed in (2, 3, 4):
        prepared.module(images(16, seed=seed))
    qat.freeze_observers(prepared.module)
    source = Source(model, images(1), lambda fold: qat.convert(prepared.module, fold_weights=fold), prepared.float_ops)
    exact = [
        {layer: inside.Tensor(scale, values.numpy()) for layer, (scale, values) in found.items()}
        for found in (exact_outputs(prepared.module, image[None]) for image in X)
    ]
    torch_db = {row.name: row.total_db for row in measure(prepared.module, [X])}
    return Network(source, source.int8(fold_weights=True), exact, torch_db)


def counted(layers: Iterable[str]) -> Counter[str]:
    """How many of the layers each of the networks side by side has."""
    paths = {node.name: layer_path(node) for node in network("all").graph.graph.nodes}
    return Counter(paths[layer].split(".")[1] for layer in layers if "." in paths.get(layer, ""))


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    @cache
    def write(name: str, format: str) -> Exported:
        exporter = exporters.get(format)()
        folder = tmp_path_factory.mktemp(f"{name}_{format}")
        options = Options("int8", "float32", folder / "log")
        return exporter.export(network(name).source, folder / f"net{exporter.suffix}", options)

    return write


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_each_layer_is_found_and_as_good_as_in_torch(format: str, write: Write) -> None:
    known = network("all")
    found = inside.sqnr(known.exact, inside.look(write("all", format), {"input": X.numpy()}))
    if format == "openvino":  # its converter moves some roundings, such as those in front of a concatenation
        own, all_of_them = counted(found), counted(known.exact[0])
        assert all(own[net] >= all_of_them[net] / 2 for net in TOGETHER), (own, all_of_them)
    else:
        assert found.keys() == known.exact[0].keys()
    for name, db in found.items():
        assert db == pytest.approx(known.torch_db[name], abs=1.0), name


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_no_layer_differs_from_torch_by_more_than_a_tie(format: str, write: Write) -> None:
    x = X[:4].numpy()
    found = inside.differences(network("all").graph, {"input": x}, inside.look(write("all", format), {"input": x}))
    own = counted(found)
    assert all(own[net] >= 3 for net in TOGETHER), own
    for name, layer in found.items():
        assert layer.steps <= 1, name
        assert layer.share < 0.02, name


def test_a_layer_that_is_wrong_in_the_file_stands_out(write: Write, tmp_path: Path) -> None:
    known, path, x = network("residual"), tmp_path / "wrong.onnx", X.numpy()
    file = write("residual", "onnx")
    before = inside.sqnr(known.exact, inside.look(file, {"input": x}))
    model = onnx.load(file.paths[0])
    head = next(tensor for tensor in model.graph.initializer if list(tensor.dims) in ([10, 16], [16, 10]))
    weights = numpy_helper.to_array(head).copy()
    weights[..., 0] = np.where(weights[..., 0] > 64, weights[..., 0] // 2, 127)
    head.CopyFrom(numpy_helper.from_array(weights, head.name))
    onnx.save(model, path)
    seen = inside.look(replace(file, paths=(path,)), {"input": x})
    after = inside.sqnr(known.exact, seen)
    worse = [name for name in before if after[name] < before[name] - 6]
    assert worse == ["linear"]
    apart = inside.differences(known.graph, {"input": x}, seen)
    assert [name for name, layer in apart.items() if layer.steps > 1] == ["linear"]


def test_a_tensor_of_another_layer_is_not_taken_for_it() -> None:
    """Sigmoids have one scale, and OpenVINO's file does not have each."""
    values = np.random.default_rng(0).normal(size=(2, 1, 8, 4, 4)).astype(np.float32)
    own, other = (inside.Tensor(1 / 256, part) for part in values)
    near = inside.Tensor(1 / 256, own.values + np.float32(0.01))
    assert inside.sqnr([{"sigmoid": own}], [[other]]) == {}
    assert inside.sqnr([{"sigmoid": own}], [[other, near]])["sigmoid"] > 30


def test_a_concatenation_is_a_layer(write: Write) -> None:
    """OpenVINO rounds behind it instead of its operands; what torch makes of them would add up from one to the next."""
    x = X[:4].numpy()
    found = inside.differences(
        network("concatenation").graph, {"input": x}, inside.look(write("concatenation", "openvino"), {"input": x})
    )
    assert "cat" in found
    assert not {"conv2d", "conv2d_1"} & found.keys()


class Straight(nn.Module):
    """Two inputs of one size, and of unlike use."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.left, self.right, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        out: Tensor = self.out((self.left(left) - 0.3 * self.right(right)).relu())
        return out


class Swapped(Straight):
    """The same with its arguments in another order than the data's inputs."""

    def forward(self, right: Tensor, left: Tensor) -> Tensor:
        return super().forward(left, right)


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
def test_the_order_of_the_arguments_changes_nothing_in_the_layers(format: str, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(2)
    x = {"left": torch.randn(16, 6, generator=random), "right": 3 * torch.randn(16, 6, generator=random)}
    one, arrays = {name: value[:1] for name, value in x.items()}, {name: value[:4].numpy() for name, value in x.items()}
    tables = []
    for model in (Straight().eval(), Swapped().eval()):
        given = named.in_order(model, one)
        prepared = qat.prepare(named.with_arguments(Tapped(model).eval(), given), given, weight_bits=BITS)
        named.call(prepared.module, x)
        qat.freeze_observers(prepared.module)
        convert = partial(lambda module, fold: qat.convert(module, fold_weights=fold), prepared.module)
        source = Source(model, one, convert, prepared.float_ops)
        exporter = exporters.get(format)()
        path = tmp_path / f"{type(model).__name__}{exporter.suffix}"
        file = exporter.export(source, path, Options("int8", "float32", tmp_path / "log"))
        found = inside.differences(source.int8(fold_weights=True), arrays, inside.look(file, arrays))
        assert {"linear", "linear_1", "linear_2"} & {*found}
        assert all(layer.steps <= 1 for layer in found.values()), found
        exact = [
            {layer: inside.Tensor(scale, values.numpy()) for layer, (scale, values) in layers.items()}
            for layers in (exact_outputs(prepared.module, sample) for sample in named.batches(x, 1))
        ]
        noise = inside.sqnr(exact, inside.look(file, {name: value.numpy() for name, value in x.items()}))
        tables.append((sorted(found.items()), sorted(noise.items())))
    (differences, noise), (others, others_noise) = tables
    assert [name for name, _ in differences] == [name for name, _ in others]
    assert dict(others_noise) == pytest.approx(dict(noise), abs=0.5)
