"""Arguments of the public functions: each is checked and made plain before anything is done with it, by its name."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from numbers import Integral, Real
from typing import Any, Final

from edgekd.errors import UsageError

Check = Callable[[Any], Any]
"""Returns an argument in its plain form.

Raises:
    ValueError: It is none; with what to give, in words that follow ``give``.
"""


def checked(function: Callable[..., Any], given: tuple[Any, ...], named: Mapping[str, Any]) -> inspect.BoundArguments:
    """Return the arguments of a call of a public function in their plain forms.

    Raises:
        TypeError: One is missing, or unknown, as Python says of every call.
        UsageError: One is of another type, or beyond its limits.
    """
    signature = inspect.signature(function)
    bound = signature.bind(*given, **named)
    for name, value in bound.arguments.items():
        if value is None and signature.parameters[name].default is None:
            continue
        try:
            bound.arguments[name] = CHECKS[name](value)
        except ValueError as error:
            raise UsageError(f"{function.__name__}: {name} is {_shown(value)}", f"give {error}") from None
    return bound


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"of the type {type(value).__name__}"


def _path(value: Any) -> Any:
    if not isinstance(value, str | os.PathLike):
        raise ValueError("a path, as text or a Path")
    return _without_nul(value, os.fsdecode(value))


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("text")
    return _without_nul(value, value)


def _without_nul(value: Any, text: str) -> Any:
    if "\0" in text:  # no path may have it, and a recipe's text neither
        raise ValueError(r"text without \0")
    return value


def _whole(least: int) -> Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"a whole number, {least} or more")
        return int(value)

    return check


def _minutes(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError("a number of minutes, 0 or more")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False")
    return value


def _choice(*allowed: object) -> Check:
    def check(value: Any) -> Any:
        if isinstance(value, bool) or value not in allowed:
            raise ValueError(" or ".join(map(repr, allowed)))
        return value

    return check


def _several(check: Check) -> Check:
    def several(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str | bytes | Mapping | os.PathLike) or not isinstance(value, Iterable):
            raise ValueError(f"a list: [{value!r}]" if isinstance(value, str) else "a list")
        return tuple(map(check, value))

    return several


def _by_name(check: Check) -> Check:
    def by_name(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ValueError("a mapping, by the names of inputs")
        return {name: check(item) for name, item in value.items()}

    return by_name


def _size(value: Any) -> Any:
    sides = (value,) if isinstance(value, Integral) else value
    try:
        sides = _several(_whole(1))(sides)
        if len(sides) not in (1, 2):
            raise ValueError
    except ValueError:
        raise ValueError("a whole number, or height and width: (192, 256)") from None
    return sides if len(sides) == 2 else sides[0]


def _overrides(value: Any) -> dict[str, Any]:
    example = "a mapping of keys to values, such as {'distill.epochs': 1}"
    if not isinstance(value, Mapping):
        raise ValueError(example)
    if any(not isinstance(key, str) or "=" in key for key in value):
        raise ValueError(f"keys as a recipe has them in {example}")
    return {key: _plain(item) for key, item in value.items()}


def _plain(value: Any) -> Any:
    """Return a value of a recipe as YAML has it; paths become text, and numpy's numbers and arrays Python's."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, os.PathLike):
        return _plain(os.fsdecode(value))
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, str):
        return _text(str.__str__(value))
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes | AbstractSet):
        return [_plain(item) for item in value]
    raise ValueError(f"text, numbers, True, False, None, lists and mappings as values, not {type(value).__name__}")


_names = _several(_text)
_files = _several(_path)
CHECKS: Final[Mapping[str, Check]] = {
    "accuracy": _whole(1),
    "against": _path,
    "artifacts": _files,
    "channels": _choice(1, 3),
    "classes": _whole(1),
    "cores": _several(_whole(0)),
    "data": _path,
    "devices": _files,
    "epochs": _whole(1),
    "folder": _path,
    "formats": _names,
    "inputs": _by_name(_path),
    "io": _choice("float32", "int8"),
    "method": _choice("ptq", "qat"),
    "model": _text,
    "normalize": _text,
    "out": _path,
    "overrides": _overrides,
    "precisions": _names,
    "processes": _whole(1),
    "quiet": _flag,
    "recipe": _path,
    "shapes": _by_name(_several(_whole(1))),
    "size": _size,
    "sustained": _minutes,
    "threads": _whole(1),
    "weights": _path,
    "without_devices": _flag,
}
"""By its name, the check of each argument; a name means the same in all functions."""
