"""The training loss: the recipe's terms, the layers they need and the adapters in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.outputs import FeatureLoss, LossFunction, Outputs
from edgekd.distill.pairing import Pair, pair
from edgekd.errors import ModelError
from edgekd.recipe import Loss


@dataclass(frozen=True)
class Term:
    """One loss with its name in curves, and where its features stand among the taps."""

    name: str
    loss: Loss
    pairs: tuple[Pair, ...]


class Terms(nn.Module):
    """All terms of a training loss; its parameters are the adapters'.

    Args:
        losses: The recipe's losses.
        student: The student.
        teacher: The teacher, or None.
        example: Input, 1×C×S×S.

    Attributes:
        student_paths: Taps the student needs.
        teacher_paths: Taps the teacher needs.
    """

    def __init__(self, losses: Sequence[Loss], student: nn.Module, teacher: nn.Module | None, example: Tensor) -> None:
        super().__init__()
        found: list[Term] = []
        self.adapters = nn.ModuleDict()
        for loss in losses:
            if not loss.weight:
                continue
            same = sum(before.loss.kind == loss.kind for before in found)
            name = f"{loss.kind}_{same + 1}" if same else loss.kind
            pairs: tuple[Pair, ...] = ()
            if loss.needs_features:
                if teacher is None:
                    raise ModelError(f"{loss.kind} needs a teacher", "add teacher:")
                chosen = cast(Any, loss).layers
                pairs = pair(student, teacher, example, None if chosen == "auto" else chosen)
                for index, (ours, theirs) in enumerate((p.student, p.teacher) for p in pairs):
                    adapter = cast(FeatureLoss, loss).adapter(ours.shape[0], theirs.shape[0])
                    if adapter is not None:
                        self.adapters[f"{name}_{index}"] = adapter
            found.append(Term(name, loss, pairs))
        self.terms = tuple(found)
        taps = [p for term in self.terms for p in term.pairs]
        self.student_paths = tuple(dict.fromkeys(p.student.path for p in taps))
        self.teacher_paths = tuple(dict.fromkeys(p.teacher.path for p in taps))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(term.name for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(term.loss.needs_teacher for term in self.terms)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor] | None, labels: Tensor) -> tuple[Tensor, ...]:
        """Return the weighted value of each term.

        Args:
            student: ``(logits, *features)`` in the order of ``student_paths``.
            teacher: The same of the teacher, or None.
            labels: int64, N.
        """
        values = []
        for term in self.terms:
            ours, theirs = [], []
            for index, p in enumerate(term.pairs):
                assert teacher is not None
                s = student[1 + self.student_paths.index(p.student.path)]
                t = teacher[1 + self.teacher_paths.index(p.teacher.path)]
                key = f"{term.name}_{index}"
                s, t = _same_size(s, t)
                ours.append(self.adapters[key](s) if key in self.adapters else s)
                theirs.append(t)
            value = cast(LossFunction, term.loss)(
                Outputs(student[0], tuple(ours)),
                None if teacher is None else Outputs(teacher[0], tuple(theirs)),
                labels,
            )
            values.append(term.loss.weight * value)
        return tuple(values)


def _same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the larger of two maps to the smaller's height and width."""
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    return (
        a if a.shape[2:] == size else F.adaptive_avg_pool2d(a, size),
        b if b.shape[2:] == size else F.adaptive_avg_pool2d(b, size),
    )
