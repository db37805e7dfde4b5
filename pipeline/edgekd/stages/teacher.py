"""teacher: the weights of one who teaches, read from a checkpoint, trained, or taught by a teacher of its own.

A chain teacher → assistant → student is this stage several times: each sees a recipe whose ``teacher`` is the one it makes
and whose ``data`` is what this one sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgekd.assembly import black_box, figures, launch, networks, samples, teacher_figures, views, wiring
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import TeacherOutput
from edgekd.assembly.stage import Node, Work
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.teacher import Teacher
from edgekd.registry import losses
from edgekd.results.findings import Finding

if TYPE_CHECKING:
    from torch import nn

    from edgekd.data.dataset import DataSet


def _check(network: nn.Module, images: DataSet, context: Context) -> tuple[Finding, ...]:
    """Stop before something learns from a teacher that is wired wrongly, and return what is doubtful of it."""
    teacher, section = need(context.recipe.teacher, "teacher"), context.recipe.data
    box = teacher.black_box is not None
    normalized = section.mean is not None or (box and teacher.mean is not None)
    role = wiring.Role(context.name, teaches=True, box=box, normalized=normalized)
    return wiring.check(network, images, section, role, context.progress)


def _train(fabric: Any, context: Context) -> TeacherOutput | None:
    import torch

    from edgekd.data import dataset
    from edgekd.distill.terms import Terms
    from edgekd.models import build, checkpoints
    from edgekd.train.loop import Teaching, Trainable, fit

    recipe, section = context.recipe, need(context.recipe.teacher, "teacher")
    first = fabric.global_rank == 0
    images = dataset.load(recipe.data, context.progress if first else None, task=recipe.task)
    purpose, example = images.purpose, build.example(images.purpose.signature)
    model = build.network(need(section.model, "teacher.model"), section.args, purpose)
    if section.weights is not None:
        say = context.progress.say if first else None
        left_out = build.load_weights(model, checkpoints.locate(section.weights), other_head=True, say=say)
        if left_out and say:
            say(f"  {context.name}.weights: {', '.join(left_out)} left out, for another number of classes; starts at random")
    wiring.refuse_probabilities(model, purpose, context.name)
    teacher = None
    if section.teacher is not None:
        teacher = networks.teacher(section.teacher, f"{context.name}.teacher", context, images)
    chosen = section.distill.losses if section.distill else ()
    if section.train is not None:
        chosen = (losses.get("task")(label_smoothing=section.train.label_smoothing),)
    facts = samples.facts(images)
    seen = views.opened(section.teacher, recipe.data, images)
    images = samples.judge(teacher, images, seen, context, fabric)
    theirs = views.examples(section.teacher, recipe.data, purpose)
    terms = Terms(chosen, model, teacher, example, facts, theirs, f"{context.name}.distill")
    taught = None
    if first:
        figures.note_outputs_and_order(context, context.name, model, images.purpose)
        role = teacher_figures.Role(f"{context.name}.teacher", model, teacher, terms, seen)
        taught = teacher_figures.before(role, images, context, fabric)
    trainable = Trainable.tapped(context.name, model, terms, need(section.budget, "teacher.train"), recipe.seed)
    fitted = fit(fabric, trainable, images, recipe.data, context.progress, Teaching.of(teacher, terms, seen))
    if not first:
        return None
    dtype = getattr(torch, section.train.save_dtype if section.train else "float32")
    networks.save_fitted(context, fitted, dtype)
    return TeacherOutput(fitted.curve, taught)


class TeacherStage:
    """A teacher: read from its weights, trained, or taught by a teacher of its own."""

    name = "teacher"
    version = 9
    reused = True
    optional = False

    def packages(self, name: str) -> tuple[str, ...]:
        """Name what decides its result."""
        return launch.PACKAGES

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one for each teacher behind the student; those that are given come first: a file may not fit."""
        found: list[tuple[bool, Node]] = []
        views = recipe.teacher.views(recipe.data) if recipe.teacher else {}
        for name, section in recipe.teacher.lineage() if recipe.teacher else ():
            if section.ensemble:  # its members have stages, it has none
                continue
            seed = recipe.seed + len(found) if section.seed is None else section.seed
            own = section.model_copy(update={"data": None})  # whose view is this stage's data
            seen = recipe.model_copy(update={"teacher": own, "seed": seed, "data": views[name]})
            behind = section.teacher.stages(f"{name}.teacher") if section.teacher else ()
            found.append((section.budget is not None, Node(name, self, behind, seen)))
        yield from (node for _, node in sorted(found, key=lambda teacher: teacher[0]))

    def work(self, recipe: Recipe) -> Work:
        """Say whether it is trained here."""
        return Work.TRAINING if recipe.teacher is not None and recipe.teacher.budget is not None else Work.FILES

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Model, weights, budget with its losses, seed."""
        teacher = need(recipe.teacher, "teacher")
        if teacher.black_box:
            return {"teacher": black_box.config(teacher)}
        value = networks.model_config(recipe, "teacher")
        for key in ("train", "distill"):
            budget = getattr(teacher, key)
            if budget is not None:
                # only the student has peers
                value["teacher"][key] = budget.model_dump(mode="json", exclude={"peers", "combine"})
                value["seed"] = recipe.seed
        for key in ("outputs", "classes"):
            if getattr(teacher, key) != Teacher.model_fields[key].default:
                value["teacher"][key] = getattr(teacher, key)
        return value | networks.teaching(teacher.teacher)

    def run(self, context: Context) -> TeacherOutput | None:
        """Write ``weights.safetensors``; of a training the last epoch's as well."""
        teacher = need(context.recipe.teacher, "teacher")
        if teacher.budget is not None:
            return launch.launch(context, teacher.budget, _train)
        from edgekd.data import dataset
        from edgekd.models import build, checkpoints

        images = dataset.load(context.recipe.data, context.progress, task=context.recipe.task)
        if teacher.black_box:  # before anything is trained
            network = black_box.load(teacher, context.recipe.data, images, context.threads)
            doubts = _check(network, images, context)
            black_box.describe(teacher, context.out)
            return TeacherOutput(doubts=doubts)
        model = build.network(need(teacher.model, "teacher.model"), teacher.args, images.purpose)
        figures.note_outputs_and_order(context, context.name, model, images.purpose)
        weights = checkpoints.locate(need(teacher.weights, "teacher.weights"))
        build.load_weights(model, weights, say=context.progress.say)
        state = model.state_dict()
        doubts = _check(networks.arranged(model, teacher, images.classes, context.name).eval(), images, context)
        networks.save(state, context.out / "weights.safetensors")
        return TeacherOutput(doubts=doubts)
