"""Sentences for pydantic's errors: what is required, what is there instead, and what to write."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import annotated_types
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from edgekd.errors import did_you_mean, joined
from edgekd.loading.places import Draft
from edgekd.loading.shape import Rooted, annotation_at, arms, at, homes, method_of, model_of, models_of
from edgekd.loading.source import CORE_SCHEMA, Path
from edgekd.recipe import Recipe
from edgekd.recipe.study import Study

SPOKEN = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
"""Words for true and false that are text in YAML 1.2."""


def drafts(error: ValidationError, value: Any) -> list[Draft]:
    """Turn what pydantic found in a plain value into problems: root causes only, one for each place."""
    found: dict[tuple[Path, str], Draft] = {}
    meant: set[Path] = set()
    unions: dict[Path, list[tuple[Path, ErrorDetails]]] = {}
    for details in error.errors(include_url=False):
        path, union = _locate(details, value)
        if details["type"] == "too_short" and at(value, path):
            continue  # pydantic counts the good items; the bad ones are told of already
        if union is not None:
            unions.setdefault(union, []).append((path, details))
            continue
        draft = _draft(path, details, value)
        found[path, draft.message] = draft
        if details["type"] == "extra_forbidden" and (key := re.fullmatch(r"did you mean (.+)\?", draft.hint)):
            meant.add((*path[:-1], key[1]))
    for union, members in unions.items():
        for draft in _of_union(union, members, value):
            found[draft.path, draft.message] = draft
    # A misspelt key is one mistake, not an unknown key and a missing one.
    return [draft for draft in found.values() if not (draft.path in meant and draft.message == "is missing")]


def _of_union(union: Path, members: Sequence[tuple[Path, ErrorDetails]], value: Any) -> Iterator[Draft]:
    """Yield the mistakes of the alternative that was meant: the one that got furthest; one sentence if none got inside.

    A validator's own words mean that its alternative has read all keys, although their place is that of the whole value.
    """
    furthest = max(len(path) for path, _ in members)
    for path, details in members:
        if len(path) == furthest > len(union) or details["type"] == "mistake":
            yield _draft(path, details, value)
    if furthest == len(union) and not any(details["type"] == "mistake" for _, details in members):
        yield _wrong(union, value)


def _locate(details: ErrorDetails, value: Any) -> tuple[Path, Path | None]:
    """Return the path in the value, and that of the union if pydantic names one of its alternatives in between."""
    path: Path = ()
    union: Path | None = None
    for index, part in enumerate(details["loc"]):
        inside = at(value, path)
        present = (isinstance(inside, dict) and part in inside) or (isinstance(inside, list) and isinstance(part, int))
        if present or (index == len(details["loc"]) - 1 and details["type"] == "missing"):
            path = (*path, part)
        elif union is None:
            union = path
    return path, union


def _draft(path: Path, details: ErrorDetails, value: Any) -> Draft:
    kind, context = details["type"], details.get("ctx", {})
    if path == ("edgekd",) and kind == "missing":
        version = _example(None, path, value)
        return Draft(path, "the version of the recipe is missing", f"make edgekd: {version} its first line")
    if kind == "missing":
        return Draft(path, "is missing", f"add {path[-1]}: {_example(annotation_at(value, path), path, value)}")
    if kind == "extra_forbidden":
        return _unknown(path, value)
    if kind == "mistake":
        inside = at(value, path)
        key = (context["key"],) if isinstance(inside, dict) and context["key"] in inside else ()
        return Draft((*path, *key), context["message"], context["hint"])
    if kind in {"value_error", "assertion_error"}:
        return Draft(path, str(context["error"]) or "is not valid")
    if kind == "too_short":
        return Draft(path, f"needs at least {context['min_length']} item", _item(path, value))
    return _wrong(path, value)


def _unknown(path: Path, value: Any) -> Draft:
    key, parent = str(path[-1]), path[:-1]
    if isinstance(value, Rooted):  # keys of a recipe's sections are not meant
        return Draft(path, "unknown key", did_you_mean(key, value.model.model_fields), at_key=True)
    hint, elsewhere = other_key(key, annotation_at(value, parent), at(value, parent))
    # The key of another section is most often a line with the wrong indentation.
    return Draft(path, "unknown key", f"{hint}; check the indentation" if elsewhere else hint, at_key=True)


def other_key(key: str, annotation: Any, raw: Any) -> tuple[str, bool]:
    """Say what an unknown key may have been meant to be, and whether that is a key of another section."""
    model = model_of(annotation, raw)
    having = [method_of(other) for other in models_of(annotation) if key in other.model_fields]
    if having and model:
        own = f"method: {method_of(model)} has {', '.join(sorted(model.model_fields))}"
        return f"{key} is a key of method: {joined(having)}; {own}", False
    hint = did_you_mean(key, model.model_fields if model else ())
    if model is Study and key in Recipe.model_fields:
        return f"{key} is a key of a recipe: write it inside recipe, a pair or a method", False
    elsewhere = homes(key)
    if not hint.startswith("did you mean") and elsewhere:
        return f"{key} is a key of {joined(elsewhere)}", True
    return hint, False


def _wrong(path: Path, value: Any) -> Draft:
    """Say what must be there and what is there, from the schema alone."""
    annotation, raw = annotation_at(value, path), at(value, path)
    chosen = repr(raw) if isinstance(raw, str) and _choices(annotation) and len(raw) <= 40 else given(raw)
    if isinstance(raw, list) and _length(annotation):
        chosen = f"a list of {len(raw)}"
    return Draft(path, f"must be {expected(annotation)}, not {chosen}", _advice(annotation, path, value))


def expected(annotation: Any) -> str:
    """Say what an annotation allows, such as ``a whole number above 0``."""
    words: list[str] = []
    for arm in arms(annotation):
        origin = typing.get_origin(arm)
        if origin is Literal:
            words.extend(str(choice) for choice in typing.get_args(arm))
        elif arm is bool:
            words.append("true or false")
        elif arm in (int, float):
            words.append(f"{'a whole number' if arm is int else 'a number'}{_bounds(annotation)}")
        elif arm is str:
            words.append("text")
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            words.append("a mapping (key: value)")
        elif isinstance(origin, type) and issubclass(origin, Sequence):
            count = _length(arm)
            words.append(f"a list of {count}" if count else "a list")
        elif isinstance(arm, type) and issubclass(arm, BaseModel):
            words.append("a mapping (key: value)")
    return joined(list(dict.fromkeys(words)), "or") or "something else"


def _choices(annotation: Any) -> list[Any]:
    return [choice for arm in arms(annotation) if typing.get_origin(arm) is Literal for choice in typing.get_args(arm)]


def _bounds(annotation: Any) -> str:
    low = high = ""
    limits = list(_constraints(annotation))
    for limit in limits:
        if isinstance(limit, annotated_types.Ge):
            low = f"{limit.ge} or more"
        elif isinstance(limit, annotated_types.Gt):
            low = f"above {limit.gt:g}"
        elif isinstance(limit, annotated_types.Le):
            high = f"{limit.le} or less"
        elif isinstance(limit, annotated_types.Lt):
            high = f"below {limit.lt:g}"
    ends = {type(limit): limit for limit in limits}
    if annotated_types.Ge in ends and annotated_types.Le in ends:
        return f" from {ends[annotated_types.Ge].ge:g} to {ends[annotated_types.Le].le:g}"
    text = " and ".join(part for part in (low, high) if part)
    return f" {text}" if text.startswith(("above", "below")) else f", {text}" if text else ""


def _constraints(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, FieldInfo):
        yield from annotation.metadata
    elif typing.get_origin(annotation) in (Annotated, types.UnionType, typing.Union):
        for part in typing.get_args(annotation):
            yield from _constraints(part)
    elif isinstance(annotation, annotated_types.BaseMetadata):
        yield annotation


def given(raw: Any) -> str:
    """Say what stands there: ``the text 'ten'``, ``8.5``, ``a list``."""
    if raw is None:
        return "nothing (null)"
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, str):
        return f"the text {raw if len(raw) <= 40 else raw[:39] + '…'!r}"
    if isinstance(raw, list):
        return "a list"
    return "a mapping" if isinstance(raw, dict) else str(raw)


def _advice(annotation: Any, path: Path, value: Any) -> str:
    """Say what to write instead, where the mistake is a common one."""
    raw, kinds, choices = at(value, path), list(arms(annotation)), _choices(annotation)
    model = model_of(annotation, raw)
    numbers = {int, float} & {arm for arm in kinds if isinstance(arm, type)}
    a_list = any(typing.get_origin(arm) is tuple for arm in kinds)
    if raw is None:
        info = field_at(path, value)
        if info is None or info.is_required():
            return f"give it a value, such as {_example(annotation, path, value)}"
        return "give it a value, or remove the key to have the default"
    if isinstance(raw, str):
        number = CORE_SCHEMA["int"].match(raw) or CORE_SCHEMA["float"].match(raw)
        if number and (numbers or raw in map(str, choices)):
            return f"remove the quotes: {raw}"
        if bool in kinds and (raw.lower() in SPOKEN or raw.lower() in {"true", "false"}):
            return f"write {SPOKEN.get(raw.lower(), raw.lower())}"
        if choices:
            hint = did_you_mean(raw, map(str, choices))
            return hint if hint.startswith("did you mean") else ""
    elif isinstance(raw, int | float):
        if str in kinds:
            return f"put it in quotes: '{given(raw)}'"
        if isinstance(raw, float) and raw.is_integer() and int in numbers:
            return f"write {int(raw)}"
    if a_list and isinstance(raw, list):
        return f"give {_length(annotation)} items" if _length(annotation) else ""
    if a_list and not (numbers and isinstance(raw, int | float)):  # a number may stand alone, too
        return f"write [{_flow(raw)}]" if not isinstance(raw, dict) else "write each item in a line of its own after '- '"
    if model:
        if bool in kinds:
            return f"write true or false, or give it keys: {', '.join(model.model_fields)}"
        if isinstance(raw, str | int | float) and not isinstance(raw, bool):
            first, info = next(iter(model.model_fields.items()))
            if not _takes(info.annotation, raw):
                return f"its keys: {', '.join(model.model_fields)}"
            wrap = any(typing.get_origin(arm) is tuple for arm in arms(info.annotation))
            return f"write {{{first}: {f'[{_flow(raw)}]' if wrap else _flow(raw)}}}"
        return f"its keys: {', '.join(model.model_fields)}"
    return ""


def _takes(annotation: Any, raw: str | float) -> bool:
    """Return whether a value is of a kind that an annotation allows, alone or in a list."""
    text = isinstance(raw, str)
    kinds = (str,) if text else (int, float)
    return any(
        arm in kinds or typing.get_origin(arm) is tuple or (text and typing.get_origin(arm) is Literal)
        for arm in arms(annotation)
    )


def _length(annotation: Any) -> int | None:
    """Return how many items a list has to have; None where that is not fixed."""
    parts = [typing.get_args(arm) for arm in arms(annotation) if typing.get_origin(arm) is tuple]
    return len(parts[0]) if parts and Ellipsis not in parts[0] else None


def _item(path: Path, value: Any) -> str:
    """Say what may stand in an empty list, and how to leave out a section that would else have a default."""
    info, outer = field_at(path, value), field_at(path[:-1], value) if path[1:] else None
    if info and info.examples:
        return f"such as {_example(None, path, value)}"
    if not info or not info.default:
        return "remove the key to have the default"
    optional = outer is not None and type(None) in typing.get_args(outer.annotation)
    return f"such as [{', '.join(map(str, info.default))}]" + (f"; {path[-2]}: null for none" if optional else "")


def field_at(path: Path, value: Any) -> FieldInfo | None:
    """Return the field of the schema at a place of a plain recipe; None where there is none, as in a list."""
    parent = model_of(annotation_at(value, path[:-1]), at(value, path[:-1]))
    return parent.model_fields.get(str(path[-1])) if parent else None


def _flow(raw: Any) -> str:
    return raw if isinstance(raw, str) else given(raw)


def _example(annotation: Any, path: Path, value: Any) -> str:
    info = field_at(path, value)
    if not info or not info.examples:
        return expected(annotation)
    text = yaml.safe_dump(info.examples[0], default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
