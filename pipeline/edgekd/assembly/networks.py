"""Networks of a recipe, as all stages that train build them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.assembly import black_box, wiring
from edgekd.assembly.context import Context
from edgekd.errors import ModelError
from edgekd.models import tied
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.data import Data
from edgekd.recipe.teacher import Teacher

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from edgekd.data.dataset import DataSet
    from edgekd.rewrite import Rewritten
    from edgekd.task.base import Purpose
    from edgekd.train.loop import Fitted


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
    model = network(need(section.model, f"{name}.model"), section.args, dataset.viewed(images.purpose, seen))
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
    return network(need(section.model, "teacher.model"), section.args, dataset.viewed(purpose, data))


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
    from edgekd.models.in_training import training_outputs
    from edgekd.recipe.student import Rewrite
    from edgekd.rewrite import Rewritten, rewrite

    section = need(recipe.student, "student")
    model = network(section.model, section.args, purpose, section.outputs if whole else "primary")
    if weights is None and section.weights:
        # Trained here, a student may get a new head; used as it is given, it needs the whole of its weights.
        left_out = load_weights(model, locate(section.weights), other_head=recipe.distill is not None, say=say)
        if left_out and say:
            say(f"  student.weights: {', '.join(left_out)} left out, for another number of classes; starts at random")
    rules = section.rewrite
    result = Rewritten(model) if rules == Rewrite() else rewrite(model, rules, example(purpose.signature))
    result.model.other_outputs = other_outputs(model)  # type: ignore[assignment]  # a plain attribute
    result.model.training_outputs = training_outputs(model)  # type: ignore[assignment]  # likewise
    for line in (*result.changes, *(f"left: {reason}" for reason in result.left)):
        if say:
            say(f"  student.rewrite: {line}")
    for index, loss in enumerate(recipe.distill.losses if recipe.distill else ()):
        if loss.reuses_teacher and loss.weight:
            from edgekd.distill.outputs import Reusing
            from edgekd.distill.terms import named
            from edgekd.models.user_file import note_plugin

            alike = untrained(need(recipe.teacher, "teacher"), purpose, recipe.data)
            note_plugin(type(loss))
            with named(loss, index):
                if not isinstance(loss, Reusing):
                    raise ModelError("reuses the teacher, but has no student()", "correct the loss: docs/extending.md")
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
