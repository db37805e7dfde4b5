"""The measuring protocol: all variants in one session, each in a process of its own, taking turns block by block.

Every variant is loaded cold, run once, loaded warm and warmed up. Then each round runs one block of every variant, and
the order moves on by one from round to round, so that heat, clock changes and neighbours favour none. Only one agent
works at a time. Memory and the runtime's own account are read last.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling import agents, measured, transports
from edgekd.profiling.agents.base import Agents
from edgekd.profiling.measured import Run, Variant
from edgekd.profiling.transports.base import Transport
from edgekd.recipe import Profile
from edgekd.records_profile import ProfileRecord

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""

START_S = 300.0
"""Seconds a variant may take to load and run once; a small board compiles slowly."""
ANSWER_S = 60.0
"""Seconds any other answer may take beyond the measuring it was asked for."""


@dataclass(frozen=True)
class Failure:
    """A variant that could not be measured, and why."""

    model: str
    device: str
    reason: str


@dataclass(frozen=True)
class Session:
    """What a session found; ``notes`` are remarks on figures that are not what their name says."""

    profiles: tuple[ProfileRecord, ...]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


def measure(
    variants: Sequence[Variant],
    protocol: Profile,
    device: Device,
    samples: Path,
    progress: Progress = lambda what, done, total: None,
    transport: Transport | None = None,
) -> Session:
    """Measure all variants on one device in one session.

    Args:
        variants: What to measure; float and int8 belong in the same session.
        protocol: Warm-up, number and length of blocks, threads.
        device: Where.
        samples: Folder for the raw samples, ``DEVICE.jsonl``: one line a block with ``model``, ``round``, ``order``
            (place in the round), ``at_s`` (seconds since the session began) and ``samples_ms``.
        progress: Told of every step.
        transport: The way to the device, not open yet; by default what the device's file names.

    Returns:
        A record for every variant that could be measured, and a failure with its reason for every other.
    """
    began = time.perf_counter()
    samples.mkdir(parents=True, exist_ok=True)
    raw = samples / f"{device.name}.jsonl"
    with ExitStack() as stack, raw.open("w", encoding="utf-8") as log:
        way = stack.enter_context(transport or transports.to(device))
        field = _Field(stack, agents.of(device, way), device, progress, len(variants) * (protocol.blocks + 3))
        for variant in variants:
            field.enter(variant)
        field.each("load", lambda run, _: _start(run, way, protocol))
        field.each("warm up", lambda run, _: _warm_up(run, protocol))
        before = _state(field.live)
        for turn in range(protocol.blocks):

            def block(run: Run, place: int, turn: int = turn) -> None:
                at = time.perf_counter() - began
                _block(run, protocol)
                _write(log, run, turn, place, at)

            field.each(f"block {turn + 1}/{protocol.blocks}", block, shift=turn)
        now = measured.conditions(before, _state(field.live), field.entered, device.emulated)
        field.each("read", lambda run, _: _finish(run))
    profiles = tuple(measured.record(run, device, protocol.threads, now, raw.name) for run in field.live)
    return Session(profiles, tuple(field.failures), tuple(measured.notes(field.live, device)))


class _Field:
    """The variants of a session: who entered, who is still running, who fell out and why."""

    def __init__(self, stack: ExitStack, agents: Agents, device: Device, progress: Progress, total: int) -> None:
        self.entered: list[Run] = []
        self.live: list[Run] = []
        self.failures: list[Failure] = []
        self._stack, self._agents, self._device = stack, agents, device
        self._progress, self._total, self._done = progress, total, 0

    def enter(self, variant: Variant) -> None:
        """Start the agent of a variant; whatever happens next, it is ended with the session."""
        try:
            run = Run(variant, self._agents.start(variant.runtime, f"{variant.runtime} on {self._device.name}"))
        except DeviceError as error:
            self._failed(variant, error)
            return
        self._stack.callback(run.agent.close)
        self.entered.append(run)
        self.live.append(run)

    def each(self, what: str, work: Callable[[Run, int], None], shift: int = 0) -> None:
        """Do ``work(run, place)`` for every live variant, starting with number ``shift``; who fails falls out."""
        start = shift % max(1, len(self.live))
        for place, run in enumerate(self.live[start:] + self.live[:start]):
            self._progress(f"{what} {run.variant.model}", self._done, self._total)
            self._done += 1
            try:
                work(run, place)
            except DeviceError as error:
                run.agent.close()
                self.live.remove(run)
                self._failed(run.variant, error)

    def _failed(self, variant: Variant, error: DeviceError) -> None:
        self.failures.append(Failure(variant.model, self._device.name, str(error)))


def _start(run: Run, way: Transport, protocol: Profile) -> None:
    variant = run.variant
    inputs = {name: way.put(part) for name, part in variant.inputs.items()} or None
    path = way.put(variant.path)
    run.start = run.agent.ask("start", START_S, runtime=variant.runtime, path=path, threads=protocol.threads, inputs=inputs)


def _warm_up(run: Run, protocol: Profile) -> None:
    least = {"runs": protocol.warmup_runs, "ms": protocol.warmup_ms}
    run.warmup = run.agent.ask("warmup", _limit(run, **least), **least)


def _block(run: Run, protocol: Profile) -> None:
    least = {"runs": protocol.block_runs, "ms": protocol.block_ms}
    run.blocks.append(run.agent.ask("block", _limit(run, **least), **least))


def _limit(run: Run, runs: int, ms: int) -> float:
    """Seconds to wait for inferences: ten times what the first one, the slowest, lets expect."""
    return ANSWER_S + 10 * max(ms, runs * float(run.start["first_ms"])) / 1000


def _finish(run: Run) -> None:
    run.end = {**run.agent.ask("memory", ANSWER_S), **run.agent.ask("effective", ANSWER_S)}
    run.agent.close(grace=2.0)


def _write(log: TextIO, run: Run, turn: int, place: int, at: float) -> None:
    line = {"model": run.variant.model, "round": turn, "order": place, "at_s": round(at, 3)}
    log.write(json.dumps({**line, "samples_ms": run.blocks[-1]["samples"]}) + "\n")


def _state(runs: Iterable[Run]) -> Mapping[str, Any]:
    """The device's state as the first agent that answers sees it; empty when none does."""
    for run in runs:
        try:
            return run.agent.ask("state", ANSWER_S)
        except DeviceError:  # told when its turn comes
            continue
    return {}
