"""A recipe with mistakes, as far as it can be checked: so that one round tells all of them.

Each wrong value is replaced by one that may stand there. A conflict counts only if it is there whatever stands in that
place: otherwise it may be no more than a consequence of the mistake that is told already.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from edgekd.errors import nearest
from edgekd.loading import shape, upgrade, words
from edgekd.loading.conflicts import conflicts, rules
from edgekd.loading.overrides import parse_key
from edgekd.loading.places import Draft
from edgekd.loading.source import Path, parse
from edgekd.recipe import Recipe
from edgekd.recipe.loss import Loss
from edgekd.registry import exporters, losses

ROUNDS = 8
"""Repairs may uncover further mistakes; after so many rounds the rest is not checked."""
TRIED = 16
"""Values that are tried in one place."""
_ABSENT = object()
_SEARCHED = ("task", "tune", "distill", "teacher", "student")
"""Sections that decide what a search may try."""
_TEXTS = {"source": ("fashion-mnist-mini", "random", "images:x", "synthetic"), "model": ("edgekd:resnet10", "onnx:x.onnx")}
"""By key, texts of kinds that decide what else a recipe may have."""


@dataclass(frozen=True)
class Repairs:
    """Changes of a recipe's plain value.

    Attributes:
        unsure: Places where another value stands than the one that was meant.
        renamed: Of sections whose key was misspelt, the place that is meant and the one that is written.
        dropped: Unknown keys that are left out, with their values.
    """

    unsure: list[Path] = field(default_factory=list)
    renamed: dict[Path, Path] = field(default_factory=dict)
    dropped: list[tuple[Path, Any]] = field(default_factory=list)

    def are_at(self, path: Path) -> bool:
        """Return whether a place, or one that it is in, has another value than the intended one."""
        return any(path[: len(place)] == place for place in self.unsure)

    def sound(self, drafts: Iterable[Draft]) -> list[Draft]:
        """Return the mistakes that are not about a repair, each at the place where it is written."""
        return [replace(draft, path=self._written(draft.path)) for draft in drafts if not self.are_at(draft.path)]

    def _written(self, path: Path) -> Path:
        for meant, written in self.renamed.items():
            if path[: len(meant)] == meant:
                return (*written, *path[len(meant) :])
        return path


@dataclass(frozen=True)
class Validated:
    """Mistakes of a plain recipe, by the schema and the conflicts.

    Attributes:
        recipe: The recipe; None where the schema finds a mistake.
        drafts: Every mistake.
        salvaged: The recipe, or one with repairs that the rest can be checked on; None where nothing helps.
        repairs: What was changed in it.
    """

    recipe: Recipe | None
    drafts: list[Draft]
    salvaged: Recipe | None
    repairs: Repairs = field(default_factory=Repairs)


def validate(value: dict[str, Any]) -> Validated:
    """Check a plain recipe: every mistake of the schema, and every impossible combination."""
    recipe, drafts = _parsed(value)
    if recipe is not None:
        return Validated(recipe, _conflicts(recipe), recipe)
    work, repairs, found = copy.deepcopy(value), Repairs(), list(drafts)
    for _ in range(ROUNDS):
        for draft in sorted(drafts, key=lambda draft: len(draft.path)):
            inside = [place for place in repairs.unsure if place[: len(draft.path)] == draft.path]
            if inside:  # what stands there now does not do for the whole section
                _choose(work, inside, draft.path)
            elif not repairs.are_at(draft.path):
                _repair(work, draft, repairs)
        recipe, drafts = _parsed(work)
        told = (draft for draft in drafts if not any(place[: len(draft.path)] == draft.path for place in repairs.unsure))
        found += repairs.sound(told)
        if recipe is not None:
            return Validated(None, found + _independent(work, recipe, repairs), recipe, repairs)
    return Validated(None, found, None, repairs)


def _parsed(value: dict[str, Any]) -> tuple[Recipe | None, list[Draft]]:
    try:
        # As JSON, because strict JSON is what a recipe means: a list is a tuple, but '8' is no number and true no 1.
        return Recipe.model_validate_json(json.dumps(upgrade.with_earlier_defaults(value)), strict=True), []
    except ValidationError as error:
        return None, words.drafts(error, value)


def _conflicts(recipe: Recipe) -> list[Draft]:
    return [Draft(parse_key(key), message, hint) for key, message, hint in conflicts(recipe)]


def _independent(value: dict[str, Any], recipe: Recipe, repairs: Repairs) -> list[Draft]:
    """Return the conflicts that are there whatever stands in the places of the repairs."""
    found = repairs.sound(_conflicts(recipe))
    if ("task",) in repairs.unsure:  # the one that is meant may be installed elsewhere, with metrics of its own
        of_task = {(parse_key(key), message) for key, message, _ in rules.of_task(recipe)}
        found = [draft for draft in found if (draft.path, draft.message) not in of_task]
    # A search looks at each of its values, which is too much to do again for each repair.
    of_search = [draft for draft in found if draft.path[0] == "tune"]
    if any(place[0] in _SEARCHED for place in repairs.unsure):
        of_search = []
    found = [draft for draft in found if draft.path[0] != "tune"]
    for changed in _others(value, repairs):
        if not found:
            break
        other, _ = _parsed(changed)
        if other is not None:
            conflicting = _conflicts(other.model_copy(update={"tune": None}))
            there = {(draft.path, draft.message) for draft in repairs.sound(conflicting)}
            found = [draft for draft in found if (draft.path, draft.message) in there]
    return found + of_search


def _others(value: dict[str, Any], repairs: Repairs) -> Iterator[dict[str, Any]]:
    """Yield the value with something else in one of the places of the repairs."""
    for place in repairs.unsure:
        for candidate in _candidates(value, place):
            yield _with(value, place, candidate)
    for path, raw in repairs.dropped:  # a key of another section, most often by its indentation
        key = str(path[-1])
        for name in ("", *Recipe.model_fields):
            section = shape.at(value, (name,)) if name else value
            model = shape.model_of(shape.annotation_at(value, (name,)), section) if name else Recipe
            if model is not None and key in model.model_fields and isinstance(section, dict) and key not in section:
                yield _with(value, (name, key) if name else (key,), raw)


def _repair(value: dict[str, Any], draft: Draft, repairs: Repairs) -> None:
    """Replace what is wrong at one place of a plain recipe."""
    path = draft.path
    while len(path) > 1 and not isinstance(shape.at(value, path[:-1]), dict | list):
        path = path[:-1]  # a text where a section belongs
    parent = shape.at(value, path[:-1])
    there = path[-1] in parent if isinstance(parent, dict) else isinstance(parent, list)
    if draft.at_key and there:
        raw = parent.pop(path[-1])
        model = shape.model_of(shape.annotation_at(value, path[:-1]), parent)
        meant = nearest(str(path[-1]), model.model_fields if model else ())
        if meant is not None and meant not in parent:
            parent[meant] = raw
            repairs.renamed[*path[:-1], meant] = path
        else:
            repairs.dropped.append((path, raw))
        return
    known = {other.path for other in _parsed(value)[1]}
    for guess in _meant(parent[path[-1]]) if there else ():  # such as 8 in quotes: the value is known all the same
        if _fits(_with(value, path, guess), path, known):
            _put(value, path, guess)
            return
    repairs.unsure.append(path)
    for candidate in _candidates(value, path):
        if _fits(_with(value, path, candidate), path, known):
            _put(value, path, candidate)
            return
    if len(path) > 1:  # nothing fits: the section goes as a whole
        repairs.unsure.append(path[:-1])
        _put(value, path[:-1], next(iter(_candidates(value, path[:-1])), _ABSENT))


def _choose(value: dict[str, Any], places: Sequence[Path], section: Path) -> None:
    """Put another value into one of the places, with which their section has no mistake."""
    for place in places:
        for candidate in _candidates(value, place):
            if not any(draft.path[: len(section)] == section for draft in _parsed(_with(value, place, candidate))[1]):
                _put(value, place, candidate)
                return


def _fits(value: dict[str, Any], path: Path, known: set[Path]) -> bool:
    """Whether a value is right in its place, and leaves nothing to be missed in what is around it."""
    found = {draft.path for draft in _parsed(value)[1]}
    return path[:-1] not in found - known and not any(place[: len(path)] == path for place in found)


def _meant(raw: Any) -> Iterator[Any]:
    """Yield what a value of a wrong kind was probably meant to be."""
    if isinstance(raw, str):
        number = parse(raw, "").value if len(raw) < 20 else None  # as it is without the quotes
        if isinstance(number, int | float):
            yield number
        if raw.lower() in words.SPOKEN:
            yield words.SPOKEN[raw.lower()] == "true"
    elif isinstance(raw, float) and raw.is_integer():
        yield int(raw)
    elif isinstance(raw, int):
        yield str(raw)
    if raw is not None:
        yield [raw]


def _candidates(value: dict[str, Any], path: Path) -> Iterator[Any]:
    """Yield values that may stand at a place, the usual ones first."""
    info, raw = words.field_at(path, value), shape.at(value, path)
    if isinstance(raw, str) and (near := nearest(raw, _names(path, value))) is not None:
        yield near
    if info is not None and not info.is_required():
        yield _ABSENT
    tried = [*(info.examples or () if info is not None else ())]
    for arm in shape.arms(shape.annotation_at(value, path)):
        tried += _values(arm, value, str(path[-1]))
    unlike = [one for index, one in enumerate(tried) if one not in tried[:index]]
    yield from unlike[:TRIED]


def _names(path: Path, value: dict[str, Any]) -> list[str]:
    """Return the names of which one may have been meant."""
    if path[-1] == "kind":
        return losses.names()
    if path[0] == "export" and path[-1] != "precision":
        return exporters.names()
    arms = shape.arms(shape.annotation_at(value, path))
    return [choice for arm in arms if get_origin(arm) is Literal for choice in get_args(arm) if isinstance(choice, str)]


def _values(arm: Any, value: dict[str, Any], key: str) -> list[Any]:
    origin = get_origin(arm)
    if origin is Literal:
        return list(get_args(arm))
    if origin is tuple:  # names of devices and the like are those that the recipe has elsewhere
        return [[], [*dict.fromkeys(_texts(value))]]
    if isinstance(arm, type) and issubclass(arm, Loss):
        return [{"kind": kind} for kind in ("task", "kd", *losses.names())]
    if isinstance(arm, type) and issubclass(arm, BaseModel):
        needed = {name: info for name, info in arm.model_fields.items() if info.is_required()}
        return [{name: next(iter(info.examples or [None])) for name, info in needed.items()}]
    plain: dict[Any, list[Any]] = {bool: [True, False], int: [1, 2, 0, 1000], float: [0.5, 1.0, 0.0, 1000.0]}
    return list(_TEXTS.get(key, ("text",))) if arm is str else plain.get(arm, [{}])


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a plain value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _with(value: dict[str, Any], path: Path, new: Any) -> dict[str, Any]:
    changed = copy.deepcopy(value)
    _put(changed, path, new)
    return changed


def _put(value: dict[str, Any], path: Path, new: Any) -> None:
    """Put a value into its place, or leave it out; nothing happens where what is around it has gone."""
    outer, last = shape.at(value, path[:-1]), path[-1]
    has_place = isinstance(outer, dict) or (isinstance(outer, list) and isinstance(last, int) and last < len(outer))
    if new is not _ABSENT and has_place:
        outer[last] = copy.deepcopy(new)
    elif isinstance(outer, dict):
        outer.pop(last, None)
