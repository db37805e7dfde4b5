"""AdaRound: whether a weight is rounded up or down is learned, so that the layer's output changes least.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020), eq. (21) to (25).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgekd.quantize.calibrate import batches
from edgekd.quantize.layers import Layer
from edgekd.recipe_quantize import AdaRound

_ZETA, _GAMMA = 1.1, -0.1  # eq. (23): the sigmoid is stretched and cut, so that it reaches 0 and 1
_BETA = (20.0, 2.0)  # eq. (24): annealed from an almost flat regularizer to a sharp one
_WARM_UP = 0.2  # share of the steps without regularizer


def learn(layer: Layer, x: Tensor, target: Tensor, settings: AdaRound, generator: torch.Generator) -> tuple[float, float]:
    """Put the weight of a layer on its grid, each value up or down as its output wants it.

    Args:
        layer: Its weight is changed in place. Its fake quantizer has its final scale.
        x: Input of the layer in the int8 network, (N, ...): errors of earlier layers can be made up for.
        target: Output of the layer in the float network, before the activation function, (N, ...).
        settings: Steps, learning rate, batch size and λ.
        generator: Draws the batches, on the CPU.

    Returns:
        The mean squared error of the layer's output behind its activation function, on all of ``x``: with rounding to
        nearest, and with the weight as it is now. The second is never above the first: where learning did not help, the
        weight is rounded to nearest.
    """
    fake_quantize = layer.fake_quantize
    observer = fake_quantize.activation_post_process
    scale: Tensor = fake_quantize.scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    weight = layer.weight.detach()
    bias = None if layer.bias is None else layer.bias.detach()
    floor = torch.floor(weight / scale)

    def on_grid(up: Tensor) -> Tensor:
        grid = torch.clamp(floor + up, observer.quant_min, observer.quant_max)
        return grid * scale

    if layer.crashes:
        x, weight = x.contiguous(), weight.contiguous()
    wanted = layer.activate(target.detach())
    with torch.enable_grad():
        variable = _inverse(weight / scale - floor).requires_grad_()
        optimizer = torch.optim.Adam([variable], settings.lr)
        for step in range(settings.steps):
            chosen = torch.randint(len(x), (settings.batch_size,), generator=generator).to(x.device)
            up = _rectified_sigmoid(variable)
            out = layer.activate(layer.apply(x[chosen], on_grid(up), bias))
            loss = (out - wanted[chosen]).square().movedim(layer.channel_dim, -1).sum(-1).mean()  # eq. (25)
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
        parts = zip(batches(x), batches(wanted), strict=True)
        rounded = on_grid(up)
        squares = [(layer.activate(layer.apply(a, rounded, bias)) - b).square().sum(dtype=torch.float64) for a, b in parts]
        errors.append(float(torch.stack(squares).sum()) / wanted.numel())
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
