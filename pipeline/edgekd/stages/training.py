"""What the stages that train have in common."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekd import cache, errors, sources, tied, watch
from edgekd.background import isolate_children, killed
from edgekd.bytecode import from_source
from edgekd.distill import records
from edgekd.errors import EdgekdError
from edgekd.progress import Progress, Silent
from edgekd.recipe import Recipe, Teacher
from edgekd.recipe_data import Data
from edgekd.recipe_distill import TeacherCache, Train
from edgekd.records_json import to_json
from edgekd.stages import black_box, views, wiring
from edgekd.stages.context import Context

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from edgekd.data import DataSet
    from edgekd.distill.loop import Fitted
    from edgekd.distill.teacher_cache import Recording
    from edgekd.distill.terms import Terms
    from edgekd.rewrite import Rewritten

_FAILURE = "failure.json"
_READS = "reads.json"  # what a training process of several has read
_JUDGED = "judged.npy"  # classes that the teacher finds in the validation images, where they have no labels
PACKAGES = ("torch", "torchvision", "lightning-fabric", "numpy")


def model_config(recipe: Recipe, role: str) -> dict[str, Any]:
    """What decides the network called ``role`` (``teacher`` or ``student``) before it is trained, named as in the recipe."""
    from edgekd.checkpoints import locate
    from edgekd.models import source_key

    part = getattr(recipe, role)
    value: dict[str, Any] = {"model": source_key(part.model), "args": part.args}
    if part.weights:
        value["weights"] = locate(part.weights).key()
    if role == "student":
        value["rewrite"] = part.rewrite.model_dump(mode="json")
    return {role: value}


def launch(context: Context, budget: Train, work: Callable[[Any, Context], None]) -> None:
    """Call ``work(fabric, context)`` in each training process; process 0 writes the outputs.

    One process on a CPU or a GPU; ``--devices N`` starts N of them, and ``torchrun`` brings its own.
    """
    import torch
    from lightning_fabric import Fabric
    from torch.multiprocessing.spawn import ProcessExitedException

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # must be set before CUDA starts to have any effect
    gpu = torch.cuda.is_available()
    precision = budget.precision
    if precision == "auto":
        precision = ("bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed") if gpu else "32-true"
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    several = context.devices > 1 or under_torchrun
    fabric = Fabric(
        accelerator="cuda" if gpu else "cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if under_torchrun else context.devices,
        strategy=("ddp" if under_torchrun else "ddp_spawn") if several else "auto",
        precision=precision,
    )
    part = partial(_in_process, context=context, work=work)
    if under_torchrun:
        fabric.launch()
        part(fabric)
        fabric.barrier()
        return
    isolate_children()
    others = multiprocessing.active_children()  # what trains beside this one
    try:
        fabric.launch(part)
        for told in sorted(context.out.glob(f"*.{_READS}")):
            watch.take_over(context.read_own(told.name))
            told.unlink()
    except BaseException as error:
        for child in multiprocessing.active_children():  # those of this training would go on to the end, for nobody
            if child not in others:
                child.terminate()
        told = context.out / _FAILURE
        if isinstance(error, ProcessExitedException) and error.signal_name == "SIGKILL":
            raise killed(f"process {error.error_index + 1} of {context.devices}") from error
        if not isinstance(error, Exception) or not told.exists():
            raise
        kind, *words = json.loads(told.read_text(encoding="utf-8"))
        raise getattr(errors, kind, errors.StageError)(*words) from error


def _in_process(fabric: Any, context: Context, work: Callable[[Any, Context], None]) -> None:
    seed(context.recipe.seed, context.threads)
    try:
        with watch.recording(context.files) as recorder, from_source():
            work(fabric, context)
        if context.devices > 1:  # a process of its own, which the stage does not see into
            context.write(f"{fabric.global_rank}.{_READS}", recorder.told())
    except EdgekdError as error:
        if context.devices > 1:  # its words would drown in the traceback that comes back from a process
            with suppress(OSError):  # the disk that failed may be this one
                part = context.out / f"{_FAILURE}.{fabric.global_rank}"
                part.write_text(json.dumps([type(error).__name__, error.message, error.hint]), encoding="utf-8")
                part.replace(context.out / _FAILURE)
        raise


def seed(value: int, threads: int) -> None:
    """Make torch deterministic in this process."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(value)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill every fresh tensor, in case a kernel forgets to: benchmarks/results/distill_speed.md has the price.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def teacher(section: Teacher, name: str, context: Context, images: DataSet, student_sees: Data | None = None) -> nn.Module:
    """A teacher, from what its finished stage called ``name`` has left among the context's inputs.

    Args:
        section: The teacher.
        name: Its stage.
        context: The stage that asks; its recipe's images are ``images``.
        images: For the classes.
        student_sees: Data section of who is taught; left out, the recipe's.
    """
    from edgekd.distill.teachers import Combination, Ensemble
    from edgekd.models import build, load_weights

    seen = section.seen(student_sees or context.recipe.data)
    if section.ensemble:
        members = {own: teacher(part, f"{name}.{own}", context, images, seen) for own, part in section.members().items()}
        return Ensemble(members, Combination(section.combine, section.temperature)).eval()
    if section.black_box:
        if seen != context.recipe.data:
            from edgekd import data

            images = data.load(seen)
        return black_box.load(section, seen, images, context.threads).eval()
    assert section.model is not None
    model = build(section.model, section.args, len(images.classes), seen)
    load_weights(model, context.inputs[name] / "weights.safetensors")
    return arranged(model, section, images.classes, name).eval()


def arranged(model: nn.Module, section: Teacher, classes: Sequence[str], place: str) -> nn.Module:
    """Let a teacher return logits in the order of the data's classes, as its section says."""
    from edgekd import logits

    probabilities = section.outputs == "probabilities"
    logits.rearrange(model, wiring.order_of(section, classes, place), probabilities=probabilities)
    return model


def images(context: Context, progress: Progress | None = None) -> DataSet:
    """The data as a stage sees it, with the images and the judgements that stages before it have made."""
    import numpy as np

    from edgekd import data

    found = data.load(context.recipe.data, progress, context.inputs.get("synthesize"))
    judged = context.inputs["distill"] / _JUDGED if "distill" in context.inputs else None
    return data.judged(found, np.load(judged, allow_pickle=False)) if judged and judged.exists() else found


def judge(teacher: nn.Module | None, found: DataSet, seen: Sequence[DataSet], context: Context, fabric: Any) -> DataSet:
    """The data with what the teacher says of the validation images, where nothing else does; kept for later stages.

    ``seen`` is what the teacher sees, where that is not ``found``.
    """
    if found.train.labelled or teacher is None:
        return found
    import numpy as np

    from edgekd import data

    fabric.to_device(teacher)
    empty = not len(found.val)
    said = np.zeros(0, np.int64) if empty else val_logits(teacher, None, seen or [found], fabric.device).argmax(1)
    if fabric.global_rank == 0:
        np.save(context.out / _JUDGED, said)
    return data.judged(found, said)


def untrained(section: Teacher, num_classes: int, data: Data) -> nn.Module:
    """A network like the teacher, with random weights, to see its layers; a black box shows none."""
    from torch import nn

    from edgekd.distill.teachers import Combination, Ensemble
    from edgekd.models import build

    data = section.seen(data)
    if section.ensemble:
        members = {name: untrained(part, num_classes, data) for name, part in section.members().items()}
        return Ensemble(members, Combination(section.combine, section.temperature))
    if section.black_box:
        return nn.Identity()
    assert section.model is not None
    return build(section.model, section.args, num_classes, data)


def teacher_cache(recipe: Recipe) -> TeacherCache | None:
    """The recipe's settings for what is kept of the teacher; None: nothing is."""
    chosen = recipe.distill.teacher_cache if recipe.distill else False
    return chosen if isinstance(chosen, TeacherCache) else None


def recorded(recipe: Recipe, taught_by: str) -> tuple[str, ...]:
    """The stages that decide what is recorded: of the teacher, or of each of several, and of synthesized images."""
    teachers = recipe.teacher.stages() if recipe.teacher and taught_by == "teacher" else (taught_by,)
    return (*teachers, "synthesize") if recipe.data.made else teachers


def records_folder(recipe: Recipe, made: Mapping[str, Path], taught_by: str) -> Path:
    """Where the outputs of the network that the stage ``taught_by`` made, or of several teachers, are kept.

    A stage's key says what its network sees and is built of; its weights may still be others, trained with another number of
    threads. So may synthesized images, which all seeds of a recipe share. The seed of the draws is the recipe's, in
    quantization-aware training too, which thus reads what distillation wrote.

    Args:
        recipe: The recipe.
        made: Folders of finished stages, which are named by their keys.
        taught_by: The stage.
    """
    assert recipe.distill is not None
    folders = [made[name] for name in recorded(recipe, taught_by)]
    material: dict[str, Any] = {"stages": [[folder.name, _digest(folder)] for folder in folders]}
    if taught_by == "teacher" and views.differ(recipe.teacher, recipe.data):  # its views get the draws of the student's
        material["student"] = recipe.data.image_size
    return records.folder(cache.key_of(material), recipe.seed, recipe.distill.batch_size)


def _digest(folder: Path) -> str:
    """Hash of what a finished stage leaves to teach with: weights, what a black box has written of its files, or images."""
    found = cache.digests(folder)
    return next(found[name] for name in ("weights.safetensors", black_box.ABOUT, sources.MADE) if name in found)


def recording(context: Context, taught_by: str, rank: int) -> Recording | None:
    """How the outputs of a finished stage's network are kept; None: the recipe has no teacher cache. Process 0 tells."""
    from edgekd.distill.teacher_cache import Recording

    recipe, settings = context.recipe, teacher_cache(context.recipe)
    if settings is None or (taught_by == "teacher" and recipe.teacher is None):
        return None
    progress = context.progress if rank == 0 else Silent()
    return Recording(records_folder(recipe, context.inputs, taught_by), settings, cached(recipe, taught_by), progress.say)


def cached(recipe: Recipe, taught_by: str) -> str:
    """What the network of which records are kept is called."""
    part = recipe.teacher if taught_by == "teacher" else recipe.student
    assert part is not None
    return part.model or "several teachers"


def student(recipe: Recipe, num_classes: int, weights: Path | None = None) -> nn.Module:
    """The student, rewritten as the recipe says, with the weights of a finished stage or those it is given.

    With a loss that reuses a part of the teacher that part is in it, without its weights if there are none.
    """
    return rewritten(recipe, num_classes, weights).model


def rewritten(
    recipe: Recipe, num_classes: int, weights: Path | None = None, say: Callable[[str], None] | None = None
) -> Rewritten:
    """The student and what was rewritten in it.

    What is left out of the weights it starts from (a head for other classes) and what is rewritten is told to ``say``.
    """
    from edgekd.checkpoints import locate
    from edgekd.models import build, dropped, example, load_weights
    from edgekd.rewrite import rewrite

    assert recipe.student is not None
    model = build(recipe.student.model, recipe.student.args, num_classes, recipe.data)
    if weights is None and recipe.student.weights:
        # Trained here, a student may get a new head; used as it is given, it needs the whole of its weights.
        left_out = load_weights(model, locate(recipe.student.weights), other_head=recipe.distill is not None, say=say)
        if left_out and say:
            say(f"  student.weights: {', '.join(left_out)} left out, for another number of classes; starts at random")
    result = rewrite(model, recipe.student.rewrite, example(recipe.data))
    result.model.dropped_outputs = dropped(model)  # type: ignore[assignment]  # a plain attribute
    for line in (*result.changes, *(f"left: {reason}" for reason in result.left)):
        if say:
            say(f"  student.rewrite: {line}")
    for index, loss in enumerate(recipe.distill.losses if recipe.distill else ()):
        if loss.reuses_teacher and loss.weight:
            from edgekd.distill.terms import named
            from edgekd.user_file import note_plugin

            assert recipe.teacher is not None
            alike = untrained(recipe.teacher, num_classes, recipe.data)
            note_plugin(type(loss))
            with named(loss, index):
                result = replace(result, model=loss.student(result.model, alike, example(recipe.data)))
    if weights is not None:
        load_weights(result.model, weights)
    return result


def taught(recipe: Recipe) -> bool:
    """Whether the student learns from more than labels: from a teacher, or from itself."""
    own = recipe.distill.losses if recipe.distill else ()
    return recipe.teacher is not None or any(loss.kind != "task" and loss.weight for loss in own)


def teaching(section: Teacher | None) -> dict[str, Any]:
    """What decides the lessons of a teacher beside its stages: how an ensemble is combined."""
    if section is None or not section.ensemble:
        return {}
    return {"teaching": {"members": list(section.members()), "combine": section.combine, "temperature": section.temperature}}


def look_at(
    teacher: nn.Module, student: nn.Module, terms: Terms, images: DataSet, seen: Sequence[DataSet], context: Context,
    fabric: Any, key: str,
) -> None:  # fmt: skip
    """Write ``teacher.json``, what the choice of the teacher can be judged by, and say what that advises.

    ``seen`` is what the teacher sees, where that is not ``images``.
    """
    from edgekd.distill import advice
    from edgekd.distill.teachers import is_open, largest
    from edgekd.models import parameters

    fabric.to_device(teacher)
    # Losses on logits that soften them, of all teachers or of the one that they name.
    soft = [t for t in terms.terms if t.loss.needs_teacher and t.loss.reads == "logits" and hasattr(t.loss, "temperature")]
    logits = {
        name: val_logits(teacher, name, seen or [images], fabric.device) for name in (None, *(t.loss.teacher for t in soft))
    }
    itself = images.measure == "agreement"  # it is what the student is judged by
    top1 = None if itself else float((logits[None].argmax(1) == images.val.labels).mean())
    softness = [
        {
            "term": term.name,
            "temperature": (t := cast(Any, term.loss).temperature),
            "entropy": advice.entropy(logits[term.loss.teacher], t, getattr(term.loss, "standardize", False)),
        }
        for term in soft
    ]
    sizes = parameters(student), parameters(largest(teacher)) if is_open(teacher) else None
    value = {"student_params": sizes[0], "params": sizes[1], "val_top1": top1, "softness": softness}
    context.write("teacher.json", value)
    if top1 is not None:
        context.progress.say(f"  {key}: {100 * top1:.1f} % on validation")
    else:
        context.progress.say(f"  {key}: no labels; the student is judged by its agreement with it")
    for line in (*advice.gap(*sizes, key), *advice.softness(softness)):
        context.progress.say(f"  advice: {line}")


def val_logits(teacher: nn.Module, name: str | None, views: Sequence[DataSet], device: Any) -> NDArray[np.float32]:
    """Logits on the validation split, N×classes, of a teacher, or of the one called ``name``, that sees ``views``."""
    from edgekd.distill import looks, teachers

    network = teachers.member(teacher, name)
    if isinstance(network, teachers.Stored):
        return network.val_logits.numpy()
    if name is not None and len(views) > 1:  # each sees its own
        views = [views[list(cast(teachers.Ensemble, teacher).members).index(name)]]
    return looks.logits(network, views, device).float().cpu().numpy()


def trained(recipe: Recipe) -> str:
    """The stage that the float student is from: ``distill``, or ``student`` where its weights are given."""
    return "distill" if recipe.distill else "student"


def float_name(recipe: Recipe) -> str:
    """What the float student is called among the run's models: ``distilled``, or ``student`` where it is given."""
    return "distilled" if recipe.distill else "student"


def save(state: dict[str, Tensor], path: Path) -> None:
    """Write a state_dict as safetensors (the same bytes for the same tensors); tied weights stay tied."""
    tied.save(state, path)


def save_fitted(context: Context, fitted: Fitted, dtype: torch.dtype | None = None) -> None:
    """Write the best weights, as ``dtype`` where it is given, the last ones, the adapters and the curve."""
    save(fitted.best if dtype is None else tied.converted(fitted.best, dtype), context.out / "weights.safetensors")
    save(fitted.last, context.out / "last.safetensors")
    save(fitted.adapters, context.out / "adapters.safetensors")
    context.write("curve.json", to_json(fitted.curve))
