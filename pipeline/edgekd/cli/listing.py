"""``edgekd list``: what a recipe can name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from edgekd.cli.options import debug_option, json_option
from edgekd.errors import EdgekdError, RecipeError, UsageError

_WHAT = ("recipes", "models", "tasks", "losses", "metrics", "devices", "data", "formats", "runtimes")


@click.command("list")
@click.argument("what", type=click.Choice(_WHAT))
@click.option("--match", default="*", help="Only names that match a pattern, such as '*mobilenet*'.  [default: all]")
@json_option
@debug_option
def list_(what: str, match: str, as_json: bool, debug: bool) -> int:
    """List what a recipe can name, and which formats and runtimes there are.

    A package that adds a name and cannot be used is listed on standard error, with the reason.

    \b
      edgekd list losses
      edgekd list formats
      edgekd list models --match '*mobilenet*'
    """
    from fnmatch import fnmatch

    rows, broken = _rows(what)
    rows = {name: row for name, row in rows.items() if fnmatch(name, match)}
    broken = {name: error for name, error in broken.items() if fnmatch(name.partition(" ")[0], match)}
    if as_json:
        told = {name: {"error": error.message, "hint": error.hint} for name, error in broken.items()}
        values = {name: row if isinstance(row, str) else asdict(row) for name, row in rows.items()}
        click.echo(json.dumps(values | told, ensure_ascii=False))
        return 0
    width = max((len(name) for name in rows), default=0)
    for name, row in rows.items():
        click.echo(f"{name:<{width}}  {row}".rstrip() if isinstance(row, str) else str(row))
    if what == "losses":
        click.echo("\nEach has start_epoch, end_epoch and warmup_epochs; with an ensemble, teacher.")
    for error in broken.values():
        click.echo(f"cannot be used: {error}", err=True)
    return 0


def _rows(what: str) -> tuple[Mapping[str, str | _Runtime | _Format], dict[str, UsageError]]:
    """Return the rows of a list by name; and by name, why a plug-in of another package cannot be used."""
    from edgekd import registry
    from edgekd.runtimes.base import runtimes

    if what == "losses":
        losses, broken = registry.losses.listed()
        return {name: _loss_line(loss) for name, loss in losses.items()}, broken
    if what == "tasks":
        tasks, broken = registry.tasks.listed()
        return {name: _first_line(task) for name, task in tasks.items()}, broken
    if what == "metrics":
        metrics, broken = registry.metrics.listed()
        tasks = registry.tasks.usable()
        return {name: _metric_line(name, metric, tasks) for name, metric in metrics.items()}, broken
    if what == "data":
        sources, broken = registry.sources.listed()
        facts = sorted((kind() for kind in sources.values()), key=lambda each: ":" in each.form)
        return {each.form: each.summary for each in facts}, broken
    if what == "formats":
        return _formats(), registry.exporters.listed()[1] | runtimes.listed()[1]
    if what == "runtimes":
        return _runtimes(), runtimes.listed()[1]
    return dict(_files(what)), {}


def _files(what: str) -> list[tuple[str, str]]:
    """Return the names and lines of what is no plug-in: devices, recipes and models."""
    from edgekd import resources

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


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").strip().split("\n")[0]


def _metric_line(name: str, metric: Any, tasks: Mapping[str, Any]) -> str:
    """Say what a metric is, and which tasks have it; a gate holds it where its task has it."""
    of = [kind for kind, task in tasks.items() if name in {one.name for one in (*task.metrics, task.agreement)}]
    unit = f"{metric.unit}, " if metric.unit else ""
    text = f"{_first_line(metric)} [{metric.label}; {unit}{metric.better} is better]"
    return f"{text}; of {', '.join(of)}" if of else text


def _described(path: Path) -> str:
    """What a device's file says of it; a file that is wrong is listed too."""
    from edgekd.devices import schema

    try:
        return schema.load(str(path)).description
    except RecipeError as error:
        return f"its file is wrong: edgekd doctor {path.stem} says where ({len(error.problems)} mistakes)"


def _loss_line(loss: type) -> str:
    from edgekd.recipe.loss import Loss

    text = _first_line(loss)
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
    for name, kind in runtimes.usable().items():
        runtime = kind()
        installed = {package: version for package, version in versions(runtime.packages).items() if version[0].isdigit()}
        package = next((package for package in runtime.packages if package in installed), runtime.packages[0])
        found[name] = _Runtime(name, runtime.label, package, installed.get(package, ""), runtime.suffixes)
    return found


def _formats() -> dict[str, _Format]:
    from edgekd.exporting.exporter import Supported
    from edgekd.registry import exporters

    runtimes, found = _runtimes(), {}
    for name, exporter in exporters.usable().items():
        told: dict[str, Any] = getattr(exporter, "precisions", {})
        can = {precision: one.computes for precision, one in told.items() if isinstance(one, Supported)}
        refused = {precision: vars(one) for precision, one in told.items() if precision not in can}
        found[name] = _Format(name, runtimes.get(name), can, refused)
    return found
