"""``edgekd devices`` and ``edgekd doctor``: the machines to measure on, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekd import writes
from edgekd.cli.options import debug_option, json_option, print_json
from edgekd.errors import DeviceError, ExitCode, RecipeError, UsageError

if TYPE_CHECKING:
    from edgekd.devices.schema import Device
    from edgekd.recipe import Recipe
    from edgekd.results.profile import DeviceRecord


@click.group(invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="Also ask the example devices that ship with edgekd.")
@json_option
@debug_option
@click.pass_context
def devices(context: click.Context, everything: bool, as_json: bool, debug: bool) -> int:
    """List the machines to measure on, and whether each answers.

    These are this machine and the files of devices/ in the working folder. All are asked at once; one that is not reached
    within 5 s does not answer. The examples that ship with edgekd are only named.

    \b
      edgekd devices
      edgekd devices --json
      edgekd devices add pi@raspberrypi      ask a board and write its file

    The exit code is 0 also where a device does not answer: edgekd doctor NAME says why.
    """
    if context.invoked_subcommand is not None:
        return 0
    from edgekd import resources
    from edgekd.devices import schema
    from edgekd.profiling import readiness
    from edgekd.results.codec import to_json

    found: list[Device] = []
    wrong: dict[str, RecipeError] = {}
    examples = [] if everything else resources.examples([Path.cwd()])
    for name, path in sorted(resources.devices([Path.cwd()]).items()):
        if name in examples:
            continue
        try:
            found.append(schema.load(str(path)))
        except RecipeError as error:
            wrong[name] = error
    records = readiness.ask(found, [()] * len(found))
    if as_json:
        mistakes = {name: [vars(problem) for problem in error.problems] for name, error in wrong.items()}
        print_json({"devices": [to_json(record) for record in records], "wrong": mistakes})
    else:
        for line in rows(records):
            click.echo(line)
        for name, mistake in wrong.items():
            click.echo(f"{name}: its file is wrong\n{mistake}")
        if examples:
            click.echo(
                f"examples, not asked: {', '.join(examples)}   (edgekd doctor NAME asks one, edgekd devices --all asks all)"
            )
    return int(ExitCode.OK)


@devices.command()
@click.argument("target", metavar="TARGET")
@click.option("--name", help="Name of the device in recipes.  [default: by its host or serial number]")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of ssh.  [default: as ~/.ssh/config says, or 22]")
@click.option("--python", "pythons", multiple=True, metavar="PATH",
              help="Interpreter with the runtimes; repeatable.  [default: python3, ~/edgekd/bin/python]")  # fmt: skip
@click.option(
    "--emulated", is_flag=True, help="The device is emulated: its figures are marked so, and no gate on them passes."
)
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@debug_option
def add(
    target: str, name: str | None, port: int | None, pythons: Sequence[str], emulated: bool, force: bool, debug: bool
) -> int:
    """Ask a board or a phone what it is, and write devices/NAME.yaml.

    TARGET is a name of ~/.ssh/config, HOST or USER@HOST; or adb:SERIAL (adb alone for the only phone there is). Other
    settings of ssh, such as a key or a jump host, are read from ~/.ssh/config.

    \b
      edgekd devices add pi@raspberrypi
      edgekd devices add pi@10.0.0.7 --name bench-pi --port 2222
      edgekd devices add adb:R58M1234 --name pixel

    Exit codes: 0 written, 2 the file is there already, 4 it does not answer.
    """
    from edgekd.cache import storage
    from edgekd.profiling import adding

    chosen = adding.chosen(target, name, port, pythons, emulated=emulated)
    path = _free(chosen.name, force)
    try:
        device, found = adding.asked(chosen)
    except DeviceError as error:
        error.hint = adding.hint(error.hint)  # there is no file yet
        raise
    with storage(path):
        path.parent.mkdir(exist_ok=True)
        writes.write_text(path, adding.text(device, found, target))
    for line in _lines(found):
        click.echo(line)
    click.echo(f"\nWritten: {path}\nIn a recipe: profile: {{devices: [{device.name}]}}")
    return int(ExitCode.OK)


def _free(name: str, force: bool) -> Path:
    """The file of a new device.

    Raises:
        UsageError: It is there already, or there can be none.
    """
    path = Path("devices") / f"{name}.yaml"
    if path.parent.exists() and not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder, so {path} cannot be written", "work in another folder")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "give another --name, or --force to replace it")
    return path


def asked(recipe: Recipe) -> list[DeviceRecord]:
    """Ask the devices of a recipe whether they are ready."""
    from edgekd.profiling import readiness

    return readiness.of(recipe) if recipe.profile else []


def rows(found: Sequence[DeviceRecord]) -> Iterator[str]:
    """A line for each device, and what is in the way below it."""
    from edgekd.profiling.readiness import SLOW

    width = max((len(record.name) for record in found), default=0)
    for record in found:
        state = "does not answer" if not record.answered else "not ready" if record.problems else "ready"
        formats = ", ".join(dict.fromkeys(runtime.format for runtime in record.runtimes))
        slow = f"slow: {SLOW} {record.more[SLOW]}" if SLOW in record.more else ""
        what = ", ".join(filter(None, (record.transport, record.model or record.description, formats, slow)))
        yield f"{record.name:<{width}}  {state:<15}  {what}{' (EMULATED)' if record.emulated else ''}"
        yield from (f"{'':<{width}}  " + problem.replace("\n", f"\n{'':<{width}}  ") for problem in record.problems)


@click.command(short_help="Look at a device: its runtimes, known faults, and what to do.")
@click.argument("name", metavar="DEVICE")
@json_option
@debug_option
def doctor(name: str, as_json: bool, debug: bool) -> int:
    """Look at a device: what it is, which runtimes work on it, known faults, and what to do about them.

    DEVICE is a name of `edgekd devices`, or the path of a file. A real inference is run in each runtime, in a process of its
    own.

    \b
      edgekd doctor host
      edgekd doctor pi4
      edgekd doctor lab/pi4.yaml --json

    Exit codes: 0 a format can be measured there and nothing is in the way, 2 there is no such device or its file is wrong,
    4 it does not answer, no format works, or its file does not describe it.
    """
    from edgekd.devices import schema
    from edgekd.profiling import doctor as doctors
    from edgekd.profiling import transports
    from edgekd.results.codec import to_json

    device = schema.load(name, Path.cwd())
    try:
        with transports.to(device) as way:
            found = doctors.examine(device, way, thorough=True)
    except DeviceError as error:
        found = doctors.silent(device, error)
    code = ExitCode.DEVICE_FAILED if found.problems else ExitCode.OK
    if as_json:
        print_json({"device": to_json(found)}, code)
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
            works = (
                "does not work" if not runtime.works else "works" if runtime.python else "ran; its outputs were not compared"
            )
            where = f"  ({runtime.python})" if runtime.python else ""
            yield f"  {runtime.format:<8}  {runtime.package} {runtime.version}  {works}{where}"
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
    yield "battery", f"{found.more['battery_percent']} %" if "battery_percent" in found.more else ""
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
