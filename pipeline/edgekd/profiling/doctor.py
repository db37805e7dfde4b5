"""Look at a device: what it is, which runtimes work on it, and what stands in the way of measuring."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from edgekd.devices.isa import FEATURES
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling import doctor_phone, traps
from edgekd.profiling.agents.python import PythonAgent, program
from edgekd.profiling.transports.base import Transport
from edgekd.results.profile import DeviceRecord, RuntimeFound
from edgekd.runtimes import base

ROOM_MIB = 64
"""Free disk below which nothing is sent to a device."""
CLOCK_NS = 20_000.0
"""Largest step of a clock that can time an inference: 2 % of one of a millisecond."""
BUSY = 0.5
"""Load average of a minute for each core above which other programs disturb the times."""
_FACTS_S, _PROBE_S = 30.0, 120.0


@dataclass(frozen=True)
class Looked:
    """Answers of a device's interpreters, as :func:`described` takes them."""

    facts: dict[str, Any]
    rows: list[tuple[str, dict[str, Any]]]
    silent: list[str]


def examine(
    device: Device, way: Transport, formats: Sequence[str] = (), *, infer: bool = True, thorough: bool = False
) -> DeviceRecord:
    """Look at a device through an open way to it.

    Args:
        device: The device.
        way: The way to it.
        formats: Formats that are to be measured: one without a runtime that works is a problem. None named: all are looked
            at, and one that works is enough.
        infer: Run an inference in each runtime, not only see that it is installed.
        thorough: Look at all runtimes of all interpreters, not only until each format has one that works; and for known
            faults that edgekd works round.

    Raises:
        DeviceError: It does not answer.
    """
    if device.agent == "benchmark_model":
        return doctor_phone.examine(device, way, infer=infer)
    found = look(device, way, formats, infer=infer, thorough=thorough)
    return described(device, found.facts, found.rows, formats, found.silent)


def look(
    device: Device, way: Transport, formats: Sequence[str] = (), *, infer: bool = True, thorough: bool = False
) -> Looked:
    """Ask the interpreters of a device; see :func:`examine`.

    Raises:
        DeviceError: None answers.
    """
    facts: dict[str, Any] = {}
    rows: list[tuple[str, dict[str, Any]]] = []
    silent: list[str] = []
    path = program(way)
    wanted = [*(formats or _formats())]
    limit = _FACTS_S + 2 * len(wanted) * _PROBE_S
    for python in pythons(device):
        try:
            with closing(PythonAgent(way, [python, path], f"{python} on {device.name}", env=device.env)) as agent:
                found = agent.ask("facts", _FACTS_S)
                told = agent.ask(
                    "runtimes", limit,
                    formats=wanted, infer=infer, thorough=thorough, limit_s=_PROBE_S,
                )  # fmt: skip
        except DeviceError as error:
            silent.append(str(error))
            continue
        facts = facts or {**found, "interpreter": python}
        rows += [(python, {**row, "facts": found}) for row in told["runtimes"]]
        if not thorough:
            done = {row["format"] for row in told["runtimes"] if traps.works(row, found)}
            wanted = [form for form in wanted if form not in done]
            if not wanted:
                break
    if not facts:
        raise DeviceError(
            f"{device.name} has no Python that answers: {'; '.join(silent)}",
            "install Python 3.8 or later and numpy there, or name its interpreter in the device's file: python: [PATH]",
        )
    if device.transport == "adb":
        facts |= doctor_phone.facts(way)
    return Looked(facts, rows, silent)


def described(
    device: Device,
    facts: dict[str, Any],
    rows: Sequence[tuple[str, dict[str, Any]]],
    formats: Sequence[str] = (),
    silent: Sequence[str] = (),
) -> DeviceRecord:
    """Return the record of a device from what its agents have told.

    Args:
        device: The device.
        facts: Of its first interpreter that answers.
        rows: For each runtime its interpreter, and what was found, with the ``facts`` of the interpreter.
        formats: Formats that are to be measured.
        silent: Interpreters that do not answer, in words.
    """
    runtimes = tuple(_found(python, row) for python, row in rows)
    lacking = [*_lacking(formats or _formats(), runtimes, facts, facts.get("interpreter", pythons(device)[0])), *silent]
    working = {runtime.format for runtime in runtimes if runtime.works}
    enough = working >= set(formats) if formats else bool(working)
    problems = [*_unfit(device, facts), *(lacking if not enough else ())]
    known = dict.fromkeys([*traps.system(facts), *(trap for _, row in rows for trap in traps.known(row))])
    return DeviceRecord(
        name=device.name,
        description=device.description,
        transport=device.transport,
        emulated=device.emulated,
        model=facts.get("model", ""),
        arch=facts["arch"],
        isa=tuple(sorted(FEATURES & set(facts.get("features", ())))),
        os=facts.get("os", ""),
        kernel=facts["kernel"],
        cores=tuple(facts.get("cores", ())),
        governor=facts.get("governor", ""),
        celsius=facts.get("celsius"),
        throttled=tuple(facts.get("throttled", ())),
        memory_mib=facts.get("memory_mib"),
        available_mib=facts.get("available_mib"),
        disk_mib=facts.get("disk_mib"),
        python=facts["python"],
        numpy=facts.get("numpy", ""),
        clock_ns=facts["clock_ns"],
        runtimes=runtimes,
        problems=tuple(problems),
        traps=tuple(known),
        notes=(*_notes(device, facts), *(lacking if enough else ()), *_busy(facts)),
        more={name: str(facts[name]) for name in ("driver", *doctor_phone.MORE) if name in facts},
    )


def silent(device: Device, error: DeviceError) -> DeviceRecord:
    """Return the record of a device that does not answer."""
    return DeviceRecord(
        device.name, device.description, device.transport, device.emulated, answered=False, problems=(str(error),)
    )


def pythons(device: Device) -> tuple[str, ...]:
    """Return the interpreters of a device, in the order they are tried."""
    return (sys.executable,) if device.transport == "host" else device.python


def _found(python: str, row: dict[str, Any]) -> RuntimeFound:
    works = traps.works(row, row["facts"])
    problem, fix = ("", "") if works else traps.problem(row, row["facts"], python)
    return RuntimeFound(row["format"], row["package"], row["version"], python, works, problem, fix, row["module"])


def _formats() -> tuple[str, ...]:
    """All formats that can be measured."""
    return tuple(name for name, runtime in base.known().items() if runtime.on_device is not None)


def _lacking(formats: Iterable[str], runtimes: Sequence[RuntimeFound], facts: traps.Facts, python: str) -> Iterator[str]:
    """The formats that no runtime works for; a broken one beside one that works is in nobody's way."""
    absent, without = [], []
    for form in formats:
        own = [runtime for runtime in runtimes if runtime.format == form]
        if any(runtime.works for runtime in own):
            continue
        if not own:
            absent.append(form)
        for runtime in own:
            if runtime.python == python and not facts.get("numpy"):
                without.append(runtime.package)
            else:
                yield f"{runtime.problem}\n  → {runtime.fix}"
    for problem, fix in traps.missing(absent, facts, python, without):
        yield f"{problem}\n  → {fix}"


def _unfit(device: Device, facts: traps.Facts) -> Iterator[str]:
    """What else is in the way: another CPU than declared, no room, no clock."""
    stands_for_another = device.transport == "host" and device.emulated
    if device.arch is not None and device.isa is not None and "features" in facts and not stands_for_another:
        if device.arch != facts["arch"]:
            yield f"its file has arch: {device.arch}, but it is {facts['arch']}\n  → write arch: {facts['arch']}"
        elif lacking := sorted(set(device.isa) - set(facts["features"])):
            own = ", ".join(sorted(FEATURES & set(facts["features"])))
            yield f"its file says isa: {', '.join(lacking)}, which it does not have\n  → write isa: [{own}]"
    if facts.get("disk_mib", ROOM_MIB) < ROOM_MIB:
        free = f"only {facts['disk_mib']:.0f} MiB are free on its disk"
        yield f"{free}\n  → free {ROOM_MIB} MiB, or name another folder: in its file"
    if not 0 < facts["clock_ns"] <= CLOCK_NS:
        yield f"its clock moves in steps of {facts['clock_ns'] / 1000:g} µs, too coarse to time an inference"


def _notes(device: Device, facts: traps.Facts) -> Iterator[str]:
    """Remarks that are in nobody's way."""
    own = sorted(FEATURES & set(facts.get("features", ())))
    if device.transport != "host" and device.arch is None:
        yield (
            f"arch and isa are not in its file, so int8 weights for it use 7 bits; write arch: {facts['arch']} and "
            f"isa: [{', '.join(own)}]"
        )
    elif device.isa is not None and device.arch == facts["arch"] and (more := set(own) - set(device.isa)):
        yield f"it also has {', '.join(sorted(more))}; write isa: [{', '.join(own)}]"


def _busy(facts: traps.Facts) -> Iterator[str]:
    """Say that other programs work there now."""
    load, cores = facts.get("load", 0.0), len(facts.get("cores", ()))
    if cores and load > BUSY * cores:
        yield (
            f"load {load:.1f} on {cores} core{'' if cores == 1 else 's'}: times measured now will not be trusted\n"
            f"  → stop other programs there, and measure when the load is below {BUSY * cores:g}"
        )
