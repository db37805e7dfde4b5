"""The training loss: the recipe's terms, the layers they need and the adapters in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.distill import teachers
from edgekd.distill.outputs import Batch, Facts, LossFunction, Outputs, RenamedError, adapter_of
from edgekd.errors import EdgekdError, LayerError, ModelError, cause_of
from edgekd.models.user_file import note_plugin
from edgekd.recipe.loss import FeatureLoss, Loss, Reads
from edgekd.registry import package_of
from edgekd.taps.forms import as_map, as_vector
from edgekd.taps.pairing import Pair, match
from edgekd.taps.taps import Survey, survey


@dataclass(frozen=True)
class Term:
    """One loss with its name in curves, and the layers it compares.

    Attributes:
        name: Its name in curves.
        loss: The loss with its options.
        function: The loss as a function of outputs.
        pairs: The layers.
    """

    name: str
    loss: Loss
    function: LossFunction
    pairs: tuple[Pair, ...]

    @property
    def own(self) -> bool:
        """True if the student is its own teacher."""
        return self.loss.reads == "own_stages"


class Terms(nn.Module):
    """All terms of a training loss; its parameters are the adapters'.

    Args:
        losses: The recipe's losses.
        student: The student.
        teacher: The teacher, or None.
        example: Input of the student: images (1×C×H×W), or other inputs by name.
        facts: What is known of the data.
        seen: Input of a teacher that sees something else than the student, by the name that losses give it (None: the only
            one).
        key: Where the losses stand in the recipe.

    Attributes:
        student_paths: Taps the student needs.
        teacher_paths: Taps the teacher needs.
        adapters: What is trained beside the student, by the name of its term.

    Raises:
        LayerError: A loss needs a teacher, or layers that a network does not have.
        ModelError: No loss has a weight.
    """

    def __init__(
        self, losses: Sequence[Loss], student: nn.Module, teacher: nn.Module | None,
        example: Tensor | Mapping[str, Tensor], facts: Facts,
        seen: Mapping[str | None, Tensor] | None = None, key: str = "distill",
    ) -> None:  # fmt: skip
        super().__init__()
        found: list[Term] = []
        surveys: dict[nn.Module, Survey] = {}
        self.adapters = nn.ModuleDict()
        self.criterion = facts.criterion
        for index, loss in enumerate(losses):
            if not loss.weight:
                continue
            note_plugin(type(loss))
            same = sum(before.kind == loss.kind for before in losses[:index])
            name = f"{loss.kind}_{same + 1}" if same else loss.kind
            pairs: tuple[Pair, ...] = ()
            with named(loss, index, key):
                if loss.needs_teacher and teacher is None:
                    raise ModelError("needs a teacher", "add teacher:")
                if isinstance(loss, FeatureLoss):
                    chosen = None if loss.layers == "auto" else loss.layers
                    learned_from = (
                        student if loss.reads == "own_stages" else teachers.member(cast(nn.Module, teacher), loss.teacher)
                    )
                    theirs = example if seen is None else seen[loss.teacher]
                    for network, images in ((student, _image(example)), (learned_from, _image(theirs))):
                        if network not in surveys:
                            surveys[network] = survey(network, images)
                    pairs = match(surveys[student], surveys[learned_from], loss.reads, chosen)
                    pairs = teachers.belonging(pairs, loss.teacher)
                if not isinstance(loss, LossFunction):
                    raise ModelError("cannot be called", f"give {type(loss).__name__} a __call__: docs/extending.md")
                adapter = adapter_of(loss, pairs, facts)
            if adapter is not None:
                self.adapters[name] = adapter
            found.append(Term(name, loss, loss, pairs))
        if not found:
            raise ModelError(f"{key}.losses: all weights are 0", "give at least one loss a weight above 0")
        self.terms = tuple(found)
        self._members: tuple[str, ...] = ()
        if isinstance(teacher, teachers.Ensemble):
            self._members, self._combination = tuple(teacher.members), teacher.combination
        self._stored = teacher.train_logits if isinstance(teacher, teachers.Stored) else None
        taps = [(term.own, p) for term in self.terms for p in term.pairs]
        own = [p.teacher.tap for own, p in taps if own]
        self.student_paths = tuple(dict.fromkeys([*(p.student.tap for _, p in taps), *own]))
        self.teacher_paths = tuple(dict.fromkeys(p.teacher.tap for own, p in taps if not own))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(term.name for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """True if any term looks at the teacher."""
        return any(term.loss.needs_teacher for term in self.terms)

    def forward(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor] | None, batch: Batch, epoch: float
    ) -> tuple[Tensor, ...]:
        """Return the weighted value of each term; 0 for one whose time has not come or is over.

        Args:
            student: ``(logits, *features)`` in the order of ``student_paths``.
            teacher: The same of the teacher, or None; of several teachers the logits are N×teachers×classes.
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
            ours, theirs = self._outputs(term, student, teacher, batch)
            try:
                each = [term.function(ours, one, batch, adapter) for one in self._apart(term, ours, theirs)]
            except RenamedError as error:
                raise ModelError(f"the loss {term.name} cannot be computed: {error.message}", error.hint) from error
            except Exception as error:
                if isinstance(error, EdgekdError) or (package := package_of(term.loss)) is None:
                    raise
                message = f"the loss {term.name} of {package} failed: {type(error).__name__}: {cause_of(error)}"
                raise ModelError(message, "its author has to correct it; the log has the traceback") from error
            values.append(factor * (each[0] if len(each) == 1 else torch.stack(each).mean()))
        return tuple(values)

    def _apart(self, term: Term, ours: Outputs, teacher: Outputs | None) -> list[Outputs | None]:
        """The teachers that a term learns from: one, unless the loss with each counts."""
        if teacher is None or teacher.primary.ndim == ours.primary.ndim:
            return [teacher]
        of_each = teacher.primary.unbind(1) if term.loss.needs_teacher else teacher.primary.unbind(1)[:1]
        return [replace(teacher, primary=primary) for primary in of_each]

    def _logits(self, term: Term, logits: Tensor, batch: Batch) -> Tensor:
        """The logits that a term learns from: the only teacher's, those of the one it names, all combined, or all apart."""
        if self._stored is not None:
            return self._stored[batch.indices.cpu()].to(logits.device)
        if not self._members:
            return logits
        name = term.loss.teacher
        if name is not None:
            return logits[:, self._members.index(name)]
        return logits if self._combination.rule == "losses" else self._combination(logits, batch.target)

    def _outputs(
        self, term: Term, student: Sequence[Tensor], teacher: Sequence[Tensor] | None, batch: Batch
    ) -> tuple[Outputs, Outputs | None]:
        """What a term is given; of the student as its own teacher without a gradient."""
        ours = dict(zip(self.student_paths, student[1 : 1 + len(self.student_paths)], strict=True))
        theirs = ours if term.own else dict(zip(self.teacher_paths, teacher[1:] if teacher else (), strict=True))
        pairs = [_as_read(term.loss.reads, p, ours[p.student.tap], theirs[p.teacher.tap]) for p in term.pairs]
        learning = Outputs(student[0], tuple(s for s, _ in pairs))
        if term.own:
            return learning, Outputs(student[0].detach(), tuple(t.detach() for _, t in pairs))
        if teacher is None:
            return learning, None
        return learning, Outputs(self._logits(term, teacher[0], batch), tuple(t for _, t in pairs))


def _image(example: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Return the images in which a loss compares layers.

    Raises:
        ModelError: There are none.
    """
    found = [example] if isinstance(example, Tensor) else list(example.values())
    if len(found) != 1 or found[0].ndim != 4:
        raise ModelError("compares layers of networks of images", "use a loss that compares outputs, such as mse_logits")
    return found[0]


@contextmanager
def named(loss: Loss, index: int, key: str = "distill") -> Iterator[None]:
    """Say which loss it is that finds no layers: number ``index`` of those at ``key``."""
    try:
        yield
    except ModelError as error:
        raise LayerError(f"{key}.losses[{index}] ({loss.kind}): {error.message}", error.hint) from error


def _nothing(logits: Tensor, adapter: nn.Module | None) -> Tensor:
    """A zero with a gradient: all terms may rest at a time, and several processes wait for that of every parameter."""
    return 0 * logits.sum() + sum(0 * p.sum() for p in (adapter.parameters() if adapter else ()))


def _as_read(reads: Reads, p: Pair, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Two features in the form in which a loss compares them."""
    if reads == "embedding":
        return as_vector(s, p.student.form), as_vector(t, p.teacher.form)
    if reads == "attention":
        return s, t
    s, t = as_map(s, p.student.form, p.student.size), as_map(t, p.teacher.form, p.teacher.size)
    return (s, t) if reads == "own_stages" else _same_size(s, t)


def _same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the larger of two maps to the smaller's height and width."""
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    return (
        a if a.shape[2:] == size else F.adaptive_avg_pool2d(a, size),
        b if b.shape[2:] == size else F.adaptive_avg_pool2d(b, size),
    )
