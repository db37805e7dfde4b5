"""The measuring protocol: all variants in one session, each in a process of its own, taking turns block by block.

Every variant is loaded cold, run once, loaded warm and warmed up. Then each round runs one block of every variant and of
the reference workload, and the order moves on by one from round to round, so that heat, clock changes and neighbours
favour none. Only one agent works at a time. Memory and the runtime's own account are read last.

A session that is not trusted for a reason that may pass is measured again, from the warm-up on; the last attempt counts
and the others are recorded. ``limit_s`` of the device bounds all of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from dataclasses import field as default
from pathlib import Path
from typing import Any, TextIO

from edgekd.devices.schema import Device
from edgekd.profiling import agents, beside, doctor, heat, looks, measured, transports
from edgekd.profiling.agents.base import Agent
from edgekd.profiling.field import ANSWER_S, REFERENCE, START_S, Failure, Field, Limit, Progress
from edgekd.profiling.looks import Look, Wants
from edgekd.profiling.measured import Run, Setting, Variant
from edgekd.profiling.stats import Conditions, Doubt
from edgekd.profiling.transports.base import Transport
from edgekd.recipe import Profile
from edgekd.records_profile import Attempt, DeviceRecord, ProfileRecord

WARM_UP_S = 10.0
"""Seconds after which a warm-up ends although the times are not steady, once it has what the recipe asks for."""
REFERENCE_WORK = {"runs": 5, "ms": 20}
"""Warm-up and block of the reference workload, at the least."""
LEAST_ROUNDS = 3
"""Rounds without which there are no figures."""
RESERVE_S = 5.0
"""Seconds of a device's time that are kept to read memory and settings after the last round."""


@dataclass(frozen=True)
class Session:
    """What a session found, and on which device; ``notes`` are remarks on figures that are not what their name says.

    ``looks`` has by model what was looked at beside times.
    """

    profiles: tuple[ProfileRecord, ...]
    device: DeviceRecord
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    looks: Mapping[str, Look] = default(default_factory=dict)


def measure(
    variants: Sequence[Variant],
    protocol: Profile,
    device: Device,
    samples: Path,
    progress: Progress = lambda what, done, total: None,
    transport: Transport | None = None,
    wants: Wants | None = None,
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

    Returns:
        A record for every variant that could be measured, and a failure with its reason for every other.
    """
    samples.mkdir(parents=True, exist_ok=True)
    raw = samples / f"{device.name}.jsonl"
    threads = device.threads or protocol.threads
    with ExitStack() as stack, raw.open("w", encoding="utf-8") as log:
        limit = Limit(device.limit_s)
        way = stack.enter_context(transport or transports.to(device))
        found = doctor.examine(device, way, tuple(dict.fromkeys(variant.runtime for variant in variants)))
        starter = agents.of(device, way, found.runtimes)
        field = Field(stack, starter, device, progress, limit, len(variants) * (protocol.blocks + 3))
        for variant in variants:
            field.enter(variant)
        field.enter_reference()
        hot = heat.begin(field, device)
        trivial = beside.trivial_mib(field, way, device, threads) if starter.name == "python" else {}
        field.each("load", lambda run, _: _start(run, way, device, threads))
        setting = Setting(device, threads, Conditions(0.0, 0.0, 1), raw.name, trivial=trivial)
        rounds = _Rounds(field, protocol, setting, hot, log)
        setting = rounds.measure()
        field.each("read", lambda run, _: _finish(run))
        looked = _look(field, way, wants, setting) if wants else {}
    profiles = tuple(looked.get(run.variant.model, Look()).into(measured.record(run, setting)) for run in field.live)
    notes = (
        *rounds.notes,
        *measured.notes(field.live, device),
        *(note for found in looked.values() for note in found.notes),
    )
    return Session(profiles, found, tuple(field.failures), notes, looked)


def _look(field: Field, way: Transport, wants: Wants, setting: Setting) -> dict[str, Look]:
    """Look at each variant that was measured, by an agent of its own."""
    device, looked = setting.device, {}
    for run in field.live:
        field.tell(f"look into {run.variant.model}")

        def begin(variant: Variant = run.variant) -> Agent:
            spare = Run(variant, field.spare(variant))
            _start(spare, way, device, setting.threads)
            return spare.agent

        looked[run.variant.model] = looks.look(run.variant, begin, way, wants, f"{run.variant.model} on {device.name}")
    return looked


class _Rounds:
    """Warm-up and rounds, as often as it takes.

    Args:
        field: The participants.
        protocol: Number and length of blocks.
        setting: What is known of the session so far.
        hot: Why it did not begin as cool as it should; empty if it did.
        log: Takes the raw samples.
    """

    def __init__(self, field: Field, protocol: Profile, setting: Setting, hot: str, log: TextIO) -> None:
        self.notes: list[str] = []
        self._field, self._protocol, self._setting, self._hot, self._log = field, protocol, setting, hot, log
        self._began = time.perf_counter()

    def measure(self) -> Setting:
        """Measure until the figures are trusted, or until there are no more attempts or no time."""
        field, device = self._field, self._setting.device
        for attempt in range(1, device.retries + 2):
            began = time.monotonic()
            before, now = self._attempt(attempt)
            setting = replace(self._setting, now=now, reference=field.reference)
            doubts = {run.variant.model: measured.doubts(run, setting) for run in field.live}
            curable = [doubt for found in doubts.values() for doubt in found if _may_pass(doubt, device)]
            took = time.monotonic() - began
            if not curable or attempt > device.retries or field.limit.left() < took + RESERVE_S:
                break
            cooled = heat.cool_down(field, device, curable, before)
            if field.limit.left() < took + RESERVE_S:
                self.notes.append(f"not measured again on {device.name}: limit_s is nearly over")
                break
            for run in field.live:
                reasons = tuple(doubt.text for doubt in doubts[run.variant.model])
                run.attempts.append(Attempt(reasons, cooled, measured.p50(run)))
            field.again(self._protocol.blocks + 1)
        return setting

    def _attempt(self, attempt: int) -> tuple[Mapping[str, Any], Conditions]:
        """Warm up and run all rounds once; returns the state before them and the conditions during them."""
        field, protocol, device = self._field, self._protocol, self._setting.device
        for run in field.entered:
            run.blocks.clear()
            run.rounds.clear()
        field.each("warm up", lambda run, _: _warm_up(run, protocol))
        state = before = field.state()
        longest = 0.0
        for turn in range(protocol.blocks):
            began = time.monotonic()
            if field.limit.left() < longest + RESERVE_S and turn:
                self._stopped(turn)
                break

            def block(run: Run, place: int, turn: int = turn) -> None:
                nonlocal state
                at = time.perf_counter() - self._began
                answer = _block(run, protocol)
                after = answer.get("state") or run.agent.ask("state", ANSWER_S)
                run.blocks.append(answer)
                run.rounds.append((state, after))
                state = after
                line = {"model": run.variant.model, "attempt": attempt, "round": turn, "order": place, "at_s": round(at, 3)}
                kept = {"summary_ms": answer["summary"]} if "summary" in answer else {"samples_ms": answer["samples"]}
                self._log.write(json.dumps({**line, **kept}) + "\n")

            field.each(f"block {turn + 1}/{protocol.blocks}", block, shift=turn)
            longest = max(longest, time.monotonic() - began)
        now = measured.conditions(before, state, field.entered, device.emulated)
        return before, replace(now, hot=self._hot)

    def _stopped(self, rounds: int) -> None:
        """The time is over after some rounds: enough for figures, or not."""
        field = self._field
        if rounds >= LEAST_ROUNDS:
            told = f"only {rounds} of {self._protocol.blocks} blocks were measured"
            self.notes.append(f"{told} on {self._setting.device.name}: limit_s is over ({field.limit.seconds:g} s)")
            return
        for run in list(field.live):
            field.out(run, field.limit.error(f"{run.agent.label}: only {rounds} of {self._protocol.blocks} blocks"))


def _may_pass(doubt: Doubt, device: Device) -> bool:
    """Whether another attempt may be trusted; the restlessness of an emulated device says nothing."""
    return doubt.cure == "cool" or (doubt.cure == "again" and not device.emulated)


def _start(run: Run, way: Transport, device: Device, threads: int) -> None:
    variant, more = run.variant, {"cores": list(device.cores)} if device.cores else {}
    if variant.model == REFERENCE:
        run.start = run.agent.ask("start", START_S, runtime="reference", path="", threads=1, **more)
        return
    files = {name: way.put(part) for name, part in variant.inputs.items()}
    inputs = {**{name: list(shape) for name, shape in variant.shapes.items()}, **files} or None
    path = way.put(variant.path)
    run.start = run.agent.ask("start", START_S, runtime=variant.runtime, path=path, threads=threads, inputs=inputs, **more)


def _warm_up(run: Run, protocol: Profile) -> None:
    least = REFERENCE_WORK if run.variant.model == REFERENCE else {"runs": protocol.warmup_runs, "ms": protocol.warmup_ms}
    limit = WARM_UP_S * 1000
    run.warmup = run.agent.ask("warmup", _limit(run, **least) + WARM_UP_S, **least, limit_ms=limit)


def _block(run: Run, protocol: Profile) -> Mapping[str, Any]:
    least = REFERENCE_WORK if run.variant.model == REFERENCE else {"runs": protocol.block_runs, "ms": protocol.block_ms}
    return run.agent.ask("block", _limit(run, **least), **least)


def _limit(run: Run, runs: int, ms: int) -> float:
    """Seconds to wait for inferences: ten times what the first one, the slowest, lets expect."""
    return ANSWER_S + 10 * max(ms, runs * float(run.start["first_ms"])) / 1000


def _finish(run: Run) -> None:
    if run.variant.model != REFERENCE:
        run.end = {**run.agent.ask("memory", ANSWER_S), **run.agent.ask("effective", ANSWER_S)}
    run.agent.close(grace=2.0)
