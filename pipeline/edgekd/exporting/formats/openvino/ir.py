"""OpenVINO's own format made exact and small.

All passes keep the values that the graph defines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import ExportError

_INDENT = re.compile(r">\s+<")
_LAYER = re.compile(r'<layer id="(\d+)" name="[^"]*" type="(?!Parameter|Result)')
_INNER_LAYER = re.compile(r'<layer [^>]* type="(?!Parameter|Result).*?</layer>', re.DOTALL)
_DIMENSIONS = re.compile(r'(<port id="\d+"[^>]*)>(?:<dim>-?\d+</dim>)+</port>')
_LIST = re.compile(r'(?<==")\d+(?:, \d+)+(?=")')
_INPUTS = re.compile(r"<input>.*?</input>", re.DOTALL)
_LAYERS = {"Convolution", "GroupConvolution", "MatMul"}
# What may stand between a layer and the rounding of its result, and is one with them.
_FUSED = {"Add", "Clamp", "Relu", "ReLU"}
_NORMALISATIONS = {"MVN", "GroupNormalization", "NormalizeL2"}
# How the ONNX importer writes a dequantized value.
_FOLDED: dict[str, Callable[..., np.float32]] = {"Convert": np.float32, "Subtract": np.subtract, "Multiply": np.multiply}


def fold_scalars(model: Any) -> None:
    """Turn a dequantized scalar, such as the 3 of a hard-sigmoid, into one float32 constant instead of four nodes.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        operands = [value.get_node() for value in node.input_values()]
        if node.get_type_name() not in _FOLDED or not all(is_scalar(operand) for operand in operands):
            continue
        value = _FOLDED[node.get_type_name()](*(operand.data.astype(np.float32) for operand in operands))
        node.output(0).replace(opset13.constant(np.asarray(value, np.float32)).output(0))


def fold_layers(model: Any) -> None:
    """Compute the layers that depend on constants alone, such as the projection of a learned query.

    OpenVINO does not, for it keeps weights as integers; its low-precision passes then leave a tensor without a type, and
    the file cannot be loaded (openvino 2026.4).

    Args:
        model: An ``openvino.Model``, changed in place.

    Raises:
        ExportError: If OpenVINO cannot compute an operator that such a layer depends on.
    """
    from openvino import opset13

    fixed: set[str] = set()
    for node in model.get_ordered_ops():
        operands = [value.get_node().get_name() for value in node.input_values()]
        if node.get_type_name() == "Constant" or (operands and fixed.issuperset(operands)):
            fixed.add(node.get_name())
            if node.get_type_name() in _LAYERS:
                value = opset13.constant(np.array(_evaluate(node).data))
                node.output(0).replace(value.output(0))
                fixed.add(value.get_name())


def _evaluate(node: Any) -> Any:
    from openvino import Tensor

    if node.get_type_name() == "Constant":
        return Tensor(node.data)
    output = Tensor(node.get_output_element_type(0), node.get_output_shape(0))
    if not node.evaluate([output], [_evaluate(value.get_node()) for value in node.input_values()]):
        raise ExportError(f"OpenVINO cannot compute {node.get_type_name()} of constants.")
    return output


def keep_roundings(model: Any) -> None:
    """Make OpenVINO round a layer's result before it is added to something.

    Its CPU plugin runs convolution, rounding, addition and rounding as one primitive and leaves the first rounding out:
    one value in six is then off by one step, which made a MobileNetV2 differ by 1.4 steps of its logits in the mean
    (openvino 2026.4). Doubling and halving the rounded values, which is exact, keeps the two apart, and the
    first rounding is done. A clamp would too, but then the plugin stores them as float; so it stores bytes.

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
            if not _rounds_a_layer(rounding) or readers(rounding) > 1:
                continue
            doubled = opset13.add(rounding.output(0), rounding.output(0))
            port.replace_source_output(opset13.multiply(doubled, np.float32(0.5)).output(0))


def keep_epsilons(model: Any) -> None:
    """Make OpenVINO normalise the values, not the integers that stand for them.

    Its low-precision passes move the scale of a quantized tensor behind the normalisation that reads it, as if
    (x - mean) / sqrt(variance + epsilon) did not change with the scale. Where the variance is small, such as in a class
    token, epsilon counts: 0.3 % there made a vision transformer differ by 3 steps of its logits (openvino 2026.4). They do
    not move it through a maximum with the lowest number, which changes nothing.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    from openvino import opset13

    lowest = np.float32(np.finfo(np.float32).min)
    for node in model.get_ordered_ops():
        if node.get_type_name() in _NORMALISATIONS:
            port = node.input(0)
            port.replace_source_output(opset13.maximum(port.get_source_output(), lowest).output(0))


def share_ranges(model: Any) -> None:
    """Let the FakeQuantize nodes of an ``openvino.Model`` read equal limits from the same constant, a scalar."""
    from openvino import opset13

    known: dict[float, Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        for port in range(1, 5):
            constant = node.input_value(port).get_node()
            if constant.get_type_name() == "Constant" and constant.data.size == 1:
                value = scalar(node, port)
                shared = known.setdefault(value, opset13.constant(np.float32(value)))
                node.input(port).replace_source_output(shared.output(0))


def shorten(path: Path, ports: Sequence[str]) -> None:
    """Rewrite an ``.xml`` without indentation, generated names, and what the reader infers or assumes by itself.

    Indentation is a quarter of the file and inferred shapes another; of a small network in int8 the whole is as large as
    a fifth of the weights. The names count all nodes that the process ever made, so they would differ from one export to
    the next; a layer is called by its number instead. Both ends of the network keep names and shapes.

    Args:
        path: The file, changed in place.
        ports: Names of its inputs and outputs.
    """
    tensor_names = re.compile(f' names="(?!(?:{"|".join(map(re.escape, ports))})")[^"]*"')
    text = _INDENT.sub("><", path.read_text(encoding="utf-8"))
    text = _LAYER.sub(r'<layer id="\1" name="\1" type="', text)
    text = _INNER_LAYER.sub(lambda layer: _DIMENSIONS.sub(r"\1 />", layer[0]), tensor_names.sub("", text))
    text = _INPUTS.sub(lambda inputs: inputs[0].replace(' precision="FP32"', ""), text)
    text = text.replace(' auto_broadcast="numpy"', "").replace("<data />", "").replace('" />', '"/>')
    text = _LIST.sub(lambda values: values[0].replace(" ", ""), text)
    path.write_text(text, encoding="utf-8")


def _rounds_a_layer(node: Any) -> bool:
    if node.get_type_name() != "FakeQuantize":
        return False
    before = node.input_value(0).get_node()
    while before.get_type_name() in _FUSED:
        before = before.input_value(0).get_node()
    return before.get_type_name() in _LAYERS


def readers(node: Any) -> int:
    """Return how many inputs read the result of ``node``."""
    return len(node.output(0).get_target_inputs())


def is_scalar(node: Any) -> bool:
    """Tell whether ``node`` is a constant of one value."""
    return bool(node.get_type_name() == "Constant" and node.data.size == 1)


def scalar(node: Any, index: int) -> float:
    """Return the constant that ``node`` reads at an input, the first of its values."""
    return float(np.asarray(node.input_value(index).get_node().data).ravel()[0])
