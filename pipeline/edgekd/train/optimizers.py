"""The optimizer of a training, its schedule, and the clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from edgekd.recipe.train import Train


def clip(fabric: Fabric, module: Any, optimizer: Any, apart: Sequence[Sequence[nn.Parameter]], largest: float) -> None:
    """Clip the norm of the gradient, of all parameters together or of some of them apart.

    In 16-mixed a gradient may overflow: the step is then left out, and the scale lowered, by the scaler.

    Args:
        fabric: Of the training.
        module: What is trained.
        optimizer: Of the module.
        apart: Parameters of each network that is clipped by itself; empty: the whole module is clipped.
        largest: The norm.
    """
    strict = not scales(fabric)
    if not apart:
        fabric.clip_gradients(module, optimizer, max_norm=largest, error_if_nonfinite=strict)
        return
    # nothing but the scale of 16-mixed is taken away
    fabric.clip_gradients(module, optimizer, max_norm=math.inf, error_if_nonfinite=strict)
    for parameters in apart:
        trained = [p for p in parameters if p.requires_grad]
        # in the optimizer's order, for the sum of the norm has another last bit in another one
        ordered = [p for p in trained if p.ndim > 1] + [p for p in trained if p.ndim <= 1]
        nn.utils.clip_grad_norm_(ordered, largest, error_if_nonfinite=strict)


def scales(fabric: Fabric) -> bool:
    """Return whether gradients are scaled, for half precision would lose small ones."""
    return getattr(fabric.strategy.precision, "scaler", None) is not None


def of(network: nn.Module, budget: Train, fused: bool) -> torch.optim.Optimizer:
    """Return the optimizer; ``fused`` is the faster form, whose scaled gradients cannot be clipped."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": budget.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": budget.weight_decay * budget.decay_norms},
    ]
    if budget.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=budget.lr, momentum=0.9, nesterov=budget.nesterov)
    return torch.optim.AdamW(groups, lr=budget.lr, fused=fused)


def schedule(budget: Train, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the factor of the peak rate at a step: linear warm-up, then a cosine to zero or steps at milestones."""
    total = budget.epochs * steps_per_epoch
    warmup = int(budget.warmup_epochs * steps_per_epoch)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if budget.schedule == "step":
            return budget.gamma ** sum(step >= milestone * steps_per_epoch for milestone in budget.milestones)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor
