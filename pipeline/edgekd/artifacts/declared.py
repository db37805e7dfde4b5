"""Inputs that a model file declares, read without a runtime, to check a user's inputs before a device is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts.found import ModelFile
from edgekd.errors import UsageError
from edgekd.results.findings import Finding, Missing
from edgekd.runtimes import base
from edgekd.runtimes.base import STRING, Declared

KINDS = ("bool", *(f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)), "float16", "float32", "float64")
"""Types of inputs that edgekd makes values for."""
_SAFE = ("ff", "if", "uf", "bf", "ii", "iu", "ui", "uu", "bi", "bu")
"""Conversions that keep values that fit, as numpy's kinds from and to."""


@dataclass(frozen=True)
class Fed:
    """Arrays that a file is fed, out of those given.

    Attributes:
        converted: By the name of an input, the values in its type where those given are of another.
        notes: What was converted, and where values are no numbers.
    """

    converted: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    notes: tuple[Missing, ...] = ()


def check(file: ModelFile, shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, NDArray[np.generic]]) -> Fed:
    """See that a file has the inputs that a user names, of their sizes and types.

    Raises:
        UsageError: It has no inputs at all, one that cannot be fed, none of that name, or one of another size or type.
    """
    try:
        known = inputs(file.path, file.format)
    except Exception:  # of a damaged file, of many classes: its runtime says what is wrong with it
        return Fed()
    if not known:
        raise UsageError(f"{file.path} has no inputs", "a model that is fed nothing cannot be measured")
    for option, names in (("--shape", shapes), ("--input", arrays)):
        if other := [name for name in names if name not in known]:
            raise UsageError(f"{option} {other[0]}: {file.path} has no such input", f"its inputs: {', '.join(known)}")
    if both := [name for name in shapes if name in arrays]:
        raise UsageError(f"{both[0]} has both --shape and --input", "leave --shape out: values have a size of their own")
    described = file.bundle is not None and bool(file.bundle.samples)
    for name, spec in known.items():
        _check_kind(file, name, spec, given=name in arrays)
        if name not in shapes and name not in arrays and not described:
            _check_size(file, name, spec)
    for name, shape in shapes.items():
        sides = known[name].sides
        if sides is not None and not _fits(shape, sides):
            raise _other(f"--shape {name}", shape, file, sides)
    converted, notes, model = {}, [], file.record.name
    for name, array in arrays.items():
        spec, shape = known[name], array.shape
        rows = spec.sides and shape and spec.sides[0] in (1, None)  # fed one by one
        if spec.sides is not None and not _fits((spec.sides[0], *shape[1:]) if rows else shape, spec.sides):
            raise _other(f"--input {name}", shape, file, spec.sides)
        if not array.size and 0 not in (spec.sides or ()):
            size = "x".join(map(str, shape))
            raise UsageError(
                f"--input {name}: {size} has no values", "the file needs one row or more: numpy.save(PATH, ARRAY)"
            )
        value = _converted(f"--input {name}", array, file, spec)
        if value is not array:
            converted[name] = value
            figures = {"input": name, "from": str(array.dtype), "to": spec.kind}
            notes.append(Missing(Finding("converted", figures=figures), "", model))
        if value.dtype.kind == "f" and np.isnan(value).any():
            notes.append(Missing(Finding("nan_values", figures={"input": name}), "", model))
    return Fed(converted, tuple(notes))


def _check_kind(file: ModelFile, name: str, spec: Declared, *, given: bool) -> None:
    """See that an input can be fed."""
    if spec.kind == STRING and file.format != "tflite":
        if not given:
            hint = f"give strings: --input {name}=FILE.npy, written with numpy.save('FILE.npy', numpy.array([['a', 'b']]))"
            raise UsageError(f"{file.path}: its input {name} takes strings, which edgekd does not make up", hint)
    elif spec.kind not in KINDS:
        raise UsageError(
            f"{file.path}: its input {name} is of type {spec.kind}, which edgekd cannot feed",
            f"give a file whose inputs are {', '.join(KINDS)}, or strings in ONNX and OpenVINO",
        )


def _check_size(file: ModelFile, name: str, spec: Declared) -> None:
    """See that the size of an input is known, but for the first side, of which one is fed: 1×1 pixels tell nothing.

    Raises:
        UsageError: It is open.
    """
    sides = spec.sides or ()
    if None in sides[1:]:
        size = "x".join("?" if side is None else str(side) for side in sides)
        example = "x".join(str(side or (1 if at == 0 else "SIZE")) for at, side in enumerate(sides))
        raise UsageError(
            f"{file.path}: the size of its input {name} is open ({size}), and so are its times",
            f"say what it gets from you: --shape {name}={example}, or --input {name}=FILE.npy",
        )


def _fits(shape: Sequence[int | None], sides: Sequence[int | None]) -> bool:
    """Return whether an array of a shape can be fed where sizes are declared."""
    return len(sides) == len(shape) and all(a in (None, b) for a, b in zip(sides, shape, strict=True))


def _converted(what: str, array: NDArray[np.generic], file: ModelFile, spec: Declared) -> NDArray[np.generic]:
    """Values in the type of an input; the same array where they are.

    Raises:
        UsageError: They would become others.
    """
    if spec.kind == STRING:
        if array.dtype.kind != "U":
            raise UsageError(
                f"{what}: {array.dtype} does not fit {file.path}, which takes strings",
                "write ARRAY.astype(str) into the file",
            )
        return array
    if spec.quantized and array.dtype.kind == "f":  # put on its grid by what measures
        if np.isnan(array).any():
            raise UsageError(f"{what}: there is NaN, which {spec.kind} does not have", "remove these rows")
        return array
    target = np.dtype(spec.kind)
    if array.dtype == target:
        return array
    hint = f"write ARRAY.astype('{spec.kind}') into the file, if these are the values you mean"
    if array.dtype.kind + target.kind not in _SAFE:
        raise UsageError(f"{what}: {array.dtype} does not fit {file.path}, which takes {spec.kind}", hint)
    with np.errstate(over="ignore"):
        value = array.astype(target)
    lost = np.isinf(value) & ~np.isinf(array) if target.kind == "f" else value != array
    if lost.any():
        raise UsageError(f"{what}: it has values that {spec.kind} does not have, such as {array[lost][0]}", hint)
    return value


def inputs(path: Path, form: str) -> Mapping[str, Declared]:
    """The inputs that a file declares, in its order."""
    return base.of(form).declared(path)


def _other(what: str, shape: Sequence[int], file: ModelFile, sides: Sequence[int | None]) -> UsageError:
    ours, theirs = ("x".join("?" if side is None else str(side) for side in one) or "a number" for one in (shape, sides))
    return UsageError(f"{what}: {ours} does not fit {file.path}", f"the input is {theirs}; ? is any size")
