"""Records of a run, from what its finished stages found: trainings, teachers, layers, devices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from edgekd.assembly.context import Context
from edgekd.assembly.outputs import (
    ALL_INT8,
    DistillOutput,
    EvaluateOutput,
    ExportOutput,
    Int8Graph,
    ProfileOutput,
    QuantizeOutput,
    Structure,
    StudentOutput,
    Taught,
    TeacherOutput,
)  # fmt: skip
from edgekd.recipe import Baseline
from edgekd.results.findings import Finding
from edgekd.results.layers import LayerRecord, RepairCost, RepairRecord
from edgekd.results.run import Curve


def _teachers(context: Context) -> list[str]:
    """Return the stages of the teachers; an ensemble has none of its own."""
    lineage = context.recipe.teacher.lineage() if context.recipe.teacher else ()
    return [name for name, _ in lineage if name in context.inputs]


def curves(context: Context) -> tuple[Curve, ...]:
    """Return all trainings; one of another run, or of another part of this one, is called by the first that needed it."""
    named: list[tuple[str, Curve | None]] = [
        (name, context.output(TeacherOutput, name).curve) for name in _teachers(context)
    ]
    for stage in (*get_args(Baseline), "distill"):
        if stage in context.inputs:
            model = "distilled" if stage == "distill" else stage
            named.append((model, context.output(DistillOutput, stage).curve))
    found = [replace(curve, model=model) for model, curve in named if curve is not None]
    if "quantize" in context.inputs and (curve := context.output(QuantizeOutput, "quantize").curve) is not None:
        found.append(curve)
    if "distill" in context.inputs:
        found += context.output(DistillOutput, "distill").peers.values()
    return tuple(found)


def structure(context: Context) -> Structure | None:
    """Return what the student is made of; None without one."""
    if "distill" in context.inputs:
        return context.output(DistillOutput, "distill").structure
    return context.output(StudentOutput, "student").structure if "student" in context.inputs else None


def taught(context: Context) -> dict[str, Taught]:
    """Return what is known of the teacher of each network that has one, by the network's stage."""
    found = {name: context.output(TeacherOutput, name).taught for name in _teachers(context)}
    if "distill" in context.inputs:
        found["distill"] = context.output(DistillOutput, "distill").taught
    return {name: facts for name, facts in found.items() if facts is not None}


def doubts(context: Context) -> Iterator[Finding]:
    """Yield the doubts about networks whose weights were given."""
    teachers = _teachers(context)
    for name in context.inputs:
        if name in teachers:
            yield from context.output(TeacherOutput, name).doubts
        elif name == "student":
            yield from context.output(StudentOutput, name).doubts


def graph(context: Context) -> Int8Graph | None:
    """Return what is known of the int8 graph; None where nothing is quantized."""
    return context.output(QuantizeOutput, "quantize").graph if "quantize" in context.inputs else None


def layers(context: Context) -> tuple[tuple[LayerRecord, ...], RepairRecord | None]:
    """Return the sensitivity of the layers, in torch and in each runtime, and the cost of a repair."""
    found = graph(context)
    if found is None:
        return (), None
    inside = context.output(EvaluateOutput, "evaluate").inside
    layers = tuple(
        replace(
            layer,
            runtimes={name: file.runtimes[layer.name] for name, file in inside.items() if layer.name in file.runtimes},
            differences={
                name: file.differences[layer.name] for name, file in inside.items() if layer.name in file.differences
            },
        )
        for layer in found.layers
    )
    if found.repair is None:
        return layers, None
    costs = [cost for stage in context.inputs if stage.startswith("export.") for cost in _costs(context, stage)]
    return layers, replace(found.repair, costs=tuple(costs))


def _costs(context: Context, stage: str) -> Iterator[RepairCost]:
    """An artifact beside its like all in int8, on each device, or by its size alone."""
    exported, name = context.output(ExportOutput, stage), stage.removeprefix("export.")
    if exported.all_int8 is None:
        return
    size = RepairCost(name, exported.file.bytes, exported.all_int8.bytes)
    found = False
    for device in (stage for stage in context.inputs if stage.startswith("profile.")):
        both = context.output(ProfileOutput, device)
        pair = [*both.profiles, *both.all_int8]
        now, then = (
            next((record for record in pair if record.model == model), None) for model in (name, f"{name}{ALL_INT8}")
        )
        if now is not None and then is not None:
            found = True
            yield replace(
                size, device=now.device,
                p50=now.latency_ms.p50, p50_ci=now.latency_ms.ci,
                p50_int8=then.latency_ms.p50, p50_int8_ci=then.latency_ms.ci,
                trusted=now.trust.verdict == then.trust.verdict == "trusted",
            )  # fmt: skip
    if not found:
        yield size


def measured(context: Context) -> dict[str, ProfileOutput]:
    """Return what was measured, by the name of the device."""
    names = [name for name in context.inputs if name.startswith("profile.")]
    return {name.removeprefix("profile."): context.output(ProfileOutput, name) for name in names}
