"""The measuring protocol: all variants in one session, each in a process of its own, taking turns block by block.

Every variant is loaded cold, run once, loaded warm and warmed up. Then each round runs one block of every variant and of
the reference workload, and the order moves on by one from round to round, so that heat, clock changes and neighbours
favour none. Only one agent works at a time. Memory and the runtime's own account are read last.

A session that is not trusted for a reason that may pass is measured again, from the warm-up on; the last attempt counts
and the others are recorded. ``limit_s`` of the device bounds all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from edgekd import cache
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, EdgekdError, unexpected
from edgekd.profiling import agents, doctor, heat, inspection, measured, sustained, transports, trivial
from edgekd.profiling.agents.base import Agent
from edgekd.profiling.inspection import Inspection, Wants
from edgekd.profiling.measured import Run, Setting
from edgekd.profiling.participants import ANSWER_S, REFERENCE, SAMPLES, START_S, Limit, Participants, Progress
from edgekd.profiling.rounds import Rounds
from edgekd.profiling.stats import Conditions
from edgekd.profiling.sustained import Extra
from edgekd.profiling.transports.base import Transport
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile
from edgekd.results.findings import UNFIT, Finding, Missing, said
from edgekd.results.profile import DeviceRecord, Failure, ProfileRecord


@dataclass(frozen=True)
class Session:
    """Result of a session on one device; ``notes`` are remarks on figures that differ from their name.

    ``inspections`` has by model what was looked at beside times.
    """

    profiles: tuple[ProfileRecord, ...]
    device: DeviceRecord
    failures: tuple[Failure, ...] = ()
    notes: tuple[Missing, ...] = ()
    inspections: Mapping[str, Inspection] = field(default_factory=dict)


def measure(  # eight parameters: what is measured, how, where and into which folder; the rest is left out by most callers
    variants: Sequence[Variant],
    protocol: Profile,
    device: Device,
    samples: Path,
    progress: Progress = lambda what, done, total: None,
    transport: Transport | None = None,
    wants: Wants | None = None,
    say: Callable[[Finding], None] = lambda fact: None,
) -> Session:
    """Measure all variants on one device in one session.

    Args:
        variants: What to measure; float and int8 belong in the same session.
        protocol: Warm-up, number and length of blocks, threads.
        device: Where.
        samples: Folder for the raw samples, ``DEVICE.jsonl``: one line a block with ``model``, ``attempt`` (from 1),
            ``round``, ``order`` (place in the round), ``at_s`` (seconds since the session began) and ``samples_ms``, or
            ``summary_ms`` where the agent gives no single times.
        progress: Told of every step.
        transport: The way to the device, not open yet; by default what the device's file names.
        wants: What to look at beside times, after the measurement; by default nothing.
        say: Takes a fact at once, such as why it measures again.

    Returns:
        A record for every variant that could be measured, and a failure with its reason for every other; a note for each
        that the device cannot have by its nature.

    Raises:
        DeviceError: The device does not answer, can have none of them, or edgekd made a mistake.
        OSError: The samples cannot be written.
    """
    try:
        return _measured(variants, protocol, device, samples, progress, transport, wants, say)
    except EdgekdError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and (error.errno in cache.FULL or _of(error, samples)):
            raise
        raise DeviceError(*unexpected(error)) from error


def _of(error: OSError, folder: Path) -> bool:
    """Return whether a folder, or one that it is in, is what could not be written: any other path is a mistake of edgekd."""
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    return path is not None and (path.is_relative_to(folder) or folder.is_relative_to(path))


def _measured(  # the parameters of measure, which explains errors
    variants: Sequence[Variant],
    protocol: Profile,
    device: Device,
    samples: Path,
    progress: Progress,
    transport: Transport | None,
    wants: Wants | None,
    say: Callable[[Finding], None],
) -> Session:
    unfit = {variant.model: reason for variant in variants if (reason := agents.unfit(device, variant.runtime))}
    variants = [variant for variant in variants if variant.model not in unfit]
    if not variants:
        what = "; ".join(dict.fromkeys(unfit.values()))
        raise DeviceError(f"{device.name} can have none of the files: {what}", agents.fits(device))
    samples.mkdir(parents=True, exist_ok=True)
    raw = samples / f"{device.name}.jsonl"
    threads = device.threads or protocol.threads
    with ExitStack() as stack, raw.open("w", encoding="utf-8") as log:
        limit = Limit(device.limit_s)
        way = stack.enter_context(transport or transports.to(device))
        found = doctor.examine(device, way, tuple(dict.fromkeys(variant.runtime for variant in variants)))
        starter = agents.of(device, way, found.runtimes)
        steps = len(variants) * (protocol.blocks + 3)
        participants = Participants(stack, starter, device, progress, limit, steps, say)
        for variant in variants:
            participants.enter(variant)
        participants.enter_reference()
        began = heat.begin(participants, device)
        baseline = trivial.trivial_mib(participants, way, device, threads) if starter.name == "python" else {}
        participants.each("load", lambda run, _: _start(run, way, device, threads))
        setting = Setting(device, threads, Conditions(0.0, 0.0, 1), f"{SAMPLES}/{raw.name}", trivial=baseline, began=began)
        rounds = Rounds(participants, protocol, setting, "", log)
        setting = rounds.measure()
        power = sustained.idle(participants, device) if starter.name == "python" else {}
        participants.each("read", lambda run, _: _finish(run))

        def begin(run: Run) -> Agent:
            """Start and load one more agent of a variant."""
            spare = Run(run.variant, participants.spare(run.variant))
            _start(spare, way, device, threads)
            return spare.agent

        inspected = _inspect(participants, begin, way, wants, device, protocol) if wants else {}
        more = sustained.measure(participants, begin, protocol, device, power) if starter.name == "python" else {}
        participants.tell("read")  # an interruption may have ended what was looked at last
    profiles = []
    for run in participants.live:
        record = inspected.get(run.variant.model, Inspection()).into(measured.record(run, setting))
        profiles.append(more.get(run.variant.model, Extra()).into(record))
    notes = (
        *(Missing(Finding(UNFIT, figures={"why": why}), "", model, device.name) for model, why in unfit.items()),
        *(Missing(said(note)) for note in rounds.notes),
        *measured.notes(participants.live, device),
        *(note for look in inspected.values() for note in look.notes),
        *(note for longest in more.values() for note in longest.notes),
    )
    return Session(tuple(profiles), _shown(found), tuple(participants.failures), notes, inspected)


def _shown(found: DeviceRecord) -> DeviceRecord:
    """The device as a report shows it to others: this machine's own interpreter without its folders.

    Advice keeps them: it is to be typed here.
    """
    if found.transport != "host":
        return found
    return replace(found, runtimes=tuple(replace(one, python=Path(one.python).name) for one in found.runtimes))


def _inspect(
    participants: Participants,
    begin: Callable[[Run], Agent],
    way: Transport,
    wants: Wants,
    device: Device,
    protocol: Profile,
) -> dict[str, Inspection]:
    """Look at each variant that was measured, by an agent of its own."""
    inspected = {}
    for run in participants.live:
        participants.tell(f"look into {run.variant.model}")
        found = inspection.inspect(run.variant, partial(begin, run), way, wants, device.name, protocol)
        if found.lost:
            participants.lost(run, found.lost)
        inspected[run.variant.model] = found
    return inspected


def _start(run: Run, way: Transport, device: Device, threads: int) -> None:
    variant, more = run.variant, {"cores": list(device.cores)} if device.cores else {}
    if variant.model == REFERENCE:
        run.start = run.agent.ask("start", START_S, runtime="reference", path="", threads=1, **more)
        return
    files = {name: way.put(part) for name, part in variant.inputs.items()}
    inputs = {**{name: list(shape) for name, shape in variant.shapes.items()}, **files} or None
    path = way.put(variant.path)
    run.start = run.agent.ask("start", START_S, runtime=variant.runtime, path=path, threads=threads, inputs=inputs, **more)


def _finish(run: Run) -> None:
    if run.variant.model != REFERENCE:
        run.end = {**run.agent.ask("memory", ANSWER_S), **run.agent.ask("effective", ANSWER_S)}
    run.agent.close(grace=2.0)
