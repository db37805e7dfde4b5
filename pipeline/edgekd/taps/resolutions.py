"""The stages of a network: what its resolutions end with; of a plain vision transformer, its blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from edgekd.taps.layer import Layer

MOST = 0.75
"""Share of a network's operators in its blocks, from which on resolutions outside of them are a stem's."""


def by_resolution(layers: Sequence[Layer], modules: Mapping[str, nn.Module]) -> tuple[Layer, ...]:
    """Return the output of each stage: at every resolution the last of the outermost modules. No maps of one pixel.

    Outermost, because a block's output is what the next block sees, while the layers inside it are the block's own affair.
    A row of blocks or stages, whose members all have layers inside, is no module around them in this sense.

    Args:
        layers: Modules that give feature maps, in the order in which they end.
        modules: The network's modules by path.
    """

    def depth(path: str) -> int:
        parts = path.split(".")
        around = (modules[".".join(parts[:count])] for count in range(1, len(parts)))
        return sum(not _is_row(module) for module in around)

    best: dict[tuple[int, ...], Layer] = {}
    for layer in layers:
        if layer.size not in best or depth(layer.path) <= depth(best[layer.size].path):
            best[layer.size] = layer
    return tuple(layer for layer in layers if layer in best.values() and layer.size != (1, 1))


def blocks(layers: Sequence[Layer], modules: Mapping[str, nn.Module], paths: Collection[str]) -> tuple[Layer, ...]:
    """Return the blocks of a network that is one row of them at one resolution; nothing for one with several.

    Blocks are neighbours of one class, with layers inside, whose outputs have one shape.

    Args:
        layers: Modules that give feature maps, in the order in which they end.
        modules: The network's modules by path.
        paths: Where each operator of the network is.
    """
    rows: dict[tuple[str, type, tuple[int, ...]], list[Layer]] = defaultdict(list)
    for layer in layers:
        if any(modules[layer.path].children()):
            rows[layer.path.rpartition(".")[0], type(modules[layer.path]), layer.shape].append(layer)
    several = [row for row in rows.values() if len(row) > 1]
    if len({row[0].size for row in several}) != 1:
        return ()
    one_resolution = len({layer.size for layer in layers} - {(1, 1)}) == 1
    inside = _operators_in([layer for row in several for layer in row], paths)
    longest = max(several, key=lambda row: _operators_in(row, paths))
    return tuple(longest) if one_resolution or inside >= MOST * len(paths) else ()


def _is_row(module: nn.Module) -> bool:
    is_container = type(module) in (nn.Sequential, nn.ModuleList)
    return is_container and all(any(child.children()) for child in module.children())


def _operators_in(row: Sequence[Layer], paths: Collection[str]) -> int:
    inside = tuple(f"{layer.path}." for layer in row)
    return sum(path.startswith(inside) for path in paths)
