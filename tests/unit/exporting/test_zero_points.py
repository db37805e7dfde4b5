"""Zero points in biases: the same integers come out, and the runtime has no zero point left to subtract."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13

from edgekd.exporting.formats.openvino import zero_points

Array = np.ndarray
LOGITS = (-3, 3)


def rounded(x: Any, low: float, high: float) -> Any:
    """Int8 with a zero point: 0 is one of the 256 values."""
    step = (high - low) / 255
    limits = [opset13.constant(np.float32(round(value / step) * step)) for value in (low, high)]
    return opset13.fake_quantize(x, *limits, *limits, 256)


def convolved(x: Any, channels: tuple[int, int], size: int, padding: int, bias: bool) -> Any:
    rng = np.random.default_rng(channels[0])
    integers = rng.integers(-127, 128, (channels[1], channels[0], size, size)).astype(np.int8)
    scales = rng.uniform(0.001, 0.01, (channels[1], 1, 1, 1)).astype(np.float32)
    weights = opset13.multiply(opset13.convert(opset13.constant(integers), "f32"), opset13.constant(scales))
    pads = [padding, padding]
    y = opset13.convolution(x, weights, [1, 1], pads, pads, [1, 1])
    return opset13.add(y, opset13.constant(rng.normal(size=(1, channels[1], 1, 1)).astype(np.float32))) if bias else y


@pytest.fixture(params=[True, False], ids=["bias", "no bias"])
def network(request: pytest.FixtureRequest) -> Any:
    """A padded convolution of the image, and a residual block of 1×1 convolutions: all with zero points."""
    image = opset13.parameter([1, 3, 16, 16], np.float32, "input")
    x = rounded(convolved(rounded(image, -3, 4), (3, 16), 3, 1, request.param), -2, 3)
    y = rounded(convolved(x, (16, 16), 1, 0, request.param), -2, 2)
    total = rounded(opset13.add(x, y), -4, 5)
    pooled = opset13.reduce_mean(convolved(total, (16, 10), 1, 0, request.param), opset13.constant(np.int64([2, 3])), False)
    logits = rounded(pooled, *LOGITS)
    return openvino.Model([opset13.result(logits)], [image], "network")


def run(network: Any) -> Array:
    images = np.random.default_rng(0).normal(size=(16, 1, 3, 16, 16)).astype(np.float32)
    request = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return np.concatenate([request.infer([image])[0] for image in images])


def test_the_network_computes_what_it_did(network: Any) -> None:
    before = run(network)
    zero_points.move_into_biases(network)
    # A value half-way between two steps may round to either; that is rare.
    assert len(np.unique(before)) > 8
    assert float((np.abs(run(network) - before) > 1e-4).mean()) < 0.02


def test_no_convolution_has_a_zero_point_left_to_subtract(network: Any) -> None:
    zero_points.move_into_biases(network)
    roundings = [node for node in network.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]
    # The third and the last are not read by a convolution.
    below_zero = [float(node.input_value(3).get_node().data) < 0 for node in roundings]
    assert below_zero == [False, False, True, False, True]
    convolutions = [node for node in network.get_ordered_ops() if node.get_type_name() == "Convolution"]
    assert len(convolutions) == 3
    assert not any(any(node.get_attributes()["pads_begin"]) for node in convolutions), "a 0 would be the lowest value"


def test_a_padded_convolution_inside_keeps_its_zero_point() -> None:
    image = opset13.parameter([1, 3, 16, 16], np.float32, "input")
    x = rounded(convolved(rounded(image, 0, 4), (3, 16), 3, 1, True), -2, 3)
    y = opset13.reduce_mean(convolved(x, (16, 10), 3, 1, True), opset13.constant(np.int64([2, 3])), False)
    padded = openvino.Model([opset13.result(y)], [image], "padded")
    before = run(padded)
    zero_points.move_into_biases(padded)
    convolutions = [node for node in padded.get_ordered_ops() if node.get_type_name() == "Convolution"]
    assert [list(node.get_attributes()["pads_begin"]) for node in convolutions] == [[1, 1], [1, 1]]
    np.testing.assert_array_equal(run(padded), before)
