"""Sigmoids as polynomials: every one of the 256 results is that of the sigmoid, in numpy and in OpenVINO."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
from openvino import opset13

from edgekd.exporting.formats.openvino import sigmoids

RANGES = [(-1.6, 1.1), (-4.3, 6.6), (-7.5, 9.4), (-14.5, 23.9), (-15.1, 5.9), (0.0, 8.0)]


def grid(low: float, high: float) -> tuple[float, float]:
    """The nearest limits for which 0 is one of the 256 values, in float32."""
    step = (high - low) / 255
    return tuple(float(np.float32(round(value / step) * step)) for value in (low, high))


@pytest.mark.parametrize("limits", RANGES, ids=str)
def test_each_of_256_results_is_that_of_the_sigmoid(limits: tuple[float, float]) -> None:
    low, high = grid(*limits)
    x = np.linspace(low, high, 256)
    exact = np.clip(np.rint(256 / (1 + np.exp(-x))), 0, 255)
    found = sigmoids.fit(low, high)
    assert found is not None
    t = np.clip(x, *found.limits) if found.limits else x
    value = 128 + t * np.polynomial.polynomial.polyval(t**2 - found.centre, found.coefficients)
    np.testing.assert_array_equal(np.rint(np.clip(value, 0, 255)), exact)


def network(low: float, high: float, size: int) -> Any:
    """A convolution and a SiLU in int8, as edgekd's ONNX file comes into OpenVINO, and a convolution that reads it."""

    def rounded(x: Any, low: float, high: float) -> Any:
        limits = [opset13.constant(np.float32(value)) for value in (low, high)]
        return opset13.fake_quantize(x, *limits, *limits, 256)

    def convolved(x: Any, channels: tuple[int, int]) -> Any:
        integers = np.random.default_rng(0).integers(-127, 128, (*channels[::-1], 1, 1)).astype(np.int8)
        weights = opset13.multiply(opset13.convert(opset13.constant(integers), "f32"), opset13.constant(np.float32(0.01)))
        return opset13.convolution(x, weights, [1, 1], [0, 0], [0, 0], [1, 1])

    image = opset13.parameter([1, 3, size, size], np.float32, "input")
    x = rounded(convolved(rounded(image, 0, 4), (3, 16)), low, high)
    gate = rounded(opset13.sigmoid(x), 0, 255 / 256)
    y = convolved(rounded(opset13.multiply(x, gate), *grid(-0.28, high)), (16, 8))
    return openvino.Model([opset13.result(rounded(y, *grid(-high, high)))], [image], "silu")


def run(model: Any) -> np.ndarray:
    images = np.random.default_rng(1).uniform(0, 4, [4, *list(model.input(0).shape)]).astype(np.float32)
    request = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return np.concatenate([request.infer([image])[0] for image in images])


@pytest.mark.parametrize("limits", RANGES[:-1], ids=str)
def test_openvino_computes_the_same_integers(limits: tuple[float, float]) -> None:
    model = network(*grid(*limits), size=24)
    before = run(model)
    sigmoids.write_as_polynomials(model)
    assert "Sigmoid" not in {node.get_type_name() for node in model.get_ordered_ops()}
    after = run(model)
    # A product half-way between two steps may be rounded to either: once in a million.
    assert float((before != after).mean()) < 1e-4


def test_the_few_values_behind_a_global_pooling_keep_their_sigmoid() -> None:
    model = network(*grid(-4.3, 6.6), size=1)
    sigmoids.write_as_polynomials(model)
    assert "Sigmoid" in {node.get_type_name() for node in model.get_ordered_ops()}
