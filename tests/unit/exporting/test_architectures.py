"""Blocks of known architectures, through all three runtimes, against the int8 graph run by torch.

One network a family, with its blocks one after the other, and all of them in one file: exporting costs more than running.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.unit.exporting.nets import Together, compare, images, make_source
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.exporting.exporter import Options
from edgekd.profiling.on_device.runtimes import create
from edgekd.registry import exporters


class RepVgg(nn.Module):
    """A 3×3 and a 1×1 convolution and the input itself, each with its norm (Ding et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.large = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8))
        self.small = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return (self.large(x) + self.small(x) + self.norm(x)).relu()


class Shuffle(nn.Module):
    """Half of the channels through a convolution, then all of them shuffled (ShuffleNetV2, Ma et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = x.chunk(2, 1)
        x = torch.cat([kept, self.branch(rest)], 1)
        count, channels, height, width = x.shape
        return x.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(x.shape)


class Ghost(nn.Module):
    """Half of the channels by a convolution, half cheaply from those; the last one is cut off (Han et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.cheap = nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)[:, :7]


class Dense(nn.Module):
    """Each layer reads all before it, norm first (DenseNet, Huang et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, bias=False))
        self.second = nn.Sequential(nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 4, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        x = torch.cat([x, self.second(torch.cat([x, first], 1)), first], 1)
        return F.max_pool2d(x, 3, 2, ceil_mode=True)


class Attention(nn.Module):
    """One block of a vision transformer (Dosovitskiy et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 10, 8))
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp(x)
        return x[:, 0]


class Gate(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018) as MobileNetV3 has it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Gather(nn.Module):
    """Six maps side by side, as in VoVNet and DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]).relu())
        return torch.cat(maps, 1)


def stem(*blocks: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), *blocks)


NETS: dict[str, Callable[[], nn.Module]] = {
    "mobile": lambda: stem(RepVgg(), Shuffle(), nn.GELU(), nn.Conv2d(8, 8, 3, 1, 1, groups=2), nn.SiLU(), Ghost(),
                           nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(63, 10)),
    "dense": lambda: stem(Dense(), nn.Conv2d(16, 10, 1), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(10, 1)),
    "transformer": lambda: stem(nn.MaxPool2d(2), Attention(), nn.Linear(8, 10)),
}  # fmt: skip
STAYS_FLOAT = {"transformer": ("layer_norm (%layer_norm): no runtime has layer normalisation in int8",)}


@pytest.mark.parametrize("names", [("mobile", "dense"), ("transformer",)], ids="+".join)
def test_runtimes_compute_what_torch_computes(names: tuple[str, ...], tmp_path: Path) -> None:
    nets = {}
    for name in names:
        torch.manual_seed(3)
        nets[name] = NETS[name]()
    source = make_source(Together(nets))
    assert tuple(str(left).split(" ", 1)[1] for left in source.float_ops) == STAYS_FLOAT.get(names[0], ())
    expected = source.computed("int8", dict.fromkeys(source.inputs, images(64, seed=9).numpy()))
    for format in ("onnx", "tflite", "openvino"):
        found, exported = compare(source, format, tmp_path)
        assert list(found) == list(nets)
        for port in exported.outputs:
            assert port.step
            assert expected[port.name].std(axis=0).max() > 2 * port.step, "the images do not matter: it proves nothing"
        assert all(run.mean_lsb <= 0.1 and run.p99_lsb <= 2.01 and run.max_lsb <= 4.01 for run in found.values()), found
        if format == "tflite" and names[0] not in STAYS_FLOAT:
            assert exported.float_tensors == ()


def test_xnnpack_takes_the_whole_graph(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = make_source(
        stem(nn.Hardswish(), Gate(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.MaxPool2d(3, 1, 1), Gather(),
             nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.Conv2d(48, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    )  # fmt: skip
    path = exporters.get("tflite")().export(source, tmp_path / "model.tflite", Options(log=tmp_path / "log")).paths[0]
    runtime = create("tflite", 1)
    runtime.load(str(path))
    x = images(1).numpy().transpose(0, 2, 3, 1).copy()
    feed = dict.fromkeys(runtime.inputs(), x)
    runtime.run(feed)
    (took,) = runtime.effective(str(path), feed)["delegates"]
    assert (took["name"], took["taken"], took["parts"]) == ("XNNPACK", took["of"], 1)
    operators = [node["op_name"] for node in runtime.model._get_ops_details()]
    assert "TRANSPOSE" not in operators, "a whole map is turned from NHWC to NCHW"
