"""Arithmetic of the losses: never in half precision, and with small gradients at zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def full(x: Tensor) -> Tensor:
    """``x`` in float32 where it is in half precision, which loses the small differences that losses are made of."""
    return x.float() if x.dtype.itemsize < 4 else x


def products(x: Tensor, other: Tensor | None = None) -> Tensor:
    """Scalar products of every row with every row of ``other``, or of its own: ...×N×D, ...×M×D → ...×N×M.

    Not in half precision under autocast either, which would overflow or lose them.
    """
    import torch

    with torch.autocast(x.device.type, enabled=False):
        found: Tensor = full(x) @ full(x if other is None else other).mT
    return found


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """Vectors over their L2 norm; one of zero stays, and its gradient stays small (an epsilon would make it 1 / epsilon)."""
    x = full(x)
    norm: Tensor = x.norm(dim=dim, keepdim=True)
    return x / norm.where(norm > 0, 1)


def z_scores(x: Tensor) -> Tensor:
    """Each row minus its mean, over its standard deviation; 0 in a row that does not vary, such as a head of zeros gives.

    That row's gradient stays small. An epsilon would make it 1 / epsilon, which Adam does not forget for thousands of steps.
    """
    mean, deviation = x.mean(dim=1, keepdim=True), x.std(dim=1, correction=0, keepdim=True)
    varies = deviation > 1e-6 * mean.abs()  # less is rounding
    return (x - mean) / deviation.where(varies, 1)
