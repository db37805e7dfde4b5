"""``edgekd list``: what a recipe can name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from edgekd.cli.options import debug_option, json_option
from edgekd.errors import EdgekdError, RecipeError


@click.command("list")
@click.argument(
    "what", type=click.Choice(["recipes", "models", "tasks", "losses", "devices", "data", "formats", "runtimes"])
)
@click.option("--match", default="*", help="Only names that match a pattern, such as '*mobilenet*'.  [default: all]")
@json_option
@debug_option
def list_(what: str, match: str, as_json: bool, debug: bool) -> int:
    """List what a recipe can name, and which formats and runtimes there are.

    \b
      edgekd list losses
      edgekd list formats
      edgekd list models --match '*mobilenet*'
    """
    from fnmatch import fnmatch

    if what in ("formats", "runtimes"):
        found = {
            name: row for name, row in (_formats() if what == "formats" else _runtimes()).items() if fnmatch(name, match)
        }
        click.echo(
            json.dumps({name: asdict(row) for name, row in found.items()})
            if as_json
            else "\n".join(map(str, found.values()))
        )
        return 0
    rows = [(name, text) for name, text in _rows(what) if fnmatch(name, match)]
    if as_json:
        click.echo(json.dumps(dict(rows), ensure_ascii=False))
    else:
        width = max((len(name) for name, _ in rows), default=0)
        for name, text in rows:
            click.echo(f"{name:<{width}}  {text}".rstrip())
        if what == "losses":
            click.echo("\nEach has start_epoch, end_epoch and warmup_epochs; with an ensemble, teacher.")
    return 0


def _rows(what: str) -> list[tuple[str, str]]:
    from edgekd import registry, resources
    from edgekd.recipe.source import catalogue

    if what == "losses":
        return [(name, _loss_line(registry.losses.get(name))) for name in registry.losses.names()]
    if what == "tasks":
        return [(name, (registry.tasks.get(name).__doc__ or "").strip().split("\n")[0]) for name in registry.tasks.names()]
    if what == "data":
        return [(each.form, each.summary) for each in catalogue()]
    if what == "devices":
        return [(name, _described(path)) for name, path in sorted(resources.devices([Path.cwd()]).items())]
    if what == "recipes":
        return [(name, _first_comment(resources.find("recipes", name))) for name in resources.available("recipes")]
    from edgekd.models import build

    found = [(f"{source}:{name}", "") for source in ("edgekd", "torchvision") for name in build.names(source)]
    try:
        found += [(f"timm:{name}", "") for name in build.names("timm")]
    except EdgekdError:
        found.append(("timm:NAME", "pip install 'edgekd[timm]'"))
    return [*found, ("FILE.py:CALLABLE", "your own, beside the recipe")]


def _described(path: Path) -> str:
    """What a device's file says of it; a file that is wrong is listed too."""
    from edgekd.devices import schema

    try:
        return schema.load(str(path)).description
    except RecipeError as error:
        return f"its file is wrong: edgekd doctor {path.stem} says where ({len(error.problems)} mistakes)"


def _loss_line(loss: type) -> str:
    from edgekd.recipe.loss import Loss

    text = (loss.__doc__ or "").strip().splitlines()[0]
    fields: dict[str, Any] = getattr(loss, "model_fields", {})
    shared = {name: field.default for name, field in Loss.model_fields.items() if name != "weight"}
    own = {name: field.default for name, field in fields.items() if name != "kind"}
    options = ", ".join(f"{name}={value}" for name, value in own.items() if name not in shared or value != shared[name])
    return f"{text} [{options}]"


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = (line[2:] for line in lines if line.startswith("# ") and "yaml-language-server" not in line)
    return next(comments, "")


@dataclass(frozen=True)
class _Runtime:
    """A runtime on this machine; ``version`` is empty where its package is not installed."""

    name: str
    label: str
    package: str
    version: str
    suffixes: tuple[str, ...]

    def installed(self) -> str:
        """Say which package has it, and whether that is there."""
        return f"{self.label} ({self.package} {self.version or 'is not installed'})"

    def __str__(self) -> str:
        return f"{self.name:<9} {self.installed()}, for {' and '.join(self.suffixes)}"


@dataclass(frozen=True)
class _Format:
    """A format: its runtime on this machine, None without one; by precision, what it computes in, or why it cannot be."""

    name: str
    runtime: _Runtime | None
    precisions: dict[str, str]
    refused: dict[str, dict[str, str]]

    def __str__(self) -> str:
        runtime = self.runtime.installed() if self.runtime else "no runtime on this machine"
        lines = [f"{self.name:<9} {', '.join(self.precisions)}; {runtime}"]
        lines += [f"{'':<9} no {name}: {told['why']}; {told['instead']}" for name, told in self.refused.items()]
        return "\n".join(lines)


def _runtimes() -> dict[str, _Runtime]:
    from edgekd.environment import versions
    from edgekd.runtimes.base import runtimes

    found = {}
    for name in runtimes.names():
        runtime = runtimes.get(name)()
        installed = {package: version for package, version in versions(runtime.packages).items() if version[0].isdigit()}
        package = next((package for package in runtime.packages if package in installed), runtime.packages[0])
        found[name] = _Runtime(name, runtime.label, package, installed.get(package, ""), runtime.suffixes)
    return found


def _formats() -> dict[str, _Format]:
    from edgekd.exporting.exporter import Supported
    from edgekd.registry import exporters

    runtimes, found = _runtimes(), {}
    for name in exporters.names():
        told: dict[str, Any] = getattr(exporters.get(name), "precisions", {})
        can = {precision: one.computes for precision, one in told.items() if isinstance(one, Supported)}
        refused = {precision: vars(one) for precision, one in told.items() if precision not in can}
        found[name] = _Format(name, runtimes.get(name), can, refused)
    return found
