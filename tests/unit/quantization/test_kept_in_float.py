"""What gives an output out of a layer kept in float is in float, too: nothing rounds what was kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tests.unit.exporting.nets import images
from torch import Tensor, nn
from torch.nn import functional

from edgekd.quantization import qat

WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda x: x,
    "relu": torch.relu,
    "clamp": lambda x: x.clamp(0, 6),
    "part": lambda x: x[:, :2],
    "chunks": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "relu of a part": lambda x: x[:, 1:3].relu(),
    "part of a relu": lambda x: x.relu()[:, 1:3],
    "stacked": lambda x: torch.stack([x[:, 0], x[:, 1]], 1),
    "rolled": lambda x: torch.roll(x, 1, 2),
    "turned": lambda x: x.permute(0, 2, 3, 1).flatten(1, 2),
    "pooled": lambda x: functional.max_pool2d(x, 2),
    "larger": lambda x: functional.interpolate(x, scale_factor=2),
    "padded": lambda x: functional.pad(x, (1, 0, 0, 1)),
    "shuffled": lambda x: functional.pixel_shuffle(x, 2),
    "greatest": lambda x: x.amax((2, 3)),
}


class Kept(nn.Module):
    """A layer for each way, which a convolution in int8 reads, too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kept = nn.ModuleList(nn.Conv2d(3, 4, 3) for _ in WAYS)
        self.head = nn.Conv2d(4, 5, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        kept = [layer(x) for layer in self.kept]
        found = {f"way {at}": way(y) for at, (way, y) in enumerate(zip(WAYS.values(), kept, strict=True))}
        return {"logits": sum((self.head(y) for y in kept), torch.zeros(1)).mean((2, 3)), **found}


def test_an_output_out_of_a_layer_kept_in_float_is_what_it_is_in_float() -> None:
    net, x = Kept().eval(), images(4)
    prepared = qat.prepare(net, images(1), keep_float=("kept",))
    with torch.no_grad():
        prepared.module(x)  # gives the ranges
        found, exact = prepared.module(x), net(x)
    assert not torch.equal(found["logits"], exact["logits"])
    for at, way in enumerate(WAYS):
        torch.testing.assert_close(found[f"way {at}"], exact[f"way {at}"], msg=way)
    assert "kept.0 conv2d (%conv2d): kept in float" in map(str, prepared.float_ops)
