"""NaN and infinity: which rows of an array have them, and which module of a network gives them first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

FORWARD_HINT = (
    "look in its forward() for a square root or logarithm of a number below 0, a division by 0, an overflow or a mask of "
    "-inf, and whether the inputs are normalized as in its training"
)


@dataclass(frozen=True)
class NotFinite:
    """Rows of an array that have values which are not finite.

    Attributes:
        nan: Whether one of the values is NaN.
        infinite: Whether one is infinite.
        rows: Number of rows with such a value.
        of: Number of all rows.
        first: Place of the first such row.
    """

    nan: bool
    infinite: bool
    rows: int
    of: int
    first: int

    @property
    def kind(self) -> str:
        """Name of the values, for a message."""
        return " or ".join(name for name, found in (("NaN", self.nan), ("infinity", self.infinite)) if found)

    def __str__(self) -> str:
        """Return such as ``NaN in 3 of 8 rows, the first is row 2 (from 0)``."""
        which = "it" if self.rows == 1 else "the first"
        return f"{self.kind} in {self.rows} of {self.of} rows, {which} is row {self.first} (from 0)"


def not_finite(values: NDArray[Any]) -> NotFinite | None:
    """Return the rows of an array with NaN or infinity; None where all values are finite, as integers are.

    Example:
        >>> not_finite(np.array([[1.0, 2.0], [np.nan, 1.0]]))
        NotFinite(nan=True, infinite=False, rows=1, of=2, first=1)
    """
    if values.dtype.kind not in "fc" or bool(np.isfinite(values).all()):
        return None
    wrong = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    return NotFinite(
        bool(np.isnan(values).any()), bool(np.isinf(values).any()), int(wrong.sum()), len(values), int(wrong.argmax())
    )


def first_module(network: nn.Module, run: Callable[[], object], *, nan: bool) -> str:
    """Return, in words, which module of a network is the first to give NaN or infinity of values without.

    Args:
        network: A network whose modules are calls; in a traced graph they are not.
        run: Calls the network with inputs for which its outputs are not finite.
        nan: Look for NaN and inf, which become NaN; -inf may be a mask. False: look for infinity.

    Returns:
        Such as ``its module head (Linear)``, or ``forward() of Net``; empty where none is found.
    """
    import torch

    found: list[str] = []

    def damaged(values: object) -> bool:
        kinds = (torch.isnan, torch.isposinf) if nan else (torch.isinf,)
        return any(bool(kind(value).any()) for value in _floats(values) for kind in kinds)

    def watch(name: str) -> Any:
        def hook(module: nn.Module, given: object, returned: object) -> None:
            if not found and damaged(returned) and not damaged(given):
                kind, leaf = type(module).__name__, not any(True for _ in module.children())
                inner = name.removeprefix("network").removeprefix(".")
                place = f" ({inner})" if inner else ""
                found.append(f"its module {inner} ({kind})" if leaf and inner else f"forward() of {kind}{place}")

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _floats(values: object) -> Iterator[Any]:
    from torch import Tensor
    from torch.utils._pytree import tree_leaves

    return (value for value in tree_leaves(values) if isinstance(value, Tensor) and value.is_floating_point())
