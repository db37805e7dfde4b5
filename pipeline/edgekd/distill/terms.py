"""The training loss: the recipe's terms, the layers they need and the adapters in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill.forms import as_map, as_vector
from edgekd.distill.outputs import Batch, Facts, LossFunction, Outputs
from edgekd.distill.pairing import Pair, match
from edgekd.distill.taps import Survey, survey
from edgekd.errors import ModelError
from edgekd.recipe import FeatureLoss, Loss


@dataclass(frozen=True)
class Term:
    """One loss with its name in curves, and the layers it compares."""

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
        facts: What is known of the data.

    Attributes:
        student_paths: Taps the student needs.
        teacher_paths: Taps the teacher needs.
        adapters: What is trained beside the student, by the name of its term.

    Raises:
        ModelError: A loss needs a teacher, or layers that a network does not have.
    """

    def __init__(
        self, losses: Sequence[Loss], student: nn.Module, teacher: nn.Module | None, example: Tensor, facts: Facts
    ) -> None:
        super().__init__()
        found: list[Term] = []
        surveys: tuple[Survey, Survey] | None = None
        self.adapters = nn.ModuleDict()
        for index, loss in enumerate(losses):
            if not loss.weight:
                continue
            same = sum(before.kind == loss.kind for before in losses[:index])
            name = f"{loss.kind}_{same + 1}" if same else loss.kind
            pairs: tuple[Pair, ...] = ()
            if loss.needs_teacher and teacher is None:
                raise ModelError(f"{loss.kind} needs a teacher", "add teacher:")
            if isinstance(loss, FeatureLoss):
                assert teacher is not None
                chosen = None if loss.layers == "auto" else loss.layers
                surveys = surveys or (survey(student, example), survey(teacher, example))
                pairs = match(*surveys, loss.reads, chosen)
            adapter = cast(LossFunction, loss).adapter(pairs, facts)
            if adapter is not None:
                self.adapters[name] = adapter
            found.append(Term(name, loss, pairs))
        self.terms = tuple(found)
        taps = [p for term in self.terms for p in term.pairs]
        self.student_paths = tuple(dict.fromkeys(p.student.tap for p in taps))
        self.teacher_paths = tuple(dict.fromkeys(p.teacher.tap for p in taps))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(term.name for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(term.loss.needs_teacher for term in self.terms)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor] | None, batch: Batch, epoch: float
    ) -> tuple[Tensor, ...]:
        """Return the weighted value of each term; 0 for one whose time has not come or is over.

        Args:
            student: ``(logits, *features)`` in the order of ``student_paths``.
            teacher: The same of the teacher, or None.
            batch: Labels and indices of the images.
            epoch: Epochs done, with the share of the current one.
        """
        values = []
        for term in self.terms:
            adapter = dict(self.adapters).get(term.name)
            factor = term.loss.weight * term.loss.factor(epoch)
            if not factor:
                values.append(_nothing(student[0], adapter))
                continue
            ours, theirs = self._features(term, student, teacher)
            value = cast(LossFunction, term.loss)(
                Outputs(student[0], ours), None if teacher is None else Outputs(teacher[0], theirs), batch, adapter
            )
            values.append(factor * value)
        return tuple(values)

    def _features(
        self, term: Term, student: Sequence[Tensor], teacher: Sequence[Tensor] | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        pairs = []
        for p in term.pairs:
            assert teacher is not None
            s = student[1 + self.student_paths.index(p.student.tap)]
            t = teacher[1 + self.teacher_paths.index(p.teacher.tap)]
            if term.loss.reads == "embedding":
                pairs.append((as_vector(s, p.student.form), as_vector(t, p.teacher.form)))
            elif term.loss.reads == "attention":
                pairs.append((s, t))
            else:
                pairs.append(_same_size(*(as_map(f, at.form, at.size) for f, at in ((s, p.student), (t, p.teacher)))))
        return tuple(s for s, _ in pairs), tuple(t for _, t in pairs)


def _nothing(logits: Tensor, adapter: nn.Module | None) -> Tensor:
    """A zero that depends on the adapter, whose parameters several processes would otherwise wait for."""
    return torch.zeros((), device=logits.device) + sum(0 * p.sum() for p in (adapter.parameters() if adapter else ()))


def _same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the larger of two maps to the smaller's height and width."""
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    return (
        a if a.shape[2:] == size else F.adaptive_avg_pool2d(a, size),
        b if b.shape[2:] == size else F.adaptive_avg_pool2d(b, size),
    )
