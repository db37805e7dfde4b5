"""The gates of a recipe: limits that decide the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edgekd.recipe.base import Format, Strict, mistake

OnDoubt = Literal["error", "warn"]


class Gate(Strict):
    """A limit that decides the exit code."""

    max: float | None = None
    """Largest value that passes."""
    min: float | None = None
    """Smallest value that passes."""
    device: str = "host"
    """Device whose figure is meant (latency and memory)."""
    formats: Annotated[tuple[Format, ...], Field(min_length=1)] | None = None
    """Only files of these formats (latency and memory), such as [tflite] on a phone; left out: all."""
    level: Literal["error", "warn", "off"] = "error"
    """error: a gate that does not pass ends the run with exit code 1. warn: a caution, exit code 0. off: it
    is recorded only. gates: {NAME: off} is short for level: off."""

    @model_validator(mode="after")
    def _one_limit(self) -> Gate:
        if self.level == "off" and self.max is None and self.min is None:
            return self
        if (self.max is None) == (self.min is None):
            what = "neither max nor min is given" if self.max is None else "max and min are both given"
            raise mistake(what, "a gate has one limit: {max: NUMBER} or {min: NUMBER}")
        return self

    def within(self, value: float) -> bool:
        """Tell whether a value is within the limit."""
        slack = 1e-9  # 0.8935 - 0.8835 is a hair above 0.01
        return (self.max is None or value <= self.max + slack) and (self.min is None or value >= self.min - slack)


class DropGate(Gate):
    """A limit on the loss of a metric by compression."""

    metric: str
    """Metric of the task, such as top1."""


class MetricGate(Gate):
    """A limit on a metric itself."""

    name: str
    """Metric of the task, such as top1."""


Several = tuple[Gate, ...]

DEFAULTS: dict[str, dict[str, float]] = {
    "accuracy_drop": {"max": 0.02},
    "expected_drop": {"max": 0.02},
    "agreement": {"min": 0.80},
    "sqnr_db": {"min": 10.0},
    "lost_classes": {"max": 0.0},
    "worst_sqnr_db": {"min": 5.0},
    "worst_agreement": {"min": 0.80},
    "parity_top1": {"min": 0.995},
    "parity_lsb_p99": {"max": 2.0},
    "parity_error": {"max": 0.01},
}
"""Limits of the default gates. Those of int8 against the float model are made on
tests/oracle/results.md: no network that int8 destroys passes, and none fails that it does not harm."""


class Gates(Strict):
    """Limits on the result. A gate with no measurement fails.

    Parity, and int8 against the float model, have gates by default: accuracy_drop where the test images have labels (or a
    teacher stands in for them), else expected_drop, agreement and sqnr_db; lost_classes in both cases.
    Any gate can be off: {accuracy_drop: off}.
    """

    accuracy_drop: Gate | None = None
    """Top-1 of the float student minus that of each int8 artifact, on the test split (0.01 is one point); the 95 % interval
    has to be within the limit. Default: {max: 0.02} where the test images have labels. Without labels, of agreement with the
    teacher: the gate is then called agreement_drop."""
    expected_drop: Gate | None = None
    """Accuracy that an int8 artifact is expected to lose by the float student's own confidence, as a share; needs no labels.
    Default without labels and teacher: {max: 0.02}."""
    agreement: Gate | None = None
    """Share of test images on which an int8 artifact's top-1 is the float student's, from 0 to 1. Default without labels
    and teacher: {min: 0.8}."""
    sqnr_db: Gate | None = None
    """Variance of the float student's logits to the mean square of an int8 artifact's error, in dB. Default without labels
    and teacher: {min: 10}."""
    lost_classes: Gate | None = None
    """Number of classes that the float student is sure of on five test images or more, and that an int8 artifact gives on
    none of them; a rare class hardly moves top-1. Default where there are such classes: {max: 0}."""
    worst_sqnr_db: Gate | None = None
    """The same ratio in dB of the one value that int8 harms most, among all outputs that have no classes. An output N×K is K
    values (a box is four), for they share one int8 step and a small one can be lost; another output counts as one value.
    Default where there is such an output: {min: 5}. Cure: keep the layer that gives it in float (quantize.keep_float)."""
    worst_agreement: Gate | None = None
    """Share of test samples, from 0 to 1, on which the one integer or truth value that int8 harms most is the float
    student's, averaged over the values that the float student gives. An output N×K is K values. Default where there is such
    an output: {min: 0.8}, as agreement. Cure: keep the layers before it in float (quantize.keep_float)."""
    drop: DropGate | tuple[DropGate, ...] | None = None
    """Loss of a metric in each int8 artifact against the float student, on the test split, in the metric's own unit (0.01 is
    one point of a share): the whole 95 % interval has to be within the limit. A list has a limit for each of several
    metrics."""
    metric: MetricGate | tuple[MetricGate, ...] | None = None
    """A metric of each int8 artifact on the test split. A list: as drop."""
    top1: Gate | None = None
    """Top-1 of each int8 artifact on the test split, from 0 to 1."""
    parity_top1: Gate = Gate(min=0.995)
    """Share of test images on which an artifact's top-1 is the torch int8 model's; its ties count as the same."""
    parity_lsb_p99: Gate = Gate(max=2.0)
    """99th percentile of the error against the torch int8 model, in steps (LSB) of the output's scale."""
    parity_error: Gate = Gate(max=0.01)
    """Root mean square of a float file's error against torch, over the deviation of the logits (0.01 is 1 %). Also of int8
    files whose last layer is float, which have no steps; there the default is 0.03."""
    size_ratio: Gate | None = None
    """Bytes of each int8 artifact divided by those of the float32 ONNX file."""
    latency_p50_ms: Gate | Several | None = None
    """Median latency in milliseconds of each int8 artifact. A list has a limit for each of several devices."""
    latency_p90_ms: Gate | Several | None = None
    """90th percentile of the latency in milliseconds of each int8 artifact. A list: as latency_p50_ms."""
    peak_memory_mib: Gate | Several | None = None
    """Peak memory of the process in MiB (VmHWM) of each int8 artifact. A list: as latency_p50_ms."""
    untrusted: OnDoubt | None = None
    """Effect of a figure that was measured under bad conditions: error, or warn (exit code 0). Default: warn
    where its whole interval is within the limit, else error."""
    undecided: OnDoubt | None = None
    """Effect of a limit inside a figure's 95 % interval (too few images): error, or warn (exit code 0). Default: warn
    where the figure itself is within the limit, else error."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, value: Any) -> Any:
        """Read ``off``, and give a gate that only has a level its usual limit."""
        if not isinstance(value, dict):
            return value
        filled = dict(value)
        for name, gate in value.items():
            if name in ("untrusted", "undecided") or name not in cls.model_fields:
                continue
            if gate == []:
                raise mistake("the list of limits is empty", "write {max: NUMBER, device: NAME}, or remove the gate", name)
            if name in ("drop", "metric") and (gate is False or gate == "off"):
                filled[name] = None  # there is no default to switch off; a study or --set leaves a recipe's gate out so
                continue
            filled[name] = tuple(_whole(name, one) for one in gate) if isinstance(gate, list) else _whole(name, gate)
        return filled

    def limits(self) -> Iterator[tuple[str, Gate]]:
        """Yield the gates that are set, by name."""
        for name in type(self).model_fields:
            given = getattr(self, name)
            for gate in given if isinstance(given, tuple) else (given,):
                if isinstance(gate, Gate):
                    yield name, gate


def _whole(name: str, gate: Any) -> Any:
    """Read ``off`` and give a gate its usual limit; lists become tuples, for here the values are not JSON any more."""
    if gate is False or gate == "off":  # YAML 1.1 reads off as false
        gate = {"level": "off"}
    if not isinstance(gate, dict):
        return gate
    usual = DEFAULTS.get(name, {}) if "max" not in gate and "min" not in gate else {}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in {**gate, **usual}.items()}
