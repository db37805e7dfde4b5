"""Networks of a recipe, as all stages that train build them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekd.assembly import black_box, wiring
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import Taught
from edgekd.metrics.base import shown
from edgekd.models import tied
from edgekd.recipe import Recipe
from edgekd.recipe.data import Data
from edgekd.recipe.teacher import Teacher

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from edgekd.data.dataset import DataSet
    from edgekd.distill.terms import Terms
    from edgekd.rewrite import Rewritten
    from edgekd.task.base import Purpose
    from edgekd.train.loop import Fitted
from edgekd.assembly.samples import val_logits


def model_config(recipe: Recipe, role: str) -> dict[str, Any]:
    """Return the configuration of ``role`` (``teacher`` or ``student``) before training, named as in the recipe."""
    from edgekd.models.build import source_key
    from edgekd.models.checkpoints import locate

    part = getattr(recipe, role)
    value: dict[str, Any] = {"model": source_key(part.model), "args": part.args}
    if part.weights:
        value["weights"] = locate(part.weights).key()
    if role == "student":
        value["rewrite"] = part.rewrite.model_dump(mode="json")
        value |= {} if part.outputs == "primary" else {"outputs": part.outputs}
    return {role: value}


def teacher(section: Teacher, name: str, context: Context, images: DataSet, student_sees: Data | None = None) -> nn.Module:
    """A teacher, from what its finished stage called ``name`` has left among the context's inputs.

    Args:
        section: The teacher.
        name: Its stage.
        context: The stage that asks; its recipe's images are ``images``.
        images: For the classes.
        student_sees: Data section of who is taught; left out, the recipe's.
    """
    from edgekd.data import dataset
    from edgekd.distill.teachers import Combination, Ensemble
    from edgekd.models.build import load_weights, network

    seen = section.seen(student_sees or context.recipe.data)
    if section.ensemble:
        members = {own: teacher(part, f"{name}.{own}", context, images, seen) for own, part in section.members().items()}
        return Ensemble(members, Combination(section.combine, section.temperature)).eval()
    if section.black_box:
        if seen != context.recipe.data:
            images = dataset.load(seen, task=context.recipe.task)
        return black_box.load(section, seen, images, context.threads).eval()
    assert section.model is not None
    model = network(section.model, section.args, dataset.viewed(images.purpose, seen))
    load_weights(model, context.inputs[name] / "weights.safetensors")
    return arranged(model, section, images.classes, name).eval()


def arranged(model: nn.Module, section: Teacher, classes: Sequence[str], place: str) -> nn.Module:
    """Let a teacher return logits in the order of the data's classes, as its section says."""
    from edgekd.task import primary

    probabilities = section.outputs == "probabilities"
    primary.rearrange(model, wiring.order_of(section, classes, place), probabilities=probabilities)
    return model


def untrained(section: Teacher, purpose: Purpose, data: Data) -> nn.Module:
    """A network like the teacher, with random weights, to see its layers; a black box shows none.

    ``data`` is what its student sees, and ``purpose`` what its student is for.
    """
    from torch import nn

    from edgekd.data import dataset
    from edgekd.distill.teachers import Combination, Ensemble
    from edgekd.models.build import network

    data = section.seen(data)
    if section.ensemble:
        members = {name: untrained(part, purpose, data) for name, part in section.members().items()}
        return Ensemble(members, Combination(section.combine, section.temperature))
    if section.black_box:
        return nn.Identity()
    assert section.model is not None
    return network(section.model, section.args, dataset.viewed(purpose, data))


def student(recipe: Recipe, purpose: Purpose, weights: Path | None = None, *, whole: bool = False) -> nn.Module:
    """The student, rewritten as the recipe says, with the weights of a finished stage or those it is given.

    With a loss that reuses a part of the teacher that part is in it, without its weights if there are none.

    Args:
        recipe: It decides the network.
        purpose: What the student is for.
        weights: Of a finished stage.
        whole: With all outputs that are shipped, a mapping where they are several; else it returns the primary one.
    """
    return rewritten(recipe, purpose, weights, whole=whole).model


def rewritten(
    recipe: Recipe, purpose: Purpose, weights: Path | None = None, say: Callable[[str], None] | None = None,
    *, whole: bool = False,
) -> Rewritten:  # fmt: skip
    """The student and what was rewritten in it.

    What is left out of the weights it starts from (a head for other classes) and what is rewritten is told to ``say``.
    """
    from edgekd.models.build import example, load_weights, network, one_input, other_outputs
    from edgekd.models.checkpoints import locate
    from edgekd.recipe.student import Rewrite
    from edgekd.rewrite import Rewritten, rewrite

    assert recipe.student is not None
    model = network(recipe.student.model, recipe.student.args, purpose, recipe.student.outputs if whole else "primary")
    if weights is None and recipe.student.weights:
        # Trained here, a student may get a new head; used as it is given, it needs the whole of its weights.
        left_out = load_weights(model, locate(recipe.student.weights), other_head=recipe.distill is not None, say=say)
        if left_out and say:
            say(f"  student.weights: {', '.join(left_out)} left out, for another number of classes; starts at random")
    rules = recipe.student.rewrite
    result = Rewritten(model) if rules == Rewrite() else rewrite(model, rules, example(purpose.signature))
    result.model.other_outputs = other_outputs(model)  # type: ignore[assignment]  # a plain attribute
    for line in (*result.changes, *(f"left: {reason}" for reason in result.left)):
        if say:
            say(f"  student.rewrite: {line}")
    for index, loss in enumerate(recipe.distill.losses if recipe.distill else ()):
        if loss.reuses_teacher and loss.weight:
            from edgekd.distill.terms import named
            from edgekd.models.user_file import note_plugin

            assert recipe.teacher is not None
            alike = untrained(recipe.teacher, purpose, recipe.data)
            note_plugin(type(loss))
            with named(loss, index):
                result = replace(result, model=loss.student(result.model, alike, one_input(purpose.signature)))
    if weights is not None:
        load_weights(result.model, weights)
    return result


def taught(recipe: Recipe) -> bool:
    """Return whether the student learns from more than labels: from a teacher, or from itself."""
    own = recipe.distill.losses if recipe.distill else ()
    return recipe.teacher is not None or any(loss.kind != "task" and loss.weight for loss in own)


def teaching(section: Teacher | None) -> dict[str, Any]:
    """Return the configuration of teaching besides the teachers' stages: how an ensemble is combined."""
    if section is None or not section.ensemble:
        return {}
    return {"teaching": {"members": list(section.members()), "combine": section.combine, "temperature": section.temperature}}


def look_at(
    teacher: nn.Module, student: nn.Module, terms: Terms, images: DataSet, seen: Sequence[DataSet], context: Context,
    fabric: Any, key: str,
) -> Taught:  # fmt: skip
    """Return what the choice of the teacher can be judged by, and say what that advises.

    ``seen`` is what the teacher sees, where that is not ``images``.
    """
    from edgekd.distill import advice
    from edgekd.distill.teachers import is_open, largest
    from edgekd.models.build import parameters

    fabric.to_device(teacher)
    # Losses on logits that soften them, of all teachers or of the one that they name.
    soft = [t for t in terms.terms if t.loss.needs_teacher and t.loss.reads == "logits" and hasattr(t.loss, "temperature")]
    logits = {
        name: val_logits(teacher, name, seen or [images], fabric.device) for name in (None, *(t.loss.teacher for t in soft))
    }
    itself = images.of == "teacher"  # it is what the student is judged by
    metric = images.purpose.task.metrics[0]
    score = None if itself else _score(logits[None], images)
    softness = tuple(
        advice.Softness(
            term.name,
            (temperature := cast(Any, term.loss).temperature),
            advice.entropy(logits[term.loss.teacher], temperature, getattr(term.loss, "standardize", False)),
        )
        for term in soft
    )
    found = Taught(parameters(student), parameters(largest(teacher)) if is_open(teacher) else None, score, softness)
    if score is not None:
        context.progress.say(f"  {key}: {shown(metric, score)} on validation")
    else:
        context.progress.say(f"  {key}: no labels; the student is measured by its agreement with it")
    context.say(*advice.gap(found.student_params, found.params, key), *advice.softness(softness))
    return found


def _score(output: NDArray[np.float32], images: DataSet) -> float:
    """Return the task's first metric of a primary output on the validation split."""
    metric, primary = images.purpose.task.metrics[0], images.purpose.signature.primary
    rows = metric.per_sample({primary: output}, images.val.labels, primary)
    assert rows is not None, "a task's first metric is about all of its outputs"
    return metric.reduce(rows)


def teachers(recipe: Recipe) -> tuple[str, ...]:
    """The stages of the teachers behind the student; empty without one."""
    return recipe.teacher.stages() if recipe.teacher else ()


def trained(recipe: Recipe) -> str:
    """The stage that the float student is from: ``distill``, or ``student`` where its weights are given."""
    return "distill" if recipe.distill else "student"


def float_name(recipe: Recipe) -> str:
    """Return the float student's name among the run's models: ``distilled``, or ``student`` where it is given."""
    return "distilled" if recipe.distill else "student"


def save(state: dict[str, Tensor], path: Path) -> None:
    """Write a state_dict as safetensors (the same bytes for the same tensors); tied weights stay tied."""
    tied.save(state, path)


def save_fitted(context: Context, fitted: Fitted, dtype: torch.dtype | None = None) -> None:
    """Write the best weights, as ``dtype`` where it is given, the last ones and the adapters."""
    save(fitted.best if dtype is None else tied.converted(fitted.best, dtype), context.out / "weights.safetensors")
    save(fitted.last, context.out / "last.safetensors")
    save(fitted.adapters, context.out / "adapters.safetensors")
