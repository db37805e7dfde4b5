"""Records, as frozen dataclasses, to JSON values and back."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
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


def from_json(kind: type[T], value: Any, where: str = "") -> T:
    """Build the dataclass ``kind`` from what :func:`to_json` wrote.

    Args:
        kind: The dataclass.
        value: Its JSON value; keys that the class does not have are left out.
        where: Place of the value in its file, for messages, such as ``models[0]``.

    Raises:
        KeyError: A required field is missing.
        ValueError: A value has another type than its field, or none of the field's choices.
    """
    if not isinstance(value, Mapping):
        raise _mistake(where, value, "an object")
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # kind is a dataclass
    found: dict[str, Any] = {}
    for item in fields:
        place = f"{where}.{item.name}" if where else item.name
        if item.name in value:
            found[item.name] = _typed(hints[item.name], value[item.name], place)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            if not _may_be_none(hints[item.name]):
                raise KeyError(place)
            found[item.name] = None  # to_json leaves it out, also of a field that has no default
    return kind(**found)


def _may_be_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _of_union([arg for arg in args if arg is not type(None)], value, where)
    if origin is typing.Literal:
        if not any(value == choice and type(value) is type(choice) for choice in args):
            raise _mistake(where, value, " or ".join([", ".join(map(str, args[:-1])), str(args[-1])] if args[1:] else args))
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or (args[-1] is not Ellipsis and len(value) != len(args)):
            raise _mistake(where, value, "a list" if args[-1] is Ellipsis else f"a list of {len(args)}")
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_typed(part, item, f"{where}[{at}]") for at, (part, item) in enumerate(zip(inner, value, strict=True)))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _mistake(where, value, "an object")
        return {name: _typed(args[1], item, f"{where}.{name}") for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]  # hint is a class
    fits, words = _PLAIN.get(hint, ((object,), ""))
    if not isinstance(value, fits) or (isinstance(value, bool) and hint in (int, float)):
        raise _mistake(where, value, words)
    return Path(str(value)) if hint is Path else value


_PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "text"), Path: ((str, Path), "text"), bool: ((bool,), "true or false"),
    int: ((int, float), "a number"), float: ((int, float), "a number"),
}  # fmt: skip


def _of_union(arms: list[Any], value: Any, where: str) -> Any:
    """Read a value as the first type of a union that it fits; the mistake is that of the last one."""
    for arm in arms[:-1]:
        with suppress(KeyError, ValueError):
            return _typed(arm, value, where)
    return _typed(arms[-1], value, where)


def _mistake(where: str, value: Any, expected: str) -> ValueError:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    given = kinds.get(type(value)) or json.dumps(value, ensure_ascii=False, default=str)
    return ValueError(f"{where or 'it'} is {given}, and has to be {expected}")
