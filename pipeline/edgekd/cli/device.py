"""``edgekd doctor``: what a device is and what stands in the way of measuring on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekd.cli.options import debug_option, json_option
from edgekd.errors import ExitCode

if TYPE_CHECKING:
    from edgekd.records_profile import DeviceRecord


@click.command()
@click.argument("name", metavar="DEVICE")
@json_option
@debug_option
def doctor(name: str, as_json: bool, debug: bool) -> int:
    """Look at a device: what it is, which runtimes work on it, known faults, and what to do about them.

    DEVICE is a file of devices/, or the path of one. A real inference is run in each runtime, in a process of its own.

    \b
      edgekd doctor host
      edgekd doctor pi4
      edgekd doctor lab/pi4.yaml --json

    Exit codes: 0 a format can be measured there and nothing is in the way, 2 there is no such device or its file is wrong,
    4 it does not answer, no format works, or its file does not describe it.
    """
    from edgekd.devices import schema
    from edgekd.errors import DeviceError
    from edgekd.profiling import doctor as doctors
    from edgekd.profiling import transports
    from edgekd.records_json import to_json

    device = schema.load(name, Path.cwd())
    try:
        with transports.to(device) as way:
            found = doctors.examine(device, way, faults=True)
    except DeviceError as error:
        found = doctors.silent(device, error)
    code = ExitCode.DEVICE_FAILED if found.problems else ExitCode.OK
    if as_json:
        click.echo(json.dumps({"exit_code": int(code), "device": to_json(found)}, ensure_ascii=False))
    else:
        for line in _lines(found):
            click.echo(line)
    return int(code)


def _lines(found: DeviceRecord) -> Iterator[str]:
    """The record as text."""
    yield f"{found.name}: {found.description}{' (EMULATED)' if found.emulated else ''}"
    if found.answered:
        rows = dict(_facts(found))
        width = max(map(len, rows))
        yield from (f"  {name:<{width}}  {text}" for name, text in rows.items() if text)
        yield "\nruntimes"
        for runtime in found.runtimes:
            works = "works" if runtime.works else "does not work"
            yield f"  {runtime.format:<8}  {runtime.package} {runtime.version}  {works}  ({runtime.python})"
            if not runtime.works:
                yield f"    {runtime.problem}\n    → {runtime.fix}"
    for title, texts in (("problems", found.problems), ("known faults", found.traps), ("notes", found.notes)):
        if texts:
            yield f"\n{title}"
            yield from ("  " + text.replace("\n", "\n  ") for text in texts)


def _facts(found: DeviceRecord) -> Iterator[tuple[str, str]]:
    yield "machine", found.model
    yield "processor", " with ".join(filter(None, (found.arch, ", ".join(found.isa))))
    yield "cores", _cores(found.cores)
    governor = ", ".join(filter(None, (found.governor, found.more.get("driver", ""))))
    yield "governor", governor
    yield "system", ", ".join(filter(None, (found.os, f"kernel {found.kernel}" if found.kernel else "")))
    yield "temperature", "" if found.celsius is None else f"{found.celsius:.1f} °C"
    yield "throttling", ", ".join(found.throttled)
    yield "load", found.more.get("load", "")
    if found.memory_mib is not None and found.available_mib is not None:
        yield "memory", f"{found.available_mib:,.0f} MiB available of {found.memory_mib:,.0f} MiB"
    yield "disk", "" if found.disk_mib is None else f"{found.disk_mib:,.0f} MiB free"
    yield "python", f"{found.python}, numpy {found.numpy or 'is not installed'}" if found.python else ""
    yield "clock", "" if found.clock_ns is None else f"steps of {found.clock_ns:,.0f} ns"


def _cores(limits: tuple[int, ...]) -> str:
    """Cores by their clock limit, such as ``4 × 1,800 MHz``."""
    kinds = {mhz: limits.count(mhz) for mhz in sorted(limits)}
    return ", ".join(f"{count} × {mhz:,} MHz" if mhz else f"{count}, clock not known" for mhz, count in kinds.items())
