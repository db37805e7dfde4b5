"""distill: the student trained with the recipe's losses. Its baselines have the same budget: student_alone, kd, tuned_kd."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekd.assembly import (
    figures,
    launch,
    networks,
    peers,
    samples,
    search,
    teacher_figures,
    teacher_outputs,
    views,
    wiring,
)
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import DistillOutput, Structure
from edgekd.assembly.stage import Node, Work
from edgekd.devices import targets
from edgekd.profiling.advice import advise
from edgekd.recipe import Baseline, Recipe
from edgekd.recipe.base import need
from edgekd.recipe.loss import FeatureLoss, Loss
from edgekd.recipe.tune import Candidates, Range, Tune
from edgekd.registry import losses
from edgekd.results.findings import Finding

if TYPE_CHECKING:
    from edgekd.rewrite import Rewritten
    from edgekd.task.base import Purpose

ALWAYS = {"start_epoch": 0.0, "end_epoch": None, "warmup_epochs": 0.0}  # a baseline's terms do not come and go
BY_ITSELF = {"peers": (), "combine": "losses"}  # and are trained without peers
KD_GRID: dict[str, Candidates] = {"temperature": (2.0, 4.0, 8.0), "weight": (0.5, 1.0, 2.0, 4.0)}
KD_RANGES: dict[str, Candidates] = {
    "temperature": Range(low=1, high=16, log=True),
    "weight": Range(low=0.1, high=10, log=True),
}


def config(recipe: Recipe) -> dict[str, Any]:
    """Student, budget with its losses where there is one, seed; the teacher cache where it changes the student."""
    left_out = {"teacher_cache", "peers", "combine"}
    budget = recipe.distill.model_dump(mode="json", exclude=left_out) | _kept(recipe) if recipe.distill else None
    return {
        **networks.model_config(recipe, "student"),
        "distill": budget,
        "seed": recipe.seed,
        **networks.teaching(recipe.teacher),
        **peers.config(recipe),
    }


def _kept(recipe: Recipe) -> dict[str, Any]:
    """The teacher cache where it changes the student; whether features are kept, where they would be rounded.

    A loss counts whatever its weight is, for a search may change that.
    """
    settings = teacher_outputs.teacher_cache(recipe)
    if settings is None or settings.exact:
        return {}
    read = recipe.distill is not None and any(isinstance(loss, FeatureLoss) for loss in recipe.distill.losses)
    rounded = read and settings.features and settings.dtype != "float32"
    return {"teacher_cache": settings.model_dump(mode="json") | {"features": rounded}}


def alone(recipe: Recipe) -> Recipe:
    """The recipe of the baseline: no teacher, no peers, the task loss alone, everything else the same."""
    budget = need(recipe.distill, "distill")
    task: Loss = next((loss for loss in budget.losses if loss.kind == "task"), losses.get("task")())
    distill = budget.model_copy(
        update={
            "losses": (task.model_copy(update=ALWAYS | {"weight": 1.0}),),
            "teacher_cache": False,
            **BY_ITSELF,
        }
    )
    return recipe.model_copy(update={"teacher": None, "distill": distill, "tune": None})


def plain_kd(recipe: Recipe) -> Recipe:
    """The recipe of the baseline kd: of its losses task and kd alone, with their defaults where it has none."""
    budget, terms = need(recipe.distill, "distill"), list[Loss]()
    for kind in ("task", "kd") if recipe.data.teaches else ("kd",):
        own = [loss for loss in budget.losses if loss.kind == kind and loss.weight]
        terms += own or [losses.get(kind)()]
    plain = tuple(term.model_copy(update=ALWAYS) for term in terms)
    distill = budget.model_copy(update={"losses": plain, **BY_ITSELF})
    return recipe.model_copy(update={"distill": distill, "tune": None})


def tuned_kd(recipe: Recipe) -> Recipe:
    """The recipe of the baseline tuned_kd: plain kd, whose temperature and weight are searched for.

    The search is as long as the recipe's own and by the same rules; without one, or where that is a grid, it is a grid.
    """
    plain = plain_kd(recipe)
    own = recipe.tune or Tune(sampler="grid", search=KD_GRID)
    options = KD_GRID if own.sampler == "grid" else KD_RANGES
    index = [loss.kind for loss in need(plain.distill, "distill").losses].index("kd")
    search = {f"distill.losses[{index}].{option}": values for option, values in options.items()}
    return plain.model_copy(update={"tune": own.model_copy(update={"search": search})})


BASELINES: dict[Baseline, Callable[[Recipe], Recipe]] = {"student_alone": alone, "kd": plain_kd, "tuned_kd": tuned_kd}
"""What the recipe of each baseline is made with, in the order in which they are trained."""


@dataclass(frozen=True)
class Training:
    """A stage of this module: what is trained, as the models of a run call it, with which seed, by which recipe.

    Attributes:
        stage: Such as ``distill`` or ``kd.seed2``; the first seed's has no number.
        model: ``student_alone``, ``kd``, ``tuned_kd`` or ``distilled``.
        seed: The seed.
        recipe: What the stage sees.
    """

    stage: str
    model: str
    seed: int
    recipe: Recipe


def trainings(recipe: Recipe) -> Iterator[Training]:
    """All that a recipe trains of its student, the baselines first; each seed is a stage of its own."""
    if recipe.distill is None:
        return
    wanted = [name for name in BASELINES if name in recipe.baselines]
    if "student_alone" in wanted and not (networks.taught(recipe) and recipe.data.teaches):
        wanted.remove("student_alone")
    kinds = [(name, name, BASELINES[name](recipe)) for name in wanted]
    for stage, model, own in (*kinds, ("distill", "distilled", recipe)):
        for number in range(recipe.seeds):
            name = f"{stage}.seed{number}" if number else stage
            seed = recipe.seed + number
            yield Training(name, model, seed, own.model_copy(update={"seed": seed}))


def reads(recipe: Recipe) -> tuple[str, ...]:
    """Stages that a training of the student reads, without its search: its teachers, and images that are made."""
    return (*networks.teachers(recipe), *samples.made(recipe))


def advice(recipe: Recipe, structure: Structure) -> tuple[Finding, ...]:
    """Return advice on what of a student is slow in int8 on the recipe's devices."""
    if recipe.quantize is None:
        return ()
    io = next((export.io for export in recipe.export if export.format == "tflite"), "float32")
    formats = [export.format for export in recipe.export]
    trained = recipe.distill is not None
    return advise(structure.activations, structure.squeezes, formats, targets.of(recipe), io, trained=trained)


def structure(context: Context, rewritten: Rewritten, purpose: Purpose) -> Structure:
    """Return what the student is made of: what was rewritten, and what int8 may be slow at."""
    from edgekd.distill.reuse import Reused
    from edgekd.models import build
    from edgekd.rewrite import squeeze
    from edgekd.rewrite.activations import census

    student, example = rewritten.model, build.example(purpose.signature)
    activations = figures.measured(context, "advice on activation functions", lambda: census(student, example))
    squeezes = figures.measured(context, "advice on squeeze-excite blocks", lambda: len(squeeze.find(student, example)))
    return Structure(
        changes=tuple(str(change) for change in rewritten.changes),
        left=tuple(rewritten.left),
        reused=student.cost if isinstance(student, Reused) else "",
        activations=activations or {},
        squeezes=squeezes or 0,
    )


def _train(fabric: Any, context: Context) -> DistillOutput | None:
    import torch

    from edgekd.distill import mutual
    from edgekd.distill.reuse import Reused, adopt
    from edgekd.distill.terms import Terms
    from edgekd.models import build
    from edgekd.train.loop import Teaching, Trainable, fit

    recipe, budget = context.recipe, need(context.recipe.distill, "distill")
    first = fabric.global_rank == 0
    images = samples.images(context, context.progress if first else None)
    purpose = images.purpose
    example = build.example(purpose.signature)
    torch.manual_seed(recipe.seed)  # the student starts from the same weights with and without a teacher
    say = context.progress.say if first else None
    rewritten = networks.rewritten(recipe, purpose, say=say)
    student = rewritten.model
    made = structure(context, rewritten, purpose) if first else Structure()
    if first:
        figures.note_outputs_and_order(context, "student", student, images.purpose)
    if first and context.name == "distill":
        context.say(*advice(recipe, made))
    teacher = networks.teacher(recipe.teacher, "teacher", context, images) if recipe.teacher else None
    if teacher is not None and isinstance(student, Reused):
        adopt(student, teacher)
    facts = samples.facts(images)
    seen = views.opened(recipe.teacher, recipe.data, images)
    images = samples.judge(teacher, images, seen, context, fabric)
    wiring.refuse_probabilities(student, purpose, "student")
    others: tuple[mutual.Peer, ...] = ()
    if budget.peers:
        untrained = peers.untrained(recipe, purpose, say)
        terms, others = mutual.cohort(budget.losses, student, untrained, budget.combine, example, facts)
    else:
        terms = Terms(budget.losses, student, teacher, example, facts, views.examples(recipe.teacher, recipe.data, purpose))
    taught = None
    if first:
        if made.reused:
            context.progress.say(f"  reused: {made.reused}")
        role = teacher_figures.Role("teacher", student, teacher, terms, seen)
        taught = teacher_figures.before(role, images, context, fabric)
    name = "distilled" if networks.taught(recipe) else "student_alone"
    trainable = Trainable.tapped(name, student, terms, budget, recipe.seed, others)
    recording = teacher_outputs.recording(context, "teacher", fabric.global_rank)
    fitted = fit(fabric, trainable, images, recipe.data, context.progress, Teaching.of(teacher, terms, seen, recording))
    if not first:
        return None
    networks.save_fitted(context, fitted)
    peers.save(context, fitted.peers)
    return DistillOutput(fitted.curve, {peer.curve.model: peer.curve for peer in fitted.peers}, made, taught)


class DistillStage:
    """A student that is trained: with the recipe's losses, or as a baseline."""

    name = "distill"
    version = 8
    reused = True
    optional = False

    def packages(self, name: str) -> tuple[str, ...]:
        """Name what decides its result."""
        return launch.PACKAGES

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one for each training of the student."""
        for part in trainings(recipe):
            searched = (search.search_of(part.stage),) if part.recipe.tune else ()
            yield Node(part.stage, self, (*reads(part.recipe), *searched), part.recipe)

    def work(self, recipe: Recipe) -> Work:
        """Train."""
        return Work.TRAINING

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """Return what decides the student, whatever the stage is called."""
        return config(recipe)

    def run(self, context: Context) -> DistillOutput | None:
        """Write the best and last weights and the adapters of the student, and the best weights of each peer."""
        return launch.launch(context, need(context.recipe.distill, "distill"), _train)
