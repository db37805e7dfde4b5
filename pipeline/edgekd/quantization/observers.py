"""Range observers that torchao lacks."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.quantization.backend import MovingAverageMinMaxObserver


class HoldingMinMaxObserver(MovingAverageMinMaxObserver):  # type: ignore[misc]  # torchao ships no types
    """A range that widens at once and shrinks slowly, for a scale shared by several tensors.

    Every tensor that shares the scale passes through the same observer, in turn. The range follows the widest of them;
    ``averaging_constant`` is how fast it forgets.
    """

    @classmethod
    def like(cls, other: MovingAverageMinMaxObserver) -> HoldingMinMaxObserver:
        """Return a fresh observer with the settings of ``other``."""
        return cls(
            averaging_constant=other.averaging_constant,
            dtype=other.dtype,
            qscheme=other.qscheme,
            quant_min=other.quant_min,
            quant_max=other.quant_max,
            eps=float(other.eps),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Take the range of ``x`` into account and return ``x`` unchanged."""
        if x.numel() == 0:
            return x
        low, high = torch.aminmax(x.detach().to(self.min_val.dtype))
        if self.min_val == float("inf"):
            self.min_val.copy_(low)
            self.max_val.copy_(high)
        else:
            forget = self.averaging_constant
            self.min_val.copy_(torch.minimum(low, self.min_val + forget * (low - self.min_val)))
            self.max_val.copy_(torch.maximum(high, self.max_val + forget * (high - self.max_val)))
        return x
