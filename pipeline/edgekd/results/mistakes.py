"""Mistakes that a network shares with its teacher, as run.json has them, and in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb


@dataclass(frozen=True)
class CopiedErrors:
    """Mistakes on the test split that a network and its teacher have in common: the same wrong class for the same image.

    Attributes:
        model: Name of the network.
        images: Number of test images.
        mistakes: Those that the teacher gives a wrong class.
        copied: Those of them that the network gives the same wrong class.
        chance: How many would be expected of a network that takes one class for another as often as this one does, whatever
            the teacher says: Σ over the teacher's mistakes of P(the teacher's class | the label), estimated over the split.
        more: Mistakes copied that the student alone does not make; None where there is none to compare with.
        fewer: Mistakes of the teacher that the student alone makes just the same, and this network does not.
    """

    model: str
    images: int
    mistakes: int
    copied: int
    chance: float
    more: int | None = None
    fewer: int | None = None

    @property
    def share(self) -> float:
        """Share of the teacher's mistakes that is copied."""
        return self.copied / self.mistakes

    @property
    def p(self) -> float | None:
        """Probability of a difference from the student alone at least as large by chance (exact McNemar test, two-sided)."""
        if self.more is None or self.fewer is None:
            return None
        n, least = self.more + self.fewer, min(self.more, self.fewer)
        tail: int = sum(comb(n, k) for k in range(least + 1))
        return min(1.0, 2 * tail / (1 << n))
