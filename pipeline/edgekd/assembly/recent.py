"""Results of costly work that several stages of a run use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The newest results by key. A copy for another process is empty: each process makes its own.

    Args:
        most: Number of results that are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made: dict[str, T] = {}

    def of(self, key: str, make: Callable[[], T]) -> T:
        """Return the result of ``key``, which is made where it is not there."""
        if key not in self._made:
            made = make()
            while len(self._made) >= self._most:
                del self._made[next(iter(self._made))]
            self._made[key] = made
        return self._made[key]

    def __len__(self) -> int:
        return len(self._made)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._most,)
