"""Figures by which the choice of a teacher can be judged, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from edgekd.assembly import figures, layers
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import Taught
from edgekd.assembly.samples import val_logits
from edgekd.errors import ModelError
from edgekd.metrics.base import shown, value_of
from edgekd.task.finite import FORWARD_HINT, not_finite

if TYPE_CHECKING:
    from torch import nn

    from edgekd.data.dataset import DataSet
    from edgekd.distill.terms import Terms


@dataclass(frozen=True)
class Role:
    """A network that is taught, and its teacher.

    Attributes:
        key: The teacher's key in the recipe, such as ``teacher`` or ``teacher.teacher``.
        student: The network that is taught.
        teacher: The teacher; None where labels or peers teach.
        terms: The loss.
        views: The samples as the teacher sees them, or as each of an ensemble does; empty: as the student does.
    """

    key: str
    student: nn.Module
    teacher: nn.Module | None
    terms: Terms
    views: Sequence[DataSet]


def before(role: Role, images: DataSet, context: Context, fabric: Any) -> Taught | None:
    """Report which layers teach which, and return figures of the teacher; None without one, or in a trial of a search."""
    for line in layers.told(role.terms):
        context.progress.say(f"  {line}")
    if role.teacher is None or context.name == "trial":
        return None
    work = partial(_measured, role, role.teacher, images, context, fabric)
    return figures.measured(context, f"advice on {'the teacher' if role.key == 'teacher' else role.key}", work)


def _measured(role: Role, teacher: nn.Module, images: DataSet, context: Context, fabric: Any) -> Taught:
    from edgekd.distill import advice
    from edgekd.distill.outputs import Softening
    from edgekd.distill.teachers import is_open, largest
    from edgekd.models.build import parameters

    fabric.to_device(teacher)
    # losses on logits that soften them, of all teachers or of the one that they name
    compared = [term for term in role.terms.terms if term.loss.needs_teacher and term.loss.reads == "logits"]
    soft = [(term, term.loss) for term in compared if isinstance(term.loss, Softening)]
    names = (None, *(loss.teacher for _, loss in soft))
    logits = {name: val_logits(teacher, name, role.views or [images], fabric.device) for name in names}
    if (damaged := not_finite(logits[None])) is not None:
        given = f"the {role.key} gives {damaged.kind} for {damaged.rows} of {damaged.of} validation {images.noun}s"
        raise ModelError(given, FORWARD_HINT)
    softness = tuple(
        advice.Softness(
            term.name,
            loss.temperature,
            advice.entropy(logits[loss.teacher], loss.temperature, getattr(loss, "standardize", False)),
        )
        for term, loss in soft
    )
    value = None
    if images.of == "teacher":  # the student is measured by its agreement with it
        context.progress.say(f"  {role.key}: no labels; the student is measured by its agreement with it")
    else:
        metric, primary = images.purpose.task.metrics[0], images.purpose.signature.primary
        value = value_of(metric, logits[None], images.val.labels, primary)
        if not math.isfinite(value):
            what = f"{metric.label} of the teacher is {value} on the validation split"
            raise ModelError(what, "correct the data or the metric")
        context.progress.say(f"  {role.key}: {shown(metric, value)} on validation")
    found = Taught(parameters(role.student), parameters(largest(teacher)) if is_open(teacher) else None, value, softness)
    context.say(*advice.gap(found.student_params, found.params, role.key), *advice.softness(softness))
    return found
