"""Networks of any inputs and outputs: named ports in every file, and the same numbers in the three runtimes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.unit.exporting.nets import BITS
from torch import Tensor, fx, nn

from edgekd.exporting import inside, outputs
from edgekd.exporting.exporter import Exported, Options, Source
from edgekd.quantization import qat
from edgekd.quantization.fold import fold
from edgekd.registry import exporters
from edgekd.task.base import Port, Signature
from edgekd.task.named import call, count, in_order, named

FORMATS = ("onnx", "tflite", "openvino")
Draw = Callable[[int], Mapping[str, Tensor]]


class Mlp(nn.Sequential):
    """N×D to N×k."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


class Added(nn.Module):
    """Two inputs of floats, added; two outputs, the primary one last."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.boxes, self.logits = (
            nn.Linear(*sizes) for sizes in ((8, 16), (6, 16), (16, 4), (16, 3))
        )

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        z = torch.relu(self.left(x) + self.right(y))
        return {"boxes": self.boxes(z), "logits": self.logits(z)}


class Text(nn.Module):
    """Token ids and a mask, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.hidden, self.head = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(-1).float()
        out: Tensor = self.head((torch.relu(self.hidden(self.table(input_ids))) * mask).mean(1))
        return out


class Sequence(nn.Module):
    """N×T×C to N×T×k, with a linear layer in rank 3."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.hidden(x)))
        return out


class Signal(nn.Module):
    """N×C×T, convolved."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.conv(x)).mean(2))
        return out


class Map(nn.Module):
    """An image of any sides to classes and a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(channels, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.stem(x))
        z = self.body(y)
        return {"logits": self.head((y + z).mean((2, 3))), "map": z}


def floats(**shapes: tuple[int, ...]) -> Draw:
    return lambda n: {name: torch.randn(n, *shape) for name, shape in shapes.items()}


def words(n: int) -> dict[str, Tensor]:
    mask = torch.arange(7) < torch.randint(1, 8, (n, 1))
    return {"attention_mask": mask, "input_ids": torch.randint(0, 20, (n, 7), dtype=torch.int32)}


@dataclass(frozen=True)
class Case:
    """A network, its inputs, and what its files are to have: name, shape and type of each port, images NCHW."""

    network: Callable[[], nn.Module]
    draw: Draw
    ports: tuple[str, ...]
    float_ops: tuple[str, ...] = ()


CASES = {
    "vectors": Case(Mlp, floats(features=(8,)), ("features (1, 8) float32", "logits (1, 3) float32")),
    "two inputs, two outputs": Case(
        Added,
        floats(y=(6,), x=(8,)),
        ("x (1, 8) float32", "y (1, 6) float32", "logits (1, 3) float32", "boxes (1, 4) float32"),
    ),
    "ids and a mask": Case(
        Text,
        words,
        ("input_ids (1, 7) int32", "attention_mask (1, 7) bool", "logits (1, 3) float32"),
        ("table embedding (%embedding): no int8 rule for embedding",),
    ),
    "tokens": Case(Sequence, floats(tokens=(5, 8)), ("tokens (1, 5, 8) float32", "logits (1, 5, 3) float32")),
    "a signal": Case(
        Signal,
        floats(signal=(4, 20)),
        ("signal (1, 4, 20) float32", "logits (1, 3) float32"),
        ("conv conv1d (%conv1d): no int8 rule for one-dimensional convolutions",),
    ),
    "a wide image": Case(
        lambda: Map(3),
        floats(image=(3, 24, 40)),
        ("image (1, 3, 24, 40) float32", "logits (1, 3) float32", "map (1, 8, 12, 20) float32"),
    ),
    "one channel": Case(
        lambda: Map(1),
        floats(image=(1, 12, 12)),
        ("image (1, 1, 12, 12) float32", "logits (1, 3) float32", "map (1, 8, 6, 6) float32"),
    ),
    "sixteen channels": Case(
        lambda: Map(16),
        floats(image=(16, 12, 10)),
        ("image (1, 16, 12, 10) float32", "logits (1, 3) float32", "map (1, 8, 6, 5) float32"),
    ),
}


@dataclass(frozen=True)
class Made:
    """A quantized network, samples, and what torch gives for them in int8 and in float."""

    source: Source
    graph: fx.GraphModule
    inputs: dict[str, np.ndarray]
    int8: dict[str, np.ndarray]


def quantized(network: nn.Module, draw: Draw, samples: int = 32, keep_float: tuple[str, ...] = ()) -> Made:
    prepared = qat.prepare(network, draw(2), weight_bits=BITS, keep_float=keep_float)
    with torch.no_grad():
        for _ in range(3):
            call(prepared.module, draw(32))
    qat.freeze_observers(prepared.module)
    source = Source(network, draw(1), lambda fold: qat.convert(prepared.module, fold_weights=fold), prepared.float_ops)
    graph, x = source.int8(fold_weights=True), in_order(network, draw(samples))
    with torch.no_grad():
        given = call(graph, x)
    values = given if isinstance(given, tuple) else (given,)
    names = [port.name for port in source.signature.outputs]
    int8 = {name: value.numpy() for name, value in zip(names, values, strict=True)}
    return Made(source, graph, {name: value.numpy() for name, value in x.items()}, int8)


@cache
def made(name: str) -> Made:
    torch.manual_seed(0)
    return quantized(CASES[name].network().eval(), CASES[name].draw)


def export(source: Source, format: str, folder: Path, **options: str) -> Exported:
    exporter = exporters.get(format)()  # type: ignore[operator]
    return exporter.export(source, folder / f"model{exporter.suffix}", Options(log=folder / "log", **options))


def steps(exported: Exported, found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The greatest difference of all outputs in their own int8 steps; of a float output, in thousandths of its deviation."""
    scales = {port.name: port.step or 1e-3 * float(expected[port.name].std()) for port in exported.outputs}
    return max(float(np.abs(found[name] - expected[name]).max() / scale) for name, scale in scales.items())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_files_have_the_ports_and_compute_what_torch_does(name: str, format: str, tmp_path: Path) -> None:
    case, own = CASES[name], made(name)
    exported = export(own.source, format, tmp_path)
    ports = [(*exported.inputs, *exported.outputs), (*own.source.signature.inputs, *own.source.signature.outputs)]
    assert tuple(f"{port.name} {port.shape()} {port.dtype}" for port in ports[1]) == case.ports
    channels_last = {port.name for port in exported.inputs if port.layout == "NHWC"}
    assert channels_last == ({"image"} if format == "tflite" and "image" in own.inputs else set())
    assert [port.name for port in ports[0]] == [port.name for port in ports[1]]
    assert tuple(map(str, exported.float_ops)) == case.float_ops
    assert all(port.step for port in exported.outputs)
    found = outputs.run(exported, own.inputs, own.int8)
    assert steps(exported, found, own.int8) <= 1.01
    few = {name: value[:4] for name, value in own.inputs.items()}
    layers = inside.differences(own.graph, few, inside.look(exported, few))
    assert len(layers) >= 3
    assert max(layer.steps for layer in layers.values()) <= 1


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["two inputs, two outputs", "ids and a mask", "a wide image"])
def test_float_files_are_the_float_network(name: str, format: str, tmp_path: Path) -> None:
    own = made(name)
    source = Source(fold(own.source.model, own.source.example), own.source.example)
    exported = export(source, format, tmp_path, precision="float32")
    expected = source.expected({name: torch.from_numpy(value) for name, value in own.inputs.items()})
    assert list(expected) == [port.name for port in exported.outputs]
    assert steps(exported, outputs.run(exported, own.inputs, expected), expected) < 1


@pytest.mark.parametrize("name", ["two inputs, two outputs", "ids and a mask", "a wide image"])
def test_every_float_port_of_tflite_is_int8_if_asked(name: str, tmp_path: Path) -> None:
    own = made(name)
    exported = export(own.source, "tflite", tmp_path, io="int8")
    floats = {port.name for port in (*own.source.signature.inputs, *own.source.signature.outputs) if port.dtype == "float32"}
    assert {port.name for port in (*exported.inputs, *exported.outputs) if port.dtype == "int8" and port.scale} == floats
    assert steps(exported, outputs.run(exported, own.inputs, own.int8), own.int8) <= 1.01


def test_a_mask_is_no_float_operator_and_is_never_rounded_to_ids() -> None:
    own = made("ids and a mask")
    readers = [node for node in own.graph.graph.nodes if node.op == "placeholder"]
    assert not any("quantize" in str(user.target) for node in readers for user in node.users)


def test_names_and_kinds_can_be_declared(tmp_path: Path) -> None:
    """Four dimensions of a mask are no image, and a tensor alone has the name of its task's output."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(x)
            return out

    torch.manual_seed(0)
    own = quantized(Masked().eval(), floats(scores=(3, 5, 4)))
    scores = Port("scores", ("N", 3, 5, 4))
    declared = Signature((scores,), (Port("values", ("N", 3, 5, 2)),), "values")
    source = Source(own.source.model, own.source.example, own.source.quantized, ports=declared)
    exported = export(source, "tflite", tmp_path)
    assert [(port.name, port.shape, port.layout) for port in (*exported.inputs, *exported.outputs)] == [
        ("scores", (1, 3, 5, 4), ""),
        ("values", (1, 3, 5, 2), ""),
    ]
    expected = {"values": own.int8["logits"]}
    assert steps(exported, outputs.run(exported, own.inputs, expected), expected) <= 1.01


class Namesakes(nn.Module):
    """Two outputs that are called as operators in front of them are in the graph, and an input that is called as another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, linear: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.first(linear))
        return {"relu": self.second(y), "gelu": self.second(nn.functional.gelu(y) + y)}


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("format", FORMATS)
def test_an_output_may_have_the_name_of_an_operator(format: str, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = quantized(Namesakes().eval(), floats(linear=(8,)))
    source = own.source if precision == "int8" else Source(fold(own.source.model, own.source.example), own.source.example)
    exported = export(source, format, tmp_path, precision=precision)
    assert [port.name for port in (*exported.inputs, *exported.outputs)] == ["linear", "relu", "gelu"]
    expected = own.int8
    if precision == "float32":
        expected = source.expected({name: torch.from_numpy(value) for name, value in own.inputs.items()})
    assert steps(exported, outputs.run(exported, own.inputs, expected), expected) <= 1.01


class Whole(nn.Module):
    """Integers of the network itself, in types that are those of quantized values, too."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = self.head(x)
        found = {"logits": logits, "turned": torch.flip(logits, [1])}
        for dtype in (torch.int8, torch.int16, torch.int32, torch.uint8):
            found[str(dtype).removeprefix("torch.")] = (logits * 20).round().clamp(0, 100).to(dtype)
        return found


@pytest.mark.parametrize(("format", "io"), [*((format, "float32") for format in FORMATS), ("tflite", "int8")])
def test_integers_of_the_network_are_no_quantized_values(format: str, io: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = quantized(Whole().eval(), floats(x=(8,)))
    exported = export(own.source, format, tmp_path, io=io)
    found = outputs.run(exported, own.inputs, own.int8)
    for name in ("int8", "int16", "int32", "uint8"):
        assert own.int8[name].max() > 0
        assert np.mean(found[name] == own.int8[name]) > 0.98, name
    assert np.abs(found["turned"] - own.int8["turned"]).max() <= 1.01 * float(own.int8["logits"].std()) / 10


class Chosen(nn.Module):
    """A softmax between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.choice, self.last = nn.Linear(8, 6), nn.Softmax(1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.choice(self.first(x)))
        return out


@pytest.mark.parametrize("format", FORMATS)
def test_an_operator_with_a_fixed_scale_can_be_kept_in_float(format: str, tmp_path: Path) -> None:
    """The converter to TFLite makes a softmax between integers one of int8, whose scale is not that of the rounding."""
    torch.manual_seed(0)
    own = quantized(Chosen().eval(), floats(x=(8,)), keep_float=("choice",))
    exported = export(own.source, format, tmp_path)
    assert steps(exported, outputs.run(exported, own.inputs, own.int8), own.int8) <= 1.01


class Drawn(nn.Module):
    """A network of the drawn inputs and outputs: each input to a vector, summed, a hidden layer, an output for each."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], sizes: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.names = tuple(shapes)
        self.ins = nn.ModuleList(
            nn.Conv2d(shape[0], hidden, 3, 2, 1) if len(shape) == 3 else nn.Linear(shape[-1], hidden)
            for shape in shapes.values()
        )
        self.ranks = [len(shape) for shape in shapes.values()]
        self.outs = nn.ModuleList(nn.Linear(hidden, size) for size in sizes)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        parts = []
        for layer, rank, x in zip(self.ins, self.ranks, inputs, strict=True):
            y = torch.relu(layer(x))
            parts.append(y if rank == 1 else y.mean((2, 3)) if rank == 3 else y.mean(1))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return {f"out{index}": layer(total) for index, layer in enumerate(self.outs)}


SHAPES = st.one_of(
    st.tuples(st.integers(2, 9)),
    st.tuples(st.integers(2, 6), st.integers(2, 9)),
    st.tuples(st.sampled_from([1, 3, 5]), st.integers(5, 12), st.integers(5, 12)),
)


@settings(
    max_examples=3, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    hidden=st.sampled_from([4, 8, 12]),
    seed=st.integers(0, 99),
)
def test_a_random_network_is_the_same_in_the_three_runtimes(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[tuple[int, ...]], sizes: list[int], hidden: int, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    inputs = {f"in{index}": shape for index, shape in enumerate(shapes)}
    own = quantized(Drawn(inputs, tuple(sizes), hidden).eval(), floats(**inputs), samples=16)
    assert own.source.float_ops == ()
    for format in FORMATS:
        exported = export(own.source, format, tmp_path_factory.mktemp(format))
        assert [port.name for port in exported.inputs] == list(inputs)
        layers = inside.differences(own.graph, own.inputs, inside.look(exported, own.inputs))
        assert max(layer.steps for layer in layers.values()) <= 1
        assert steps(exported, outputs.run(exported, own.inputs, own.int8), own.int8) <= 1.01
    assert count(named(own.source.example)) == 1
