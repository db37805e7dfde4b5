"""One scale for all operands of a concatenation, wide enough for each, whatever they come from and in whatever order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import permutations

import pytest
import torch
from tests.unit.exporting.nets import Together, images
from torch import Tensor, nn

from edgekd.quantization import qat, sensitivity

BRANCHES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "pooled sigmoid": lambda y: nn.functional.max_pool2d(y.sigmoid(), 3, 1, 1),
    "tanh": torch.tanh,
    "softmax": lambda y: y.softmax(1),
    "times 20": lambda y: y * 20,
    "times 0.1": lambda y: y * 0.1,
    "relu": torch.relu,
    "nested": lambda y: torch.cat([y.sigmoid(), y], 1)[:, 2:6],
}


class Concatenated(nn.Module):
    """One convolution a branch; the head sees each at the same size."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.branches = [BRANCHES[name] for name in names]
        self.layers = nn.ModuleList(nn.Conv2d(3, 4, 3) for _ in names)
        self.head = nn.Linear(4 * len(names), 5)

    def forward(self, x: Tensor) -> Tensor:
        parts = [branch(layer(x)) for branch, layer in zip(self.branches, self.layers, strict=True)]
        logits: Tensor = self.head(torch.cat(parts, 1).mean((2, 3)))
        return logits


def rounded(nets: Iterable[nn.Module]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Logits of each in float, as int8 is trained, and as it is written."""
    x, net = images(64, seed=5), Together({str(place): net for place, net in enumerate(nets)}).eval()
    prepared = qat.prepare(net, images(1))
    with torch.no_grad():
        for seed in range(3):
            prepared.module(images(32, seed=seed))
        qat.freeze_observers(prepared.module)
        exact, trained = net(x).values(), prepared.module(x).values()
        return zip(exact, trained, qat.convert(prepared.module, fold_weights=True)(x), strict=True)


MORE = {"sigmoid": [("sigmoid", "sigmoid"), ("sigmoid", "tanh", "relu")], "tanh": [("tanh", "times 20", "softmax")]}


@pytest.mark.parametrize("first", BRANCHES)
def test_no_operand_is_clipped(first: str) -> None:
    """A sigmoid's scale is fixed; taken for the others, it cut a branch of ±20 at 1."""
    kinds = [names for names in permutations(BRANCHES, 2) if names[0] == first] + MORE.get(first, [])
    for names, (exact, trained, written) in zip(kinds, rounded(map(Concatenated, kinds)), strict=True):
        assert (exact - written).std() < 0.05 * exact.std(), names
        assert (trained - written).abs().max() < 0.05 * exact.std(), f"{names}: what is written is what was trained"


def test_equal_fixed_scales_are_kept() -> None:
    prepared = qat.prepare(Concatenated(("sigmoid", "pooled sigmoid")).eval(), images(1))
    prepared.module(images(16))
    (node,) = prepared.module.graph.find_nodes(op="call_function", target=torch.ops.aten.cat.default)
    (quantizer,) = node.users
    assert float(prepared.module.get_submodule(str(quantizer.target)).scale) == 1 / 256


def test_a_concatenation_that_rounds_an_operand_again_is_a_layer() -> None:
    """So that it is named where it destroys a branch, and can be kept in float."""

    class Ranges(nn.Module):
        """A sigmoid beside values of a thousand, which the head makes as large as it."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.narrow, self.wide, self.head = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(3, 2, 3, 2), nn.Conv2d(10, 5, 5)
            with torch.no_grad():
                self.head.weight[:, 8:] /= 1000

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.narrow(x).sigmoid(), self.wide(x) * 1000], 1)).flatten(1)

    net = Ranges().eval()
    prepared = qat.prepare(net, images(1))
    with torch.no_grad():
        prepared.module(images(64))
    qat.freeze_observers(prepared.module)
    worst = sensitivity.measure(prepared.module, [images(16, seed=8)])[0]
    assert (worst.op, worst.cause) == ("cat", "output")
    assert worst.logits_db < 20
    assert set(worst.keep_float) == {"%cat", "%conv2d_2"}
