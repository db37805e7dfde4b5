"""Correctness on a device: what was looked at there, beside the host and torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.devices.schema import Device
from edgekd.errors import ExportError, cause_of, unexpected
from edgekd.evaluation import device_outputs, probes
from edgekd.profiling import agents, doctor, inspection, transports
from edgekd.profiling.agents.base import Agents
from edgekd.profiling.inspection import Given, Inspection
from edgekd.profiling.participants import START_S
from edgekd.profiling.session import Session
from edgekd.profiling.transports.base import Transport
from edgekd.profiling.variant import Variant
from edgekd.progress import Progress, Silent
from edgekd.results.findings import Finding, Missing
from edgekd.results.profile import Accuracy, Outputs, ProfileRecord

RIGHT = "top1"
"""Name of the metric that classes alone, without their scores, give."""
HOST_S = 120.0
"""Seconds that a file may take to run on this machine, to have outputs to compare with."""
HOST = Device(edgekd=1, name="host", transport="host", description="This machine")


@dataclass(frozen=True)
class Expected:
    """Known facts of an artifact, apart from the device.

    Attributes:
        host: Its outputs on the host, for the same inputs; or those that are known, by name, (N, ...); None where none is.
        torch: What torch gives for them, by the file's names and in its layout, (N, ...); empty where it is not known.
        labels: Classes of the images whose classes are found on the device, (N,).
        host_classes: The classes that the host finds for these images, (N,).
        steps: One int8 step of each output; None asks the file.
        classes: Whether the first output may be scores of classes.
    """

    host: Given | Mapping[str, NDArray[Any]] | None = None
    torch: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    labels: NDArray[np.int64] | None = None
    host_classes: NDArray[np.int64] | None = None
    steps: tuple[float | None, ...] | None = None
    classes: bool = True


@dataclass(frozen=True)
class Checked:
    """Records with what was looked at; ``findings`` are outputs that cannot be compared, ``notes`` what is not known."""

    profiles: tuple[ProfileRecord, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[Missing, ...] = ()


def check(
    session: Session,
    variants: Sequence[Variant],
    device: Device,
    expected: Mapping[str, Expected],
    threads: int = 1,
    *,
    reached: bool = True,
) -> Checked:
    """Compare what a session has looked at with what is expected.

    Args:
        session: Of the device.
        variants: What was measured in it.
        device: The device; it is asked again where outputs differ, layer by layer.
        expected: By the name of an artifact.
        threads: Threads of a runtime.
        reached: Whether the device can be asked again; if not, it is not this machine, whatever its transport.
    """
    by_name = {variant.model: variant for variant in variants}
    profiles: list[ProfileRecord] = []
    findings: list[Finding] = []
    notes: list[Missing] = []
    for record in session.profiles:
        inspected, known = session.inspections.get(record.model, Inspection()), expected.get(record.model, Expected())
        variant = by_name[record.model]
        rows = []
        for name, reference in _references(known, inspected, device, reached):
            assert inspected.outputs  # without them there is no reference
            per_step = steps(variant) if known.steps is None else known.steps
            row, why = _compared(name, reference, inspected.outputs, per_step, classes=known.classes)
            differs = row is None or bool(row.differs)
            varying = known.host.varying if differs and isinstance(known.host, Given) else ()
            if unsteady := [output for output in varying if output in reference.arrays]:
                reason = Finding("varies")
                notes += [Missing(reason, f"output {output}", record.model, device.name) for output in unsteady]
                steady = {output: array for output, array in reference.arrays.items() if output not in unsteady}
                if not steady:
                    continue
                row, why = _compared(
                    name, replace(reference, arrays=steady), inspected.outputs, per_step, classes=known.classes
                )
            if row is None:
                figures = {"device": device.name, "reference": name, "why": why}
                findings.append(Finding("not_comparable", "warning", record.model, figures))
                continue
            if row.differs and name == "host" and reached:
                row = replace(row, worst_layer=_begins(variant, device, threads))
            rows.append(row)
        accuracy = _accuracy(inspected, known)
        if inspected.classes is not None and accuracy is None:
            notes.append(Missing(Finding("no_labels"), "accuracy", record.model, device.name))
        profiles.append(replace(record, outputs=tuple(rows), accuracy=accuracy))
    return Checked(tuple(profiles), tuple(findings), tuple(notes))


def _compared(
    name: Literal["host", "torch"], reference: Given, found: Given, per_step: Sequence[float | None], *, classes: bool
) -> tuple[Outputs | None, str]:
    """The record; none, and the reason, where they cannot be compared."""
    try:
        return device_outputs.compare(name, reference, found, per_step, classes=classes), ""
    except ExportError as error:
        return None, error.message
    except Exception as error:
        return None, unexpected(error)[0]


def steps(variant: Variant) -> tuple[float | None, ...]:
    """One int8 step of each output of a file; see ``probes.steps``."""
    return probes.steps(variant.path, variant.runtime)


def on_host(variants: Sequence[Variant], threads: int = 1, progress: Progress | None = None) -> dict[str, Given]:
    """Run artifacts on this machine, each by an agent of its own; those that do not run here are missing.

    Each runs twice: an output that is another one the second time, as of a random operator, says nothing about a device.
    """
    found: dict[str, Given] = {}
    progress = progress or Silent()
    title = f"outputs on this machine (at most {HOST_S:.0f} s a file)"
    starter: Agents | None = None
    with progress.task(title, len(variants)) as task, transports.to(HOST) as way:
        for variant in variants:
            task.advance(0, variant.model)
            try:
                starter = starter or _starter(HOST, way, variants)
                found[variant.model] = _outputs(variant, starter, way, threads, "host", HOST_S, twice=True)
            except Exception as error:  # no runtime here, or what the agent gives cannot be read
                progress.say(f"  {variant.model}: no outputs on this machine to compare with: {cause_of(error)}")
            task.advance(1)
    return found


def _references(
    known: Expected, inspected: Inspection, device: Device, reached: bool
) -> list[tuple[Literal["host", "torch"], Given]]:
    if inspected.outputs is None or not inspected.outputs.arrays:
        return []
    found: list[tuple[Literal["host", "torch"], Given]] = []
    names = [*inspected.outputs.arrays]
    if known.host is not None and (device.transport != "host" or not reached):
        found.append(("host", known.host if isinstance(known.host, Given) else device_outputs.fed(known.host, names)))
    if known.torch:
        found.append(("torch", device_outputs.fed(known.torch, names)))
    return found


def _starter(device: Device, way: Transport, variants: Sequence[Variant]) -> Agents:
    formats = tuple(dict.fromkeys(variant.runtime for variant in variants))
    return agents.of(device, way, doctor.examine(device, way, formats).runtimes)


def _outputs(
    variant: Variant,
    starter: Agents,
    way: Transport,
    threads: int,
    where: str,
    limit_s: float = START_S,
    *,
    twice: bool = False,
) -> Given:
    end = time.monotonic() + limit_s
    agent = starter.start(variant, f"{variant.runtime} on {where}")
    try:
        shapes: dict[str, object] = {name: list(shape) for name, shape in variant.shapes.items()}
        inputs = shapes | {name: way.put(path) for name, path in variant.inputs.items()}
        path = way.put(variant.path)
        agent.ask("start", limit_s, runtime=variant.runtime, path=path, threads=threads, inputs=inputs or None)
        first, *second = (inspection.outputs(agent, way, max(0.0, end - time.monotonic())) for _ in range(2 if twice else 1))
        return replace(first, varying=device_outputs.varying(first, *second)) if twice else first
    finally:
        agent.close(grace=2.0)


def _begins(variant: Variant, device: Device, threads: int) -> str:
    """The first layer that the device computes otherwise than the host; empty where it cannot be found."""
    with TemporaryDirectory(prefix="edgekd-") as folder:
        try:
            path, inner = probes.instrument(variant.path, variant.runtime, Path(folder))
            probed = replace(variant, path=path)
            with transports.to(HOST) as way:
                here = _outputs(probed, _starter(HOST, way, [probed]), way, threads, "host")
            with transports.to(device) as way:
                there = _outputs(probed, _starter(device, way, [probed]), way, threads, device.name)
            return probes.first_difference(inner, here, there)
        except Exception:  # a side figure: that the outputs differ stands without it
            return ""


def _accuracy(inspected: Inspection, known: Expected) -> Accuracy | None:
    if inspected.classes is None or known.labels is None:
        return None
    right = float((np.array(inspected.classes) == known.labels).mean())
    host = None if known.host_classes is None else float((known.host_classes == known.labels).mean())
    return Accuracy(RIGHT, len(inspected.classes), right, host)
