"""One recipe made of several parts: each knows where its values were written, and whose fault a problem of the whole is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.errors import Problem
from edgekd.loading import files
from edgekd.loading.places import Draft, Places
from edgekd.loading.shape import at, show
from edgekd.loading.source import Path as Key
from edgekd.loading.source import Source
from edgekd.recipe import Recipe

LOSSES: Key = ("distill", "losses")


@dataclass(frozen=True)
class Layer:
    """Keys of a recipe.

    Attributes:
        value: The keys.
        places: Where they were written.
        folder: Where paths among them start.
        name: What messages call this part, such as ``pairs.small``; empty for a file of its own.
        listed: Whether it was written as a list of losses.
    """

    value: dict[str, Any]
    places: Places
    folder: Path
    name: str = ""
    listed: bool = False

    def problems(self, draft: Draft) -> Iterator[Problem]:
        """Place a problem of the whole recipe in this part of it."""
        for problem in self.places.problems([draft]):
            key = problem.key.removeprefix(show(LOSSES)) if self.listed else problem.key
            joint = "." if self.name and key and not key.startswith("[") else ""
            yield replace(problem, key=f"{self.name}{joint}{key}")


@dataclass(frozen=True)
class Layered:
    """The places of a recipe that is made of several parts.

    Attributes:
        layers: The parts; a later one covers those before it.
    """

    layers: tuple[Layer, ...]

    def problems(self, drafts: Iterable[Draft]) -> list[Problem]:
        """Place each problem in the part that its value comes from."""
        return [problem for draft in drafts for problem in owner(self.layers, draft.path).problems(draft)]


def part(whole: Places, value: Any, prefix: Key, folder: Path) -> Layer:
    """Return what stands at ``prefix`` of a file as keys of a recipe; a list there are the losses."""
    inside: Key = LOSSES if isinstance(value, list) else ()

    def own(table: dict[Key, Any]) -> dict[Key, Any]:
        found = {(*inside, *key[len(prefix) :]): place for key, place in table.items() if key[: len(prefix)] == prefix}
        return found | ({(): table[prefix]} if inside and prefix in table else {})

    source = Source(whole.source.where, whole.source.text, keys=own(whole.source.keys), values=own(whole.source.values))
    setting = whole.setting(prefix)
    places = Places(source, own(whole.settings) | ({(): setting} if setting else {}))
    keys = {"distill": {"losses": value}} if inside else value
    return Layer(keys, places, folder, show(prefix), bool(inside))


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Lay keys over keys: mappings are joined, save one that names a model, which replaces the network that was there."""
    value: dict[str, Any] = {}
    for layer in layers:
        value = _over(value, layer.value)
    return value


def owner(layers: Sequence[Layer], path: Key) -> Layer:
    """Return the part that a place in the whole comes from: the uppermost one that has it, or the most of it."""
    best, furthest = layers[0], -1
    for layer in reversed(layers):
        depth = 0
        while depth < len(path) and _has(layer.value, path[: depth + 1]):
            depth += 1
        if depth == len(path) or (depth and not _joins(at(layer.value, path[:depth]))):
            return layer
        if depth > furthest:
            best, furthest = layer, depth
    return best


def resolved(recipe: Recipe, layers: Sequence[Layer]) -> Recipe:
    """Return the recipe with absolute paths, each from the folder of the part that it is from."""

    def folder_of(path: Key) -> Path:
        layer = owner(layers, path)
        return files.start(layer.folder, layer.places)(path)

    return files.absolute(recipe, folder_of, [layer.folder for layer in reversed(layers)])


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    value = dict(below)
    for key, new in above.items():
        old = value.get(key)
        value[key] = _over(old, new) if isinstance(old, dict) and _joins(new) else new
    return value


def _joins(value: Any) -> bool:
    return isinstance(value, dict) and "model" not in value


def _has(value: Any, path: Key) -> bool:
    outer, last = at(value, path[:-1]), path[-1]
    if isinstance(outer, dict):
        return last in outer
    return isinstance(outer, list) and isinstance(last, int) and last < len(outer)
