"""AdaRound: whether a weight is rounded up or down is learned, so that the layer's output changes least.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020), eq. (21) to (25).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgekd.quantization.calibrate import batches
from edgekd.quantization.weighted_layers import Layer
from edgekd.recipe.quantize import AdaRound

_ZETA, _GAMMA = 1.1, -0.1  # eq. (23): the sigmoid is stretched and cut, so that it reaches 0 and 1
_BETA = (20.0, 2.0)  # eq. (24): annealed from an almost flat regularizer to a sharp one
_WARM_UP = 0.2  # share of the steps without regularizer


@dataclass(frozen=True)
class Use:
    """A layer and what goes through it.

    Attributes:
        layer: The layer; its fake quantizer has its final scale.
        x: Its input in the int8 network, (N, ...): errors of earlier layers can be compensated.
        target: Its output in the float network, before the activation function, (N, ...).
    """

    layer: Layer
    x: Tensor
    target: Tensor

    def error(self, weight: Tensor) -> tuple[Tensor, int]:
        """Return the summed squared error behind the activation function, float64, and the number of values."""
        layer, bias = self.layer, None if self.layer.bias is None else self.layer.bias.detach()
        wanted = layer.activate(self.target.detach())
        parts = zip(batches(self.x), batches(wanted), strict=True)
        squares = [(layer.activate(layer.apply(a, weight, bias)) - b).square().sum(dtype=torch.float64) for a, b in parts]
        return torch.stack(squares).sum(), wanted.numel()


def learn(uses: Sequence[Use], settings: AdaRound, generator: torch.Generator) -> tuple[float, float]:
    """Put the weight of a layer on its grid, each value rounded up or down so that the output changes least.

    Args:
        uses: The layer, or all layers that share the weight, which is changed in place; steps take turns between them.
        settings: Steps, learning rate, batch size and λ.
        generator: Draws the batches, on the CPU.

    Returns:
        The mean squared error of the output behind the activation function, on all inputs: with rounding to nearest, and
        with the weight as it is now. The second is never above the first: where learning did not help, the weight is
        rounded to nearest.
    """
    layer = uses[0].layer
    fake_quantize = layer.fake_quantize
    observer = fake_quantize.activation_post_process
    scale: Tensor = fake_quantize.scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    weight = layer.weight.detach()
    floor = torch.floor(weight / scale)

    def on_grid(up: Tensor) -> Tensor:
        grid = torch.clamp(floor + up, observer.quant_min, observer.quant_max)
        return grid * scale

    if any(use.layer.crashes for use in uses):
        uses, weight = [replace(use, x=use.x.contiguous()) for use in uses], weight.contiguous()
    wanted = [use.layer.activate(use.target.detach()) for use in uses]
    with torch.enable_grad():
        variable = _inverse(weight / scale - floor).requires_grad_()
        optimizer = torch.optim.Adam([variable], settings.lr)
        for step in range(settings.steps):
            turn = step % len(uses)
            own, x = uses[turn].layer, uses[turn].x
            bias = None if own.bias is None else own.bias.detach()
            chosen = torch.randint(len(x), (settings.batch_size,), generator=generator).to(x.device)
            up = _rectified_sigmoid(variable)
            out = own.activate(own.apply(x[chosen], on_grid(up), bias))
            loss = (out - wanted[turn][chosen]).square().movedim(own.channel_dim, -1).sum(-1).mean()  # eq. (25)
            beta = _beta(step, settings.steps)
            if beta is not None:
                loss = loss + settings.regularization * (1 - (2 * up - 1).abs().pow(beta)).sum()  # eq. (24)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    nearest = torch.round(weight / scale) - floor
    learned = (_rectified_sigmoid(variable.detach()) >= 0.5).to(floor.dtype)
    errors = []
    for up in (nearest, learned):
        found = [use.error(on_grid(up)) for use in uses]
        errors.append(float(sum(square for square, _ in found)) / sum(count for _, count in found))
    better = errors[1] < errors[0]
    layer.weight.detach().copy_(on_grid(learned if better else nearest))
    return errors[0], min(errors)


def _rectified_sigmoid(variable: Tensor) -> Tensor:
    """The share h of a step that a weight is rounded up by, in [0, 1]; eq. (23)."""
    return torch.clamp(torch.sigmoid(variable) * (_ZETA - _GAMMA) + _GAMMA, 0, 1)


def _inverse(share: Tensor) -> Tensor:
    return -torch.log((_ZETA - _GAMMA) / (share - _GAMMA) - 1)


def _beta(step: int, steps: int) -> float | None:
    """The exponent of the regularizer at a step, by a cosine; None while there is no regularizer."""
    progress = (step / steps - _WARM_UP) / (1 - _WARM_UP)
    if progress < 0:
        return None
    first, last = _BETA
    return last + 0.5 * (first - last) * (1 + math.cos(progress * math.pi))
