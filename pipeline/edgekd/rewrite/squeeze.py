"""Squeeze-excite blocks (Hu et al. 2018, eq. 2-4) found by what they compute, and dropped.

The block multiplies every channel by a number that depends on the whole image. On a CPU it costs a pass over the map to
average it, two tiny layers that no kernel is fast at, and a pass to multiply: in int8, where the convolutions have become
cheap, that weighs more than in float.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgekd.task.named import Inputs, call

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def drop(model: nn.Module, example: Inputs) -> tuple[str, ...]:
    """Replace each block by ``nn.Identity``; returns their paths.

    Args:
        model: Changed in place.
        example: One sample.
    """
    paths = find(model, example)
    for path in paths:
        model.set_submodule(path, nn.Identity())
    return paths


def find(model: nn.Module, example: Inputs) -> tuple[str, ...]:
    """Paths of the blocks; arguments as for ``drop``, and nothing is changed."""
    channels = _map_to_map(model, example)
    found: list[str] = []
    for path, module in model.named_modules():
        if any(path.startswith(f"{outer}.") for outer in found):
            continue  # part of one
        if path in channels and _has_only_pointwise_layers(module) and _scales_channels(module, channels[path]):
            found.append(path)
    return tuple(found)


def _map_to_map(model: nn.Module, example: Inputs) -> dict[str, int]:
    """Channels of each module that makes one feature map of one of the same shape."""
    channels: dict[str, int] = {}
    handles = []

    def note(path: str, args: tuple[object, ...], out: object) -> None:
        x = args[0] if len(args) == 1 else None
        if isinstance(x, Tensor) and isinstance(out, Tensor) and x.ndim == 4 and x.shape == out.shape:
            channels[path] = x.shape[1]

    for path, module in model.named_modules():
        if path and not isinstance(module, _CONTAINERS):
            handles.append(module.register_forward_hook(lambda _module, args, out, path=path: note(path, args, out)))
    training = model.training
    try:
        with torch.no_grad():
            call(model.eval(), example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return channels


def _has_only_pointwise_layers(module: nn.Module) -> bool:
    """Return whether it learns something, and nothing about where in the image it is."""
    convolutions = [child for child in module.modules() if isinstance(child, nn.Conv2d)]
    return any(True for _ in module.parameters()) and all(conv.kernel_size == (1, 1) for conv in convolutions)


def _scales_channels(module: nn.Module, channels: int) -> bool:
    """Return whether ``module(x) / x`` is one number a channel, and another one for another image."""
    own = copy.deepcopy(module).double().eval()
    generator = torch.Generator().manual_seed(0)
    factors = []
    for size in (0.5, 1.0, 4.0):
        x = size * (torch.rand(1, channels, 4, 5, generator=generator, dtype=torch.float64) + 0.1)
        try:
            with torch.no_grad():
                factor = own(x.clone()) / x
        except Exception:  # not a function of one map of any size
            return False
        if factor.shape != x.shape or not torch.allclose(factor, factor[..., :1, :1].expand_as(factor), rtol=1e-9):
            return False
        factors.append(factor[..., 0, 0])
    return any(not torch.allclose(factor, factors[0], rtol=1e-9) for factor in factors[1:])
