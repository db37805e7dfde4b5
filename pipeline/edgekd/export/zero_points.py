"""Zero points taken out of OpenVINO's convolutions and put into their biases.

An activation of integers q stands for (q - z) × scale. The sum over (q - z) × w is the sum over q × w, less z times the sum
of w, which is a constant for each output channel where no padding cuts it short. oneDNN's kernels have more to do for a z
than the whole rest of a small layer; a bias is there in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.export.ir import readers, scalar

Array = NDArray[np.float64]

_COMPUTED: dict[str, Callable[..., Any]] = {
    "Convert": lambda value: value,
    "Subtract": np.subtract,
    "Multiply": np.multiply,
}


def move_into_biases(model: Any) -> None:
    """Let convolutions without padding, and the first one, read integers whose zero point is 0.

    The first convolution's padding becomes an operator of its own, in front of the rounding of the network's input: the
    image is small, and the layer, with its three channels, is the one that a zero point slows down most. What else reads
    the tensor gets the zero point back, by an addition that OpenVINO makes part of the reader.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and _has_zero_point(node):
            ports = list(node.output(0).get_target_inputs())
            moved = [port for port in ports if _is_convolved(port) and not _padding(port.get_node())]
            first = node.input_value(0).get_node().get_type_name() == "Parameter"
            if first and len(ports) == 1 and _is_convolved(ports[0]):
                _pad_before(node, ports[0].get_node())
                moved = ports
            if moved:
                _move(node, moved, [port for port in ports if port not in moved])


def _has_zero_point(rounding: Any) -> bool:
    limits = [rounding.input_value(port).get_node() for port in range(1, 5)]
    if any(limit.get_type_name() != "Constant" or limit.data.size != 1 for limit in limits):
        return False
    return scalar(rounding, 3) < 0 and rounding.get_attributes()["levels"] == 256


def _is_convolved(port: Any) -> bool:
    node = port.get_node()
    return bool(port.get_index() == 0 and node.get_type_name() == "Convolution" and readers(node) == 1)


def _padding(convolution: Any) -> tuple[list[int], list[int]] | None:
    attributes = convolution.get_attributes()
    begin, end = list(attributes["pads_begin"]), list(attributes["pads_end"])
    return (begin, end) if any(begin) or any(end) or attributes["auto_pad"] not in ("explicit", "valid") else None


def _pad_before(rounding: Any, convolution: Any) -> None:
    from openvino import opset13

    padding = _padding(convolution)
    if padding is None:
        return
    begin, end = (opset13.constant(np.array([0, 0, *side], np.int64)) for side in padding)
    padded = opset13.pad(rounding.input_value(0), begin, end, "constant", opset13.constant(np.float32(0)))
    rounding.input(0).replace_source_output(padded.output(0))
    convolution.set_attribute("pads_begin", [0] * len(padding[0]))
    convolution.set_attribute("pads_end", [0] * len(padding[1]))


def _move(rounding: Any, moved: list[Any], others: list[Any]) -> None:
    """Make ``rounding`` begin at 0 and correct what reads it: ``moved`` in the bias, ``others`` by an addition."""
    from openvino import opset13

    low, high = np.float32(scalar(rounding, 3)), np.float32(scalar(rounding, 4))
    rounding.input(3).replace_source_output(opset13.constant(np.float32(0)).output(0))
    rounding.input(4).replace_source_output(opset13.constant(high - low).output(0))
    zero_point = round(255 * float(-low) / float(high - low))
    for port in moved:
        convolution = port.get_node()
        weights = _values(convolution.input_value(1))
        missing = weights.sum(tuple(range(1, weights.ndim))) * zero_point * float(high - low) / 255
        _add_to_bias(convolution, -missing.reshape(1, -1, *[1] * (weights.ndim - 2)))
    for port in others:
        port.replace_source_output(opset13.add(rounding.output(0), opset13.constant(low)).output(0))


def _add_to_bias(convolution: Any, addend: Array) -> None:
    from openvino import opset13

    (port,) = convolution.output(0).get_target_inputs()
    reader = port.get_node()
    bias = reader.input_value(1 - port.get_index()).get_node() if reader.get_type_name() == "Add" else None
    if bias is not None and bias.get_type_name() == "Constant" and bias.data.size == addend.size:
        total = bias.data.astype(np.float64) + addend.reshape(bias.data.shape)
        reader.input(1 - port.get_index()).replace_source_output(opset13.constant(total.astype(np.float32)).output(0))
    else:
        sum_ = opset13.add(convolution.output(0), opset13.constant(addend.astype(np.float32)))
        port.replace_source_output(sum_.output(0))


def _values(value: Any) -> Array:
    """Compute weights from the integers and scales that they are written with."""
    node = value.get_node()
    if node.get_type_name() == "Constant":
        values: Array = node.data.astype(np.float64)
        return values
    return np.asarray(_COMPUTED[node.get_type_name()](*map(_values, node.input_values())), np.float64)
