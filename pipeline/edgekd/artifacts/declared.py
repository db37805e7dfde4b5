"""Inputs that a model file declares, read without a runtime, to check a user's inputs before a device is used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from edgekd.artifacts.found import ModelFile
from edgekd.errors import UsageError
from edgekd.profiling.on_device.runtimes.tflite import unique

STRING = "string"
KINDS = ("bool", *(f"{kind}int{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)), "float16", "float32", "float64")
"""Types of inputs that edgekd makes values for."""
_OPENVINO = {
    "boolean": "bool", **{f"f{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"{sign}{bits}": f"{kind}{bits}" for sign, kind in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)},
}  # fmt: skip
"""Types as numpy calls them, by what an .xml file has."""
_SAFE = ("ff", "if", "uf", "bf", "ii", "iu", "ui", "uu", "bi", "bu")
"""Conversions that keep values that fit, as numpy's kinds from and to."""


@dataclass(frozen=True)
class Input:
    """An input as its file declares it.

    Attributes:
        sides: Its sizes, None where free; None in place of all where the rank is free.
        kind: numpy's name of its type, ``string``, or what the file calls a type that numpy does not have.
        quantized: Whether floats are put on its grid.
    """

    sides: Sequence[int | None] | None
    kind: str
    quantized: bool = False


@dataclass(frozen=True)
class Fed:
    """Arrays that a file is fed, out of those given.

    Attributes:
        converted: By the name of an input, the values in its type where those given are of another.
        notes: What was converted, and where values are no numbers.
    """

    converted: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


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
    for name, spec in known.items():
        _check_kind(file, name, spec, given=name in arrays)
    for name, shape in shapes.items():
        sides = known[name].sides
        if sides is not None and not _fits(shape, sides):
            raise _other(f"--shape {name}", shape, file, sides)
    converted, notes = {}, []
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
            notes.append(f"{file.record.name}: the values of {name} are converted from {array.dtype} to {spec.kind}")
        if value.dtype.kind == "f" and np.isnan(value).any():
            notes.append(f"{file.record.name}: the values of {name} have NaN, which may make outputs NaN and change times")
    return Fed(converted, tuple(notes))


def _check_kind(file: ModelFile, name: str, spec: Input, *, given: bool) -> None:
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


def _fits(shape: Sequence[int | None], sides: Sequence[int | None]) -> bool:
    """Return whether an array of a shape can be fed where sizes are declared."""
    return len(sides) == len(shape) and all(a in (None, b) for a, b in zip(sides, shape, strict=True))


def _converted(what: str, array: NDArray[np.generic], file: ModelFile, spec: Input) -> NDArray[np.generic]:
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


def inputs(path: Path, form: str) -> Mapping[str, Input]:
    """The inputs that a file declares, in its order."""
    return dict({"onnx": _onnx, "tflite": _tflite, "openvino": _openvino}[form](path))


def _other(what: str, shape: Sequence[int], file: ModelFile, sides: Sequence[int | None]) -> UsageError:
    ours, theirs = ("x".join("?" if side is None else str(side) for side in one) or "a number" for one in (shape, sides))
    return UsageError(f"{what}: {ours} does not fit {file.path}", f"the input is {theirs}; ? is any size")


def _onnx(path: Path) -> Iterator[tuple[str, Input]]:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in constant:
            kind = value.type.tensor_type
            sides = [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]
            yield value.name, Input(sides if kind.HasField("shape") else None, _onnx_kind(value.type))


def _onnx_kind(declared: Any) -> str:
    import onnx

    which = declared.WhichOneof("value")
    if which != "tensor_type":  # sequence_type, map_type, optional_type
        return str(which).removesuffix("_type")
    kind = declared.tensor_type.elem_type
    return STRING if kind == onnx.TensorProto.STRING else onnx.helper.tensor_dtype_to_np_dtype(kind).name


def _tflite(path: Path) -> Iterator[tuple[str, Input]]:
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0)
    kinds = {number: kind.lower() for kind, number in vars(schema.TensorType).items() if isinstance(number, int)}
    tensors = [graph.Tensors(graph.Inputs(number)) for number in range(graph.InputsLength())]
    names = unique([tensor.Name().decode(errors="replace") for tensor in tensors])
    for name, tensor in zip(names, tensors, strict=True):
        free = tensor.ShapeSignatureLength()
        read = tensor.ShapeSignature if free else tensor.Shape
        sides = [read(at) for at in range(free or tensor.ShapeLength())]
        kind, grid = kinds[tensor.Type()], tensor.Quantization()
        quantized = kind in ("int8", "uint8") and grid is not None and grid.ScaleLength() == 1 and grid.Scale(0) > 0
        yield name, Input([None if side < 0 else side for side in sides], kind, quantized)


def _openvino(path: Path) -> Iterator[tuple[str, Input]]:
    layers = ElementTree.parse(path).iterfind("layers/layer")  # those of a branch are further inside
    parameters = [layer for layer in layers if layer.get("type") == "Parameter"]
    for number, layer in enumerate(parameters):
        data, port = layer.find("data"), layer.find("output/port")
        text = "..." if data is None else data.get("shape", "")
        sides = [int(side) if side.isdigit() else None for side in text.split(",")] if text else []
        names = re.split(r"(?<!\\),", (port.get("names") or "") if port is not None else "")
        kind = "" if data is None else data.get("element_type", "")
        spec = Input(None if "..." in text else sides, _OPENVINO.get(kind, kind))
        for name in names if names != [""] else [str(number)]:
            yield name.replace("\\,", ","), spec
