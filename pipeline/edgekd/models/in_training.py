"""The primary output of a network that returns more in training mode, such as auxiliary logits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekd.task import primary
from edgekd.task.named import call

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.task.base import Port


def keep_primary(model: nn.Module, inputs: Mapping[str, Tensor], port: Port) -> None:
    """Let a network that returns one tensor in evaluation mode return the same output alone in training mode.

    Of several outputs in training mode it is the one whose values are those of evaluation mode, with dropout off and batch
    norms on running statistics; where none or several are, the rule of :mod:`edgekd.task.primary` decides, at the first
    training step. The others become ``training_outputs`` of the network, each with its shape.

    Args:
        model: In any mode; changed in place where it has several outputs in training mode.
        inputs: One sample.
        port: The primary output of the task.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            own = copy.deepcopy(model).eval()
            exact = call(own, _copies(inputs))
            returned = call(_training(own), _copies(inputs))
        except Exception:  # networks that cannot be copied, or do not run with one sample in training mode
            return
    if isinstance(returned, torch.Tensor):
        return
    found = {name: value for name, value in primary.tensors(returned) if isinstance(value, torch.Tensor)}
    alike = {name: value for name, value in found.items() if (value.shape, value.dtype) == (exact.shape, exact.dtype)}
    same = [name for name, value in alike.items() if torch.allclose(value, exact, rtol=1e-4)]
    chosen = port.name if port.name in found or len(same) != 1 else same[0]
    primary.keep(model, chosen, port)
    others = tuple(primary.shown(name, tuple(value.shape)) for name, value in found.items() if name != chosen)
    model.training_outputs = others  # type: ignore[assignment]  # a plain attribute


def training_outputs(model: nn.Module) -> tuple[str, ...]:
    """Return the outputs that a built network has in training mode alone, each with its shape."""
    found: tuple[str, ...] = getattr(model, "training_outputs", ())
    return found


def _training(model: nn.Module) -> nn.Module:
    """Put the modules that are no single layer in training mode, so that no layer changes its values or its state."""
    for module in model.modules():
        module.training = any(True for _ in module.children()) and not type(module).__module__.startswith("torch.nn")
    model.training = True
    return model


def _copies(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: value.clone() for name, value in inputs.items()}
