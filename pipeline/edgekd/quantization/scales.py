"""Learned scales: quantization-aware training that moves the scales by gradient too, not by the values seen.

The logarithm of each scale is a parameter, so that a step of Adam is a share of the scale, whatever its size. Zero points
stay where calibration put them.

Source: Esser et al., "Learned Step Size Quantization" (2020), eq. (1) to (3) and §2.2; the logarithm from Jain et al.,
"Trained Quantization Thresholds" (2020), §3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from edgekd.quantization import qat
from edgekd.quantization.backend import FakeQuantize, FixedQParamsObserver

_OUTER, _INNER = ".log_scale", ".fake_quantize."


class LearnedScale(nn.Module):
    """Takes the place of a calibrated fake quantizer and rounds with a scale that has a gradient.

    Args:
        fake_quantize: Its range is where learning starts; ``settle`` writes what was learned back into it.
    """

    zero_point: Tensor

    def __init__(self, fake_quantize: FakeQuantize) -> None:
        super().__init__()
        self.fake_quantize = fake_quantize
        self.log_scale = nn.Parameter(fake_quantize.scale.detach().clone().log())
        self.register_buffer("zero_point", fake_quantize.zero_point.detach().clone().float(), persistent=False)
        observer = fake_quantize.activation_post_process
        self._limits: tuple[int, int] = (observer.quant_min, observer.quant_max)

    def forward(self, x: Tensor) -> Tensor:
        """Round ``x`` to int8 and back; gradients as in eq. (3) for the scale, straight through for ``x``."""
        scale, (low, high) = self.log_scale.exp(), self._limits
        if self.fake_quantize.is_per_channel:
            factor = 1 / math.sqrt(x.numel() / len(scale) * high)
            out = torch._fake_quantize_learnable_per_channel_affine(x, scale, self.zero_point, 0, low, high, factor)
        else:
            one = x.numel() / len(x) if x.ndim else 1  # §2.2: the numbers of one image; a constant may have no dimension
            factor = 1 / math.sqrt(one * high)
            out = torch._fake_quantize_learnable_per_tensor_affine(x, scale, self.zero_point, low, high, factor)
        result: Tensor = out
        return result

    @torch.no_grad()
    def settle(self) -> None:
        """Give the fake quantizer the range that belongs to the scale."""
        inner, (low, high) = self.fake_quantize, self._limits
        observer, scale, zero_point = inner.activation_post_process, self.log_scale.exp(), self.zero_point
        if observer.qscheme == torch.per_tensor_symmetric:  # its scale is half the range over half the integers
            zero_point = zero_point + (low + high) / 2
        observer.min_val.copy_(((low - zero_point) * scale).reshape(observer.min_val.shape))
        observer.max_val.copy_(((high - zero_point) * scale).reshape(observer.max_val.shape))
        inner.scale.copy_(inner.calculate_qparams()[0])


def learn(module: nn.Module) -> int:
    """Replace the fake quantizers of a calibrated graph by ones with learned scales; returns their number."""
    made: dict[nn.Module, LearnedScale] = {}
    for name, child in list(module.named_modules(remove_duplicate=False)):
        if isinstance(child, FakeQuantize) and not isinstance(child.activation_post_process, FixedQParamsObserver):
            made.setdefault(child, LearnedScale(child))
            module.set_submodule(name, made[child])
    return len(made)


def freeze(module: nn.Module) -> None:
    """Keep all scales as they are from now on."""
    for learned in _learned(module):
        learned.log_scale.requires_grad_(False)


def state(module: nn.Module) -> dict[str, Tensor]:
    """The state of the graph as ``qat.load_state`` takes it: ordinary fake quantizers with the learned ranges."""
    for learned in _learned(module):
        learned.settle()
    return {
        name.replace(_INNER, "."): value for name, value in qat.state(module).items() if not name.endswith(_OUTER)
    }  # fmt: skip


def _learned(module: nn.Module) -> Iterator[LearnedScale]:
    return (child for child in module.modules() if isinstance(child, LearnedScale))
