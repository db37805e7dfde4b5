"""Records, as frozen dataclasses, to JSON values and back."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Turn (nested) dataclasses into JSON values; fields that are ``None`` are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((item.name, getattr(value, item.name)) for item in dataclasses.fields(value))
        return {name: to_json(part) for name, part in pairs if part is not None}
    if isinstance(value, Mapping):
        return {str(name): to_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def write(value: Any, path: Path) -> None:
    """Write a (nested) dataclass into a JSON file."""
    path.write_text(json.dumps(to_json(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(kind: type[T], path: Path) -> T:
    """Read the dataclass ``kind`` from a file that :func:`write` wrote.

    Raises:
        OSError: There is no such file.
        KeyError: A required field is missing.
    """
    return from_json(kind, json.loads(path.read_text(encoding="utf-8")))


def from_json(kind: type[T], value: Any) -> T:
    """Build the dataclass ``kind`` from what :func:`to_json` wrote.

    Raises:
        KeyError: A required field is missing.
    """
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # kind is a dataclass
    # None is left out by to_json, also of a field that has no default.
    empty = {item.name: None for item in fields if item.default is dataclasses.MISSING and _may_be_none(hints[item.name])}
    known = {item.name for item in fields}
    return kind(**{**empty, **{name: _typed(hints[name], part) for name, part in value.items() if name in known}})


def _may_be_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _typed(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _typed(next(arg for arg in args if arg is not type(None)), value)
    if origin is tuple:
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_typed(part, item) for part, item in zip(inner, value, strict=True))
    if origin is not None and isinstance(value, Mapping):
        return {name: _typed(args[1], item) for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value)  # type: ignore[arg-type]  # hint is a class
    return Path(value) if hint is Path else value
