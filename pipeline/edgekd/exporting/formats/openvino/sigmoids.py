"""Sigmoids of quantized values as polynomials, which OpenVINO computes faster than an exponential.

The sigmoid in a SiLU (Elfwing et al. 2018, eq. 3) is rounded to one of 256 values and has one of 256 operands. So a
polynomial does not have to be the sigmoid; it has to round to the same integer 256 times. Such a one is found by linear
programming (as are Chebyshev approximations: Rivlin and Shapiro 1961), and tried with the arithmetic of the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.exporting.formats.openvino.ir import is_scalar, readers, scalar

Array = NDArray[np.float32]

_LEVELS = 256
# How far from the limits of its integer each value has to be. The arithmetic of float32 moves it by a thousandth.
_MARGIN = 0.005
_MOST_TERMS = 12
# What a clamp of the operand is taken to cost, in terms.
_CLAMP_TERMS = 3


@dataclass(frozen=True)
class Polynomial:
    """``128 + t × (c0 + c1 w + …)``, with ``w = t² - centre``: rounded, it is the sigmoid in steps of 1/256.

    Where there are ``limits``, the operand ``t`` is clamped to them, otherwise the result to [0, 255].
    """

    coefficients: tuple[float, ...]
    centre: float
    limits: tuple[float, float] | None

    def __call__(self, t: Array, fused: bool) -> Array:
        """Compute it in float32, without the clamps; ``fused``: a product and a sum are rounded once."""

        def multiply_add(factor: Array, other: Array | float, addend: float) -> Array:
            product = factor.astype(np.float64) * other
            return ((product if fused else product.astype(np.float32).astype(np.float64)) + addend).astype(np.float32)

        w = multiply_add(t, t, -self.centre)
        value = np.full_like(w, self.coefficients[-1])
        for coefficient in self.coefficients[-2::-1]:
            value = multiply_add(value, w, coefficient)
        return multiply_add(value, t, _LEVELS / 2)

    def integers(self, t: Array, fused: bool) -> Array:
        """Round what ``__call__`` returns, as the file does."""
        value = self(t, fused)
        return np.rint(value if self.limits else np.clip(value, 0, 255))


def write_as_polynomials(model: Any) -> None:
    """Write the quantized sigmoid of each SiLU of a map as a polynomial with the same 256 results.

    One that no polynomial of twelve terms fits stays as it is, and so do the few values behind a global pooling.

    Args:
        model: An ``openvino.Model``, changed in place.
    """
    for sigmoid in model.get_ordered_ops():
        parts = _parts(sigmoid)
        if parts is None:
            continue
        rounding, product, result = parts
        x = sigmoid.input_value(0)
        found = fit(scalar(x.get_node(), 3), scalar(x.get_node(), 4))
        if found is None:
            continue
        (port,) = (port for port in product.inputs() if port.get_source_output().get_node() == rounding)
        port.replace_source_output(_write(found, x).output(0))
        _scale_operand(result)


@lru_cache
def fit(low: float, high: float) -> Polynomial | None:
    """Return the polynomial with the fewest terms for operands of 256 values from ``low`` to ``high``, if there is one."""
    step = (high - low) / 255
    x = ((np.arange(_LEVELS) - round(-low / step)) * step).astype(np.float32)
    exact = np.clip(np.rint(_LEVELS / (1 + np.exp(-x.astype(np.float64)))), 0, 255)
    # Beyond these the sigmoid is 0 and 255 steps. OpenVINO may clamp the integers instead of the values, so
    # neighbours of the limits have to do as well.
    lowest, highest = x[exact == exact.min()].max(), x[exact == exact.max()].min()
    limits = float(lowest - np.float32(step / 4)), float(highest + np.float32(step / 4))
    inner = (x >= lowest) & (x <= highest)
    outer = np.array([lowest - step, limits[0], limits[1], highest + step], np.float32)
    clamped = np.concatenate([x[inner], outer]), np.concatenate([exact[inner], exact.min().repeat(2), exact.max().repeat(2)])
    for terms in range(2, _MOST_TERMS + 1):
        for (t, result), bounds, count in (((x, exact), None, terms), (clamped, limits, terms - _CLAMP_TERMS)):
            found = _solve(t, result, count, bounds) if count > 1 else None
            if found and all(np.array_equal(found.integers(t, fused), result) for fused in (False, True)):
                return found
    return None


def _solve(x: Array, exact: Array, terms: int, limits: tuple[float, float] | None) -> Polynomial | None:
    """Maximise the distance of all values from the limits of their integers; a result that is clamped has none outwards."""
    from scipy.optimize import linprog

    t = x.astype(np.float64)
    largest = np.abs(t).max()
    basis = np.polynomial.chebyshev.chebvander(2 * (t / largest) ** 2 - 1, terms - 1) * (t / largest)[:, None]
    below, above = (exact < 255) | bool(limits), (exact > 0) | bool(limits)
    sides = np.concatenate([basis[below], -basis[above]])
    bounds = np.concatenate([exact[below] + 0.5 - _LEVELS / 2, -(exact[above] - 0.5 - _LEVELS / 2)])
    solved = linprog(
        [*[0] * terms, -1], np.c_[sides, np.ones(len(sides))], bounds, bounds=[*[(None, None)] * terms, (None, 0.4)],
        method="highs",
    )  # fmt: skip
    if solved.status != 0 or solved.x[-1] < _MARGIN:
        return None
    centre = largest**2 / 2
    coefficients = np.polynomial.chebyshev.cheb2poly(solved.x[:terms]) / largest
    scaled = np.array([value / centre**power for power, value in enumerate(coefficients)], np.float32)
    return Polynomial(tuple(float(value) for value in scaled), float(np.float32(centre)), limits)


def _parts(sigmoid: Any) -> tuple[Any, Any, Any] | None:
    """Return the roundings and the product of ``x × sigmoid(x)``: of the sigmoid, the product, and of the product."""
    if sigmoid.get_type_name() != "Sigmoid" or not _is_rounding(sigmoid.input_value(0).get_node()):
        return None
    rounding = _only_reader(sigmoid)
    if not _is_rounding(rounding) or (scalar(rounding, 3), scalar(rounding, 4)) != (0, 255 / 256):
        return None
    product = _only_reader(rounding)
    if product is None or product.get_type_name() != "Multiply":
        return None
    result = _only_reader(product)
    operands = {value.get_node() for value in product.input_values()}
    shape = product.output(0).get_partial_shape()
    is_map = len(shape) == 4 and shape[2].get_length() * shape[3].get_length() > 1
    if operands != {rounding, sigmoid.input_value(0).get_node()} or not _is_rounding(result) or not is_map:
        return None
    return rounding, product, result


def _write(polynomial: Polynomial, x: Any) -> Any:
    from openvino import opset13

    def constant(value: float) -> Any:
        return opset13.constant(np.float32(value))

    t = opset13.clamp(x, *polynomial.limits) if polynomial.limits else x
    w = opset13.add(opset13.multiply(t, t), constant(-polynomial.centre))
    value = constant(polynomial.coefficients[-1])
    for coefficient in polynomial.coefficients[-2::-1]:
        value = opset13.add(opset13.multiply(value, w), constant(coefficient))
    value = opset13.add(opset13.multiply(value, t), constant(_LEVELS / 2))
    return opset13.round(value if polynomial.limits else opset13.clamp(value, 0.0, 255.0), "half_to_even")


def _scale_operand(rounding: Any) -> None:
    """Let a rounding take an operand that is 256 times as large, which is exact, and return what it did."""
    from openvino import opset13

    for port in (1, 2):
        limit = opset13.constant(np.float32(_LEVELS * scalar(rounding, port)))
        rounding.input(port).replace_source_output(limit.output(0))


def _is_rounding(node: Any) -> bool:
    if node is None or node.get_type_name() != "FakeQuantize" or node.get_attributes()["levels"] != _LEVELS:
        return False
    return all(is_scalar(node.input_value(port).get_node()) for port in range(1, 5))


def _only_reader(node: Any) -> Any | None:
    if readers(node) != 1:
        return None
    (port,) = node.output(0).get_target_inputs()
    return port.get_node()
