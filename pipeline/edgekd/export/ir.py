"""OpenVINO's own format made exact and small.

All passes keep the values that the graph defines.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

_INDENT = re.compile(r">\s+<")
_LAYER = re.compile(r'<layer id="(\d+)" name="[^"]*" type="(?!Parameter|Result)(\w+)"')
_TENSOR_NAMES = re.compile(r' names="(?!input"|logits")[^"]*"')
_LAYERS = {"Convolution", "GroupConvolution", "MatMul"}
# What may stand between a layer and the rounding of its result, and is one with them.
_FUSED = {"Add", "Clamp", "Relu", "ReLU"}


def keep_roundings(model: Any) -> None:
    """Make OpenVINO round a layer's result before it is added to something.

    Its CPU plugin runs convolution, rounding, addition and rounding as one primitive and leaves the first rounding out:
    one value in six is then off by one step, which made a MobileNetV2 differ by 1.4 steps of its logits in the mean
    (openvino 2026.4). Doubling and halving the rounded values, which is exact, keeps the two apart, and the difference
    is gone. A clamp would too, but then the plugin stores them as float; so it stores bytes.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Add":
            continue
        for port in node.inputs():
            rounding = port.get_source_output().get_node()
            # A value that something else reads too is stored, and so rounded, in any case.
            if not _rounds_a_layer(rounding) or len(rounding.output(0).get_target_inputs()) > 1:
                continue
            doubled = opset13.add(rounding.output(0), rounding.output(0))
            port.replace_source_output(opset13.multiply(doubled, np.float32(0.5)).output(0))


def share_ranges(model: Any) -> None:
    """Let the FakeQuantize nodes of an ``openvino.Model`` read equal limits from the same constant."""
    known: dict[tuple[tuple[int, ...], bytes], Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        for port in range(1, 5):
            source = node.input(port).get_source_output()
            constant = source.get_node()
            if constant.get_type_name() != "Constant":
                continue
            values = np.asarray(constant.data)
            shared = known.setdefault((values.shape, values.tobytes()), source)
            if shared is not source:
                node.input(port).replace_source_output(shared)


def shorten(path: Path) -> None:
    """Rewrite an ``.xml`` without indentation and generated names; both ends keep theirs.

    Indentation is a quarter of the file, and the names count all nodes that the process ever made, so they would differ
    from one export to the next.
    """
    text = _INDENT.sub("><", path.read_text(encoding="utf-8"))
    text = _LAYER.sub(r'<layer id="\1" name="\2_\1" type="\2"', text)
    path.write_text(_TENSOR_NAMES.sub("", text), encoding="utf-8")


def _rounds_a_layer(node: Any) -> bool:
    if node.get_type_name() != "FakeQuantize":
        return False
    before = node.input_value(0).get_node()
    while before.get_type_name() in _FUSED:
        before = before.input_value(0).get_node()
    return before.get_type_name() in _LAYERS
