"""Zero points taken out of OpenVINO's convolutions and put into their biases.

An activation of integers q stands for (q - z) × scale. The sum over (q - z) × w is the sum over q × w, less z times the sum
of w, which is a constant for each output channel where no padding cuts it short. A z costs oneDNN's kernels time;
a bias is there in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.exporting.formats.openvino.ir import is_scalar, readers, scalar

Array = NDArray[np.float64]

_COMPUTED: dict[str, Callable[..., Any]] = {
    "Convert": lambda value: value,
    "Subtract": np.subtract,
    "Multiply": np.multiply,
}


def move_into_biases(model: Any) -> None:
    """Let convolutions without padding, and the first one, read integers whose zero point is 0.

    The first convolution's padding becomes an operator of its own: the image is small, and the layer, with its three
    channels, is the one that a zero point slows down most. What else reads a tensor gets its zero point back, by an
    addition that OpenVINO makes part of the reader.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize" or not _has_zero_point(node):
            continue
        ports = list(node.output(0).get_target_inputs())
        convolutions = [port for port in ports if _weights(port) is not None]
        first = node.input_value(0).get_node().get_type_name() == "Parameter"
        if first and len(ports) == len(convolutions) == 1 and _is_padded(convolutions[0].get_node()):
            _read_padded_integers(node, convolutions[0])
        elif moved := [port for port in convolutions if not _is_padded(port.get_node())]:
            _read_from_zero(node, moved, [port for port in ports if port not in moved])


def _has_zero_point(rounding: Any) -> bool:
    if not all(is_scalar(rounding.input_value(port).get_node()) for port in range(1, 5)):
        return False
    return scalar(rounding, 3) < 0 and rounding.get_attributes()["levels"] == 256


def _weights(port: Any) -> Array | None:
    """Return the weights (outputs, ...) of the convolution that reads its input at ``port``, or None if none does."""
    node = port.get_node()
    if port.get_index() != 0 or readers(node) != 1:
        return None
    return _values(node.input_value(1)) if node.get_type_name() == "Convolution" else None


def _is_padded(convolution: Any) -> bool:
    attributes = convolution.get_attributes()
    return any([*attributes["pads_begin"], *attributes["pads_end"]]) or attributes["auto_pad"] not in ("explicit", "valid")


def _read_padded_integers(rounding: Any, port: Any) -> None:
    """Write rounding, padding with the zero point, and the product with the scale as three operators, two of integers."""
    from openvino import opset13

    convolution, low, high = port.get_node(), scalar(rounding, 3), scalar(rounding, 4)
    _set_limits(rounding, 0, 255)
    begin, end = (list(convolution.get_attributes()[side]) for side in ("pads_begin", "pads_end"))
    sides = [opset13.constant(np.array([0, 0, *side], np.int64)) for side in (begin, end)]
    zero_point = opset13.constant(np.uint8(_zero_point(low, high)))
    padded = opset13.pad(opset13.convert(rounding, "u8"), *sides, "constant", zero_point)
    for side in ("pads_begin", "pads_end"):
        convolution.set_attribute(side, [0] * len(begin))
    scale = opset13.constant(np.float32((high - low) / 255))
    port.replace_source_output(opset13.multiply(opset13.convert(padded, "f32"), scale).output(0))
    _correct(port, low, high)


def _read_from_zero(rounding: Any, moved: list[Any], others: list[Any]) -> None:
    """Make ``rounding`` begin at 0 and correct what reads it: ``moved`` in the bias, ``others`` by an addition."""
    from openvino import opset13

    low, high = scalar(rounding, 3), scalar(rounding, 4)
    _set_limits(rounding, 0, float(np.float32(high) - np.float32(low)))
    for port in moved:
        _correct(port, low, high)
    for port in others:
        port.replace_source_output(opset13.add(rounding.output(0), opset13.constant(np.float32(low))).output(0))


def _set_limits(rounding: Any, low: float, high: float) -> None:
    from openvino import opset13

    for port, value in ((3, low), (4, high)):
        rounding.input(port).replace_source_output(opset13.constant(np.float32(value)).output(0))


def _zero_point(low: float, high: float) -> int:
    return round(-255 * low / (high - low))


def _correct(port: Any, low: float, high: float) -> None:
    """Take from a bias what is too much, as the operand of the convolution begins at 0 and not at ``low``."""
    weights = _weights(port)
    assert weights is not None  # the port is of one of the convolutions that were found by their weights
    missing = weights.sum(tuple(range(1, weights.ndim))) * (_zero_point(low, high) * (high - low) / 255)
    _add_to_bias(port.get_node(), -missing.reshape(-1, *[1] * (weights.ndim - 2)))


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


def _values(value: Any) -> Array | None:
    """Compute weights from the integers and scales that they are written with."""
    node = value.get_node()
    if node.get_type_name() == "Constant":
        values: Array = node.data.astype(np.float64)
        return values
    operands = [_values(operand) for operand in node.input_values()]
    if node.get_type_name() not in _COMPUTED or any(operand is None for operand in operands):
        return None
    return np.asarray(_COMPUTED[node.get_type_name()](*operands), np.float64)
