"""Which inputs a model file declares, without a runtime: what a user says of them is checked before a device is used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from edgekd.artifacts.found import ModelFile
from edgekd.errors import UsageError

Inputs = Mapping[str, Sequence[int | None] | None]
"""By its name, the sizes of an input, None where free; None in place of all where the rank is free."""


def check(file: ModelFile, shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Path]) -> None:
    """See that a file has the inputs that a user names, of their sizes.

    Raises:
        UsageError: It has no inputs at all, none of that name, or one of another size.
    """
    try:
        known = inputs(file.path, file.format)
    except Exception:  # of a damaged file, of many classes: its runtime says what is wrong with it
        return
    if not known:
        raise UsageError(f"{file.path} has no inputs", "a model that is fed nothing cannot be measured")
    for option, names in (("--shape", shapes), ("--input", arrays)):
        if other := [name for name in names if name not in known]:
            raise UsageError(f"{option} {other[0]}: {file.path} has no such input", f"its inputs: {', '.join(known)}")
    for name, shape in shapes.items():
        sides = known[name]
        if sides is not None and (
            len(sides) != len(shape) or any(a not in (None, b) for a, b in zip(sides, shape, strict=True))
        ):
            raise _other(f"--shape {name}", shape, file, sides)
    for name, path in arrays.items():
        sides, shape = known[name], np.load(path, mmap_mode="r", allow_pickle=False).shape
        rows = sides is not None and list(sides[:1]) in ([1], [None]) and len(sides) == len(shape)  # fed one by one
        start = 1 if rows else 0
        if sides is not None and (
            len(sides) != len(shape) or any(a not in (None, b) for a, b in zip(sides[start:], shape[start:], strict=True))
        ):
            raise _other(f"--input {name}", shape, file, sides)


def inputs(path: Path, form: str) -> Inputs:
    """The inputs that a file declares, in its order."""
    return dict({"onnx": _onnx, "tflite": _tflite, "openvino": _openvino}[form](path))


def _other(what: str, shape: Sequence[int], file: ModelFile, sides: Sequence[int | None]) -> UsageError:
    ours, theirs = ("x".join("?" if side is None else str(side) for side in one) or "a number" for one in (shape, sides))
    return UsageError(f"{what}: {ours} does not fit {file.path}", f"the input is {theirs}; ? is any size")


def _onnx(path: Path) -> Iterator[tuple[str, Sequence[int | None] | None]]:
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in constant:
            kind = value.type.tensor_type
            sides = [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]
            yield value.name, sides if kind.HasField("shape") else None


def _tflite(path: Path) -> Iterator[tuple[str, Sequence[int | None] | None]]:
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0)
    for number in range(graph.InputsLength()):
        tensor = graph.Tensors(graph.Inputs(number))
        free = tensor.ShapeSignatureLength()
        read = tensor.ShapeSignature if free else tensor.Shape
        sides = [read(at) for at in range(free or tensor.ShapeLength())]
        yield tensor.Name().decode(errors="replace"), [None if side < 0 else side for side in sides]


def _openvino(path: Path) -> Iterator[tuple[str, Sequence[int | None] | None]]:
    layers = ElementTree.parse(path).iterfind("layers/layer")  # those of a branch are further inside
    parameters = [layer for layer in layers if layer.get("type") == "Parameter"]
    for number, layer in enumerate(parameters):
        data, port = layer.find("data"), layer.find("output/port")
        text = "..." if data is None else data.get("shape", "")
        sides = [int(side) if side.isdigit() else None for side in text.split(",")] if text else []
        names = re.split(r"(?<!\\),", (port.get("names") or "") if port is not None else "")
        for name in names if names != [""] else [str(number)]:
            yield name.replace("\\,", ","), None if "..." in text else sides
