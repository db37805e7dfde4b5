"""Options that several commands share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from edgekd.errors import UsageError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Number(click.FloatRange):
    """A finite number in a range: ``click.FloatRange`` lets nan through, and inf where there is no upper limit."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert, or say in words why not."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Size(click.ParamType):  # type: ignore[type-arg]  # not generic in older click
    """The size of images in pixels: one number, or HEIGHTxWIDTH."""

    name = "size"
    least, most = 8, 1024

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | tuple[int, int]:
        """Return one side of square images, or height and width."""
        sides = sizes(value)
        if len(sides) not in (1, 2) or not all(self.least <= side <= self.most for side in sides):
            allowed = f"{self.least} to {self.most} pixels, as one number or HEIGHTxWIDTH, such as 96 or 48x64"
            self.fail(f"{value} is not the size of images: {allowed}.", param, ctx)
        return sides[0] if len(set(sides)) == 1 else (sides[0], sides[-1])


def sizes(text: str) -> tuple[int, ...]:
    """Return the numbers of a text such as ``48x64`` (``×`` and ``,`` are allowed, too); empty if it is none."""
    parts = text.lower().replace(",", "x").replace("×", "x").split("x")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def once(context: click.Context, option: click.Parameter, values: tuple[Any, ...]) -> Any:
    """Return the only value of an option, or None.

    A callback beside ``multiple=True``: click by itself silently takes the last of several.
    """
    if len(values) > 1:
        raise click.BadParameter("it is given twice, and counts once.", ctx=context, param=option)
    return values[0] if values else None


recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key, such as distill.epochs=1. Repeatable."
)


def _renamed(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Refuse the earlier name of ``--processes``.

    Raises:
        UsageError: It is given.
    """
    if value is not None:
        hint = f"type --processes {value if value.isdecimal() else 'N'}"
        if not value.isdecimal():  # a board is meant
            has_device = any("--device" in other.opts for other in context.command.params)
            hint += f"; to measure on {value}: " + (
                f"--device {value}" if has_device else f"--set profile.devices=[{value}]"
            )
        raise UsageError("--devices: devices are boards now, not processes that train", hint)


def processes_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--processes``: how many train together."""
    text = "Number of processes that train together: one per GPU, or several on the CPU."
    named = click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help=text)
    return named(click.option("--devices", hidden=True, expose_value=False, callback=_renamed)(command))


threads_option = click.option(
    "--threads", type=click.IntRange(1), help="Number of threads of torch.  [default: one per core, at most 4]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")


def print_json(value: Mapping[str, Any], code: int = 0) -> None:
    """Print the result of a command with ``--json``: ``ok`` and ``exit_code`` of every command, then its own keys.

    Args:
        value: The command's own keys.
        code: Exit code of the command.
    """
    click.echo(json.dumps({"ok": not code, "exit_code": int(code)} | dict(value), ensure_ascii=False))


debug_option = click.option("--debug", is_flag=True, help="Show the Python traceback of an error.")


without_devices_option = click.option(
    "--without-devices", is_flag=True,
    help="Continue if a device does not answer or lacks a runtime; the report lists what was not measured.",
)  # fmt: skip


def out_option(default: str) -> Decorator:
    """``--out``, the folder that run folders go into."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path),
        default=Path(default),
        show_default=True,
        help="Folder in which run folders are written.",
    )
