"""The exporter's table of ONNX operators, made once a process."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from edgekd.exporting.lacks import is_composite

# 21 is the first that could type a quantize node without its zero point, and adds nothing that is needed here; 20 is
# read by every runtime of the last two years.
OPSET = 20


_REGISTRIES: dict[int, Any] = {}


def registry() -> Any:
    """Return torch's table of ONNX operators, made once a process."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with one_registry():
        return ONNXRegistry.from_torchlib(OPSET)


@contextmanager
def one_registry() -> Iterator[None]:
    """Let all exports of a process share torch's table of ONNX operators.

    By itself torch parses the source of 500 functions for every export, a second's work. The library has no argument for
    it; the table is only read.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    make = ONNXRegistry.from_torchlib

    def shared(opset_version: int = OPSET) -> Any:
        if opset_version not in _REGISTRIES:
            # It lists what torch has when it is made: the operators of int8 have to be there by then.
            importlib.import_module("torch.ao.quantization.fx._decomposed")
            _REGISTRIES[opset_version] = make(opset_version)
        return _REGISTRIES[opset_version]

    ONNXRegistry.from_torchlib = staticmethod(shared)  # type: ignore[method-assign]
    try:
        yield
    finally:
        ONNXRegistry.from_torchlib = make  # type: ignore[method-assign]


@cache
def has(operator: Any) -> bool:
    """Return whether torch's exporter knows an operator."""
    return bool(registry().is_registered(operator)) or operator in _decompositions() or is_composite(operator)


@cache
def _decompositions() -> frozenset[Any]:
    from torch.onnx._internal.exporter import _decomp

    implemented = set(_decomp.get_onnx_implemented_overloads(registry()))
    return frozenset(_decomp.create_onnx_friendly_decomposition_table(implemented))
