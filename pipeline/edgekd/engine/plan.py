"""A recipe → its stages in order, each with its key and whether it will run, is cached, or is blocked, and why.

Needs no torch: what decides a stage is the recipe, the keys of its inputs, the data's fingerprint and package versions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from edgekd import cache, environment, reads
from edgekd.assembly import search, teacher_outputs
from edgekd.assembly.stage import Node, Work, in_order
from edgekd.data import fingerprint, same_samples
from edgekd.distill.teacher_cache.rows import describe
from edgekd.engine import locked
from edgekd.errors import EdgekdError, StageError
from edgekd.loading.loaded import Loaded
from edgekd.recipe import Recipe
from edgekd.recipe.data import Data
from edgekd.recipe.quantize import Qat
from edgekd.recipe.train import Train
from edgekd.stages import STAGES, distill, quantize, tune
from edgekd.stages.profile import ProfileStage


@dataclass(frozen=True)
class Planned:
    """One stage of a plan.

    ``reason`` says why it runs or is blocked, ``material`` is what the key is made of, ``files`` are those that were hashed
    for it, ``note`` says what else it will find, ``problem`` is the error that blocks it.
    """

    node: Node
    key: str
    status: Literal["run", "cached", "blocked"]
    reason: str
    material: Mapping[str, Any] = field(default_factory=dict)
    entry: cache.Entry | None = None
    note: str = ""
    problem: EdgekdError | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return name, status and reason in one line; the other fields are long."""
        return f"Planned(name={self.name!r}, status={self.status!r}, reason={self.reason!r})"

    @property
    def watched(self) -> tuple[str, ...]:
        """Files that the finished stage has read besides what the recipe names, and that it is not used without."""
        return tuple(read.path for read in self.entry.reads if read.kind == "file") if self.entry else ()

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.node.name


def nodes(recipe: Recipe) -> list[Node]:
    """The stages of a recipe, each after what it reads."""
    return in_order(node for stage in STAGES for node in stage.nodes(recipe))


def trains(node: Node) -> bool:
    """Return whether a stage trains a network that is kept."""
    return node.stage.work(node.recipe) is Work.TRAINING


def make(loaded: Loaded, processes: int = 1) -> list[Planned]:
    """Plan a recipe's run. Looks at files, never at torch.

    A stage that cannot be planned (a missing file, say) is blocked, with the reason; so is all that reads it.

    Args:
        loaded: The recipe.
        processes: How many train together, each with batches of its own.

    Raises:
        UsageError: It is a lock, and files that it locks have changed.
    """
    locked.check(loaded)
    keys: dict[str, str] = {}
    made: dict[str, Path] = {}
    running: set[str] = set()
    planned: list[Planned] = []
    blocked: dict[str, str] = {}
    fingerprints: dict[Data, str] = {}
    data_problem: EdgekdError | None = None
    try:
        fingerprints[loaded.recipe.data] = fingerprint.of(loaded.recipe.data)
    except EdgekdError as error:
        data_problem = error
    for node in nodes(loaded.recipe):
        waits = next((name for name in (blocked if data_problem else node.inputs) if name in blocked), "")
        reason = f"{waits} is blocked" if waits else ""
        problem: EdgekdError | None = None
        material: dict[str, Any] = {}
        if not reason:
            try:
                if data_problem is not None:
                    raise data_problem
                if node.recipe.data not in fingerprints:
                    same_samples.same(loaded.recipe.data, node.recipe.data, libraries=False)
                    fingerprints[node.recipe.data] = fingerprint.of(node.recipe.data)
                with reads.hashing() as files:
                    material = _material(node, keys, fingerprints[node.recipe.data])
                work = node.stage.work(node.recipe)
                if processes > 1 and work in (Work.TRAINING, Work.TRIALS):
                    material["processes"] = processes
                if node.recipe.threads and work is not Work.FILES:
                    material["threads"] = node.recipe.threads
            except EdgekdError as error:
                reason, problem = str(error), error
            except OSError as error:  # a file that the recipe names, or one that such a file needs, may not be read
                problem = StageError(f"{error.filename} cannot be read: {error.strerror}", "correct its permissions")
                reason = str(problem)
        if reason:
            blocked[node.name] = reason
            planned.append(Planned(node, "", "blocked", reason, problem=problem))
            continue
        key = keys[node.name] = cache.key_of(material)
        step = replace(_look_up(loaded, node, key, material, running), files=files)
        if step.status == "run":
            running.add(node.name)
            note = _trials(loaded, node, keys, fingerprints[node.recipe.data], processes) or _records(node, made)
            step = replace(step, note=note)
        elif step.entry:
            made[node.name] = step.entry.path
        planned.append(step)
    return planned


def without(loaded: Loaded, steps: Sequence[Planned], failed: Collection[str]) -> list[Planned]:
    """Plan the rest of a run again after stages have failed.

    Each stage is left with the inputs that there are, under the key that it has in a recipe that asks for no more. Whatever
    else a key is made of (files, packages, settings) is as it was first planned: the finished stages were made of that. A
    device with no file left to measure is left out.

    Args:
        loaded: The recipe.
        steps: The stages that have not run.
        failed: Names of those that failed.
    """
    keys: dict[str, str] = {}
    gone = set(failed)
    planned: list[Planned] = []
    for step in steps:
        inputs = tuple(name for name in step.node.inputs if name not in gone)
        if isinstance(step.node.stage, ProfileStage) and not any(name.startswith("export.") for name in inputs):
            gone.add(step.name)
        if step.name in gone:
            continue
        found = {name: keys.get(name, step.material["inputs"][name]) for name in inputs}
        if found != step.material["inputs"]:
            material = {**step.material, "inputs": found}
            keys[step.name] = cache.key_of(material)
            found_now = _look_up(loaded, replace(step.node, inputs=inputs), keys[step.name], material, set())
            step = replace(found_now, files=step.files)
            if step.status == "run" and step.node.stage.reused:
                step = replace(step, reason=f"goes on without {', '.join(sorted(failed))}")
        planned.append(step)
    return planned


def _look_up(loaded: Loaded, node: Node, key: str, material: Mapping[str, Any], running: set[str]) -> Planned:
    if not node.stage.reused:
        reason = "measured anew in every run" if isinstance(node.stage, ProfileStage) else "makes the run folder"
        return Planned(node, key, "run", reason, material)
    entry, damage = cache.lookup(key, loaded.folder)
    if entry is not None:
        return Planned(node, key, "cached", "", material, entry)
    reason = damage or changed(cache.last(loaded.name, node.name), material)
    upstream = next((name for name in node.inputs if name in running), None)
    if not damage and upstream and reason.startswith("inputs"):
        reason = f"{upstream} runs"
    return Planned(node, key, "run", reason, material)


def _trials(loaded: Loaded, node: Node, keys: Mapping[str, str], fingerprint: str, processes: int) -> str:
    """How much a search has to do, and what of it is done."""
    if not isinstance(node.stage, tune.TuneStage):
        return ""
    inputs = {name: keys[name] for name in node.inputs}
    found = tune.finished(node.recipe, inputs, fingerprint, processes, loaded.folder)
    return f"{search.count(node.recipe)} trials{f', {found} of them done' if found else ''}"


def _records(node: Node, made: Mapping[str, Path]) -> str:
    """What a stage that is about to train will find of its teacher's outputs; ``made``: folders of finished stages."""
    settings, quantizer = teacher_outputs.teacher_cache(node.recipe), node.recipe.quantize
    if settings is None or not isinstance(node.stage, distill.DistillStage | quantize.QuantizeStage):
        return ""
    budget: Train
    if isinstance(node.stage, distill.DistillStage) and node.recipe.distill:
        taught_by, budget = "teacher", node.recipe.distill
    elif isinstance(quantizer, Qat):
        taught_by, budget = quantize.taught_by(node.recipe), quantize.budget(node.recipe)
    else:
        return ""
    for name in teacher_outputs.recorded(node.recipe, taught_by):
        if name not in made:
            return f"teacher cache: not known before {name} has run"
    place = teacher_outputs.records_folder(node.recipe, made, taught_by)
    draws = min(settings.draws or budget.epochs, budget.epochs)
    name = teacher_outputs.cached(node.recipe, taught_by)
    return f"teacher cache: {describe(place, draws, settings, budget.precision, name)}"


def changed(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """Return the first two differences between the last run and now, as ``distill.epochs 8 → 6``."""
    if before is None:
        return "no earlier result"
    old, new = dict(_flat(before)), dict(_flat(now))
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    # Another method has other keys, which are no changes of their own.
    methods = tuple(name.removesuffix("method") for name in names if name.endswith(".method"))
    names = [f"{name}method" for name in methods] + [name for name in names if not name.startswith(methods)]
    if not names:
        return "its result is no longer in the cache"
    names = [name for name in names if not name.startswith("inputs.")] or names  # its own change says more than one upstream
    shown = [
        f"{name.removeprefix('config.')} changed"
        if name.startswith(("inputs.", "data")) or _is_hash(new.get(name))
        else f"{name.removeprefix('config.')} {_short(old.get(name))} → {_short(new.get(name))}"
        for name in names[:2]
    ]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(shown) + more


def _material(node: Node, keys: Mapping[str, str], fingerprint: str) -> dict[str, Any]:
    declared = {"reads": reads.declared(node.recipe.reads)} if node.recipe.reads else {}
    task = {} if node.recipe.task == Recipe.model_fields["task"].default else {"task": node.recipe.task}
    return (
        declared
        | task
        | {
            "stage": node.stage.name,
            "version": node.stage.version,
            "config": node.stage.config(node.recipe, node.name),
            "inputs": {name: keys[name] for name in node.inputs},
            "data": fingerprint,
            "packages": environment.versions(node.stage.packages(node.name)),
        }
    )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
        for index, part in enumerate(value):
            yield from _flat(part, f"{prefix}[{index}]")
    else:
        yield prefix, list(value) if isinstance(value, tuple) else value


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"[0-9a-f]{64}", value) is not None


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
