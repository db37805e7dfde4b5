"""``edgekd profile``: model files on devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekd.cli import interruption
from edgekd.cli.options import Number, debug_option, json_option, once, out_option, print_json, sizes
from edgekd.errors import UsageError

if TYPE_CHECKING:
    from edgekd.artifacts.profile import Settings


@click.command(short_help="Measure latency, memory and outputs of model files on devices.")
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--device", "devices", multiple=True, default=("host",), show_default=True, metavar="NAME",
              help="A name of `edgekd devices`, or the path of its file. Repeatable: all measure at once.")  # fmt: skip
@click.option("--threads", multiple=True, callback=once, type=click.IntRange(1),
              help="Number of threads of the runtime.  [default: as the device's file says, or 1]")  # fmt: skip
@click.option("--cores", multiple=True, callback=once, metavar="N,N",
              help="Cores to pin to, such as 2,3.  [default: as the device's file says]")  # fmt: skip
@click.option("--shape", "shapes", multiple=True, metavar="INPUT=1x3x224x224",
              help="Size of an input that is open in the model, other than a batch. Repeatable.")  # fmt: skip
@click.option("--input", "inputs", multiple=True, metavar="INPUT=FILE.npy",
              help="Values of an input, fed row by row; without it they are random. Repeatable.")  # fmt: skip
@click.option("--accuracy", multiple=True, callback=once, type=click.IntRange(1), metavar="N",
              help="Also classify N images of the bundle on each device, for its accuracy there.")  # fmt: skip
@click.option("--sustained", multiple=True, callback=once, type=Number(0, 1440), metavar="MINUTES",
              help="Also run each file for that many minutes without a pause; 1440 (a day) at most.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE",
              help="Change how long each file is measured, such as blocks=3. Keys: warmup_runs, warmup_ms, blocks, "
                   "block_ms, block_runs (ms: milliseconds). Repeatable.")  # fmt: skip
@click.option("--against", multiple=True, callback=once, type=click.Path(path_type=Path), metavar="RUN",
              help="Compare with an earlier run or profile: faster, slower, or no difference shown.")  # fmt: skip
@click.option("--pack", "target", multiple=True, callback=once, type=click.Path(path_type=Path), metavar="DIR|FILE.zip",
              help="Measure nothing now: write a folder or a zip that measures on a board without a network.")  # fmt: skip
@out_option("reports")
@json_option
@debug_option
def profile(
    artifacts: tuple[Path, ...],
    devices: tuple[str, ...],
    threads: int | None,
    cores: str | None,
    shapes: tuple[str, ...],
    inputs: tuple[str, ...],
    accuracy: int | None,
    sustained: float | None,
    overrides: tuple[str, ...],
    against: Path | None,
    target: Path | None,
    out: Path,
    as_json: bool,
    debug: bool,
) -> int:
    """Measure model files on devices: latency, memory, outputs, single operations, and whether the figures can be trusted.

    ARTIFACT is a run folder, the folder of a bundle, or a file: .onnx, .tflite, or OpenVINO's .xml; any file, not only
    those of edgekd. On each device the files are measured in turns.

    \b
      edgekd profile model.onnx --device pi4
      edgekd profile reports/mobilenet/latest --device host --device pi4 --accuracy 500
      edgekd profile bert.onnx --shape input_ids=1x128 --shape attention_mask=1x128
      edgekd profile model.onnx --device pi4 --set blocks=3 --set block_runs=5      a quick look
      edgekd profile new.onnx --device pi4 --against reports/profile/0007-1f00aa12
      edgekd profile reports/mobilenet/latest --pack board.zip   then on the board: python3 profile.py

    Exit codes: 0 everything was measured, 2 a file or a device's file is wrong, 3 the result cannot be written, 4 a device
    or a file on it failed (what else was measured is kept), 130 interrupted.
    """
    from edgekd.artifacts.inputs import Given
    from edgekd.artifacts.profile import Settings
    from edgekd.artifacts.profile import profile as run
    from edgekd.artifacts.protocol import protocol
    from edgekd.progress import for_stream
    from edgekd.results.codec import to_json

    given = Given(
        {name: _shape(text) for name, text in _pairs("--shape", shapes).items()},
        {name: Path(path) for name, path in _pairs("--input", inputs).items()},
        accuracy,
    )
    settings = Settings(
        devices=devices, threads=threads, cores=_cores(cores) if cores else (), given=given, out=out, against=against,
        protocol=protocol(overrides, sustained or 0),
        progress=interruption.Heard(for_stream()), interrupted=interruption.heard, debug=debug,
    )  # fmt: skip
    if target is not None:
        return _pack(artifacts, settings, target, sustained, as_json=as_json)
    if against is not None and (names := [text for text in overrides if text.startswith("block")]):
        raise UsageError(f"--against and --set {names[0]} do not go together", "a comparison needs many short blocks")
    try:
        found = run(artifacts, settings)
    except KeyboardInterrupt:
        left = "no device was finished, so there is no report; the same command measures all again"
        raise KeyboardInterrupt(left) from None
    if as_json:
        print_json({"folder": str(found.folder), "result": to_json(found.result)}, found.exit_code)
    else:
        from rich.console import Console

        from edgekd.report.layouts import terminal

        terminal.show(found.result, Console())
        click.echo(f"\nReport: {found.folder / 'report.html'}")
    return int(found.exit_code)


def _pack(artifacts: tuple[Path, ...], settings: Settings, target: Path, sustained: float | None, *, as_json: bool) -> int:
    from edgekd.artifacts.pack import pack

    ignored = {
        "--device": settings.devices != ("host",),
        "--sustained": sustained,
        "--against": settings.against,
        "--out": settings.out != Path("reports"),
    }
    if names := [name for name, given in ignored.items() if given]:
        raise UsageError(f"--pack and {', '.join(names)} do not go together", "a pack measures later, on another machine")
    path = pack(artifacts, settings, target)
    if as_json:
        print_json({"pack": str(path)})
    else:
        click.echo(f"{path}: run python3 profile.py in it on the board")
    return 0


def _pair(text: str) -> tuple[str, str]:
    """``NAME=VALUE``; a name may have ``=`` in it, a value has none."""
    name, sign, value = text.rpartition("=")
    if not sign or not name or not value:
        raise UsageError(f"{text} is not INPUT=VALUE", "such as input_ids=1x128")
    return name, value


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Values by the names of inputs, each of which counts once."""
    found: dict[str, str] = {}
    for name, value in map(_pair, texts):
        if name in found:
            raise UsageError(f"{option} {name} is given twice: {found[name]} and {value}", "give one value for each input")
        found[name] = value
    return found


def _shape(text: str) -> tuple[int, ...]:
    sides = sizes(text)
    if not sides or min(sides) < 1:
        raise UsageError(f"{text} is not a size", "write whole numbers with x between them, such as 1x3x224x224")
    return sides


def _cores(text: str) -> tuple[int, ...]:
    try:
        cores = tuple(int(core) for core in text.split(","))
        if min(cores) < 0:
            raise ValueError(text)
        return cores
    except ValueError:
        raise UsageError(f"--cores {text} is not a list of cores", "write numbers with commas between them: 2,3") from None
