"""The gates of a recipe: limits that decide the exit code."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import model_validator

from edgekd.recipe_base import Strict, mistake


class Gate(Strict):
    """A limit that decides the exit code."""

    max: float | None = None
    """Largest value that passes."""
    min: float | None = None
    """Smallest value that passes."""
    device: str = "host"
    """Device whose figure is meant (latency and memory)."""

    @model_validator(mode="after")
    def _one_limit(self) -> Gate:
        if (self.max is None) == (self.min is None):
            what = "neither max nor min is given" if self.max is None else "max and min are both given"
            raise mistake(what, "a gate has one limit: {max: NUMBER} or {min: NUMBER}")
        return self


class Gates(Strict):
    """Limits on the result. A gate with no measurement fails; parity is always gated."""

    accuracy_drop: Gate | None = None
    """Top-1 of the distilled float student minus that of each int8 artifact, on the test split (0.01 is one point).
    Without labels, of agreement with the teacher: the gate is then called agreement_drop."""
    top1: Gate | None = None
    """Top-1 of each int8 artifact on the test split, from 0 to 1."""
    parity_top1: Gate = Gate(min=0.995)
    """Share of test images on which an artifact's top-1 is the torch int8 model's."""
    parity_lsb_p99: Gate = Gate(max=2.0)
    """99th percentile of the error against the torch int8 model, in steps (LSB) of the output's scale."""
    size_ratio: Gate | None = None
    """Bytes of each int8 artifact divided by those of the float32 ONNX file."""
    latency_p50_ms: Gate | None = None
    """Median latency in milliseconds of each int8 artifact."""
    latency_p90_ms: Gate | None = None
    """90th percentile of the latency in milliseconds of each int8 artifact."""
    peak_memory_mib: Gate | None = None
    """Peak memory of the process in MiB (VmHWM) of each int8 artifact."""

    def limits(self) -> Iterator[tuple[str, Gate]]:
        """Yield the gates that are set, by name."""
        for name in type(self).model_fields:
            gate = getattr(self, name)
            if gate is not None:
                yield name, gate
