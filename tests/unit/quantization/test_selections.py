"""Operators that select, pool or interpolate by their own rules, written with those that every runtime has."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.quantization.fold import fold
from edgekd.quantization.normalise import normalise

X = torch.randn(3, 4, 12, 12, generator=torch.Generator().manual_seed(0))
Operation = Callable[[Tensor], Tensor]


class Of(nn.Module):
    """Several operations of one image: a graph is traced once for all of them."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        super().__init__()
        self.operations = list(operations)
        self.layers = nn.ModuleList(operation for operation in self.operations if isinstance(operation, nn.Module))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [operation(x) for operation in self.operations]


REWRITTEN: dict[str, Operation] = {
    "nearest by a ratio": lambda x: F.interpolate(x, scale_factor=1.5),
    "nearest by a scale that is not the ratio": lambda x: F.interpolate(x, scale_factor=1.3),
    "nearest to a size": lambda x: F.interpolate(x, size=(17, 5)),
    "nearest to half": lambda x: F.interpolate(x, scale_factor=0.5),
    "bilinear by a scale that is not the ratio": lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "antialias": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", antialias=True),
    "circular": lambda x: F.pad(x, (1, 2, 3, 1), mode="circular"),
    "circular in one dimension": lambda x: F.pad(x.flatten(2), (1, 2), mode="circular"),
    "repeat": lambda x: x.repeat(1, 1, 2, 3),
    "tile": lambda x: x.tile(2, 1, 1),
    "flip": lambda x: x.flip((1, 2)),
    "max pool, ceil_mode": lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max pool, ceil_mode and padding": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max pool, ceil_mode and dilation": lambda x: F.max_pool2d(x, 3, 4, 1, dilation=2, ceil_mode=True),
    "max pool, ceil_mode without effect": lambda x: F.max_pool2d(x[..., :9], 2, 3, ceil_mode=True),
    "max pool of a sequence": lambda x: F.max_pool1d(x.flatten(2), 4, 3, ceil_mode=True),
    "average pool, ceil_mode": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "average pool, ceil_mode without effect": lambda x: F.avg_pool2d(x[..., :9], 2, 3, ceil_mode=True),
    "average pool, divisor": lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=7),
    "transposed convolution": nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
    "transposed convolution, more than padded": nn.ConvTranspose2d(4, 6, 2, 2, output_padding=1, bias=False),
    "transposed convolution of groups": nn.ConvTranspose2d(4, 6, 3, 2, 1, groups=2),
    "transposed convolution, dilated": nn.ConvTranspose2d(4, 6, (3, 2), 3, (1, 2), dilation=2),
    "adaptive max pool, equal windows": nn.AdaptiveMaxPool2d(4),
    "adaptive max pool, unequal windows": nn.AdaptiveMaxPool2d((5, 7)),
    "adaptive max pool, larger": nn.AdaptiveMaxPool2d(17),
    "adaptive max pool of a sequence": lambda x: F.adaptive_max_pool1d(x.flatten(2), 7),
}
# In float every runtime has them.
IN_INT8: dict[str, Operation] = {
    "nearest-exact": lambda x: F.interpolate(x, size=(17, 5), mode="nearest-exact"),
    "nearest-exact, doubled": lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 1), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 0, 7), mode="replicate"),
}
SAFE = {
    "slice.Tensor", "cat.default", "index_select.default", "matmul.default", "transpose.int", "flip.default",
    "pixel_shuffle.default", "max_pool1d.default", "max_pool2d.default", "avg_pool2d.default", "mul.Tensor",
    "constant_pad_nd.default",
    "conv2d.default", "upsample_nearest2d.vec", "reshape.default", "sym_size.int",
}  # fmt: skip


def _check(graph: torch.fx.GraphModule, operations: dict[str, Operation]) -> None:
    for x in (X, X[:1]):
        for (name, operation), result in zip(operations.items(), graph(x), strict=True):
            torch.testing.assert_close(result, operation(x), rtol=1e-5, atol=1e-6, msg=name)
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    assert {node.target.__name__ for node in nodes} <= SAFE
    pools = [node for node in nodes if "pool" in node.target.__name__]
    assert not any(argument is True for node in pools for argument in node.args), "ceil_mode"


def test_the_float_graph_has_other_operators_and_the_same_values() -> None:
    _check(fold(Of(REWRITTEN.values()), X), REWRITTEN)


def test_the_int8_graph_has_other_operators_and_the_same_values() -> None:
    _check(normalise(Of((REWRITTEN | IN_INT8).values()), X), REWRITTEN | IN_INT8)


def test_what_is_right_everywhere_stays_one_operator() -> None:
    operations: list[Operation] = [
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, size=(36, 12)),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, size=(17, 5), mode="nearest-exact"),
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        lambda x: F.pad(x, (1, 1, 0, 0), mode="reflect"),
        lambda x: x.flip(3),
    ]
    nodes = [node for node in fold(Of(operations), X).graph.nodes if node.op == "call_function"]
    assert len(nodes) == len(operations)


def test_new_nodes_are_of_the_module_that_they_replace() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(nn.AdaptiveMaxPool2d(5)))
    nodes = [node for node in fold(network, X).graph.nodes if node.op == "call_function"]
    assert all(list(node.meta["nn_module_stack"].values())[-1][0] == "1.0" for node in nodes[1:])
