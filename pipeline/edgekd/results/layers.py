"""Records of each layer in int8, and of the layers that were given back to float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EXACT_DB = 120.0
"""Where float32 ends: a ratio of signal to noise that is not told from exactness any more is given as this."""


@dataclass(frozen=True)
class Difference:
    """Difference between a runtime's and torch's result of one layer, from the same input.

    Attributes:
        share: Of the values that differ, 0 to 1.
        steps: The greatest difference, in steps of the layer's int8 scale.
    """

    share: float
    steps: float


@dataclass(frozen=True)
class LayerRecord:
    """Noise of one layer in int8: signal to quantization noise (SQNR) in dB, more is better.

    Attributes:
        name: Node of the graph.
        path: Module of the student; ``input`` for the image.
        op: Operator.
        alone_db: At its output, with this layer alone in int8.
        logits_db: At the logits, less what all samples or all classes share, with this layer alone in int8.
        total_db: At its output, with the whole graph in int8, as torch computes it.
        cause: What makes most of its noise at the logits.
        runtimes: ``total_db`` as each int8 artifact's own runtime computes it, by the artifact's name.
        differences: Where the runtime differs from torch in this layer alone, by the artifact's name.
        gives: Names of the outputs that it gives, or that are computed from its result with no other convolution or product.
    """

    name: str
    path: str
    op: str
    alone_db: float
    logits_db: float
    total_db: float
    cause: Literal["weight", "output"]
    runtimes: Mapping[str, float] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    gives: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The module; for what no module makes the operator and its name, as ``keep_float`` takes it."""
        return self.path or f"forward() {self.op} (%{self.name})"


@dataclass(frozen=True)
class RepairCost:
    """An artifact with some layers in float beside the same all in int8: bytes, and the median milliseconds on a device.

    ``*_ci`` are 95 % intervals.
    """

    model: str
    bytes: int
    bytes_int8: int
    device: str | None = None
    p50: float | None = None
    p50_ci: tuple[float, float] | None = None
    p50_int8: float | None = None
    p50_int8_ci: tuple[float, float] | None = None
    trusted: bool = True


@dataclass(frozen=True)
class RepairRecord:
    """The layers that were given back to float to meet the gates against float, on the validation split, and their cost.

    Attributes:
        metric: What decided: a metric of the task, or ``agreement`` with the float student.
        of: What the outputs were held against.
        limit: What was needed.
        reference: Of the float student; 1 where it is agreement with it.
        before: Of the graph all in int8.
        after: With ``layers`` in float.
        sqnr_limit: Signal to noise at the logits that was needed, in dB; None where labels decide.
        sqnr_before: Of the graph all in int8.
        sqnr_after: With ``layers`` in float.
        keep_float: What a recipe names to have the same without searching.
        layers: The layers as they were in int8, the most sensitive first.
        candidates: Number of layers in all.
        costs: Of each int8 artifact, on each device.
    """

    metric: str
    limit: float
    reference: float
    before: float
    after: float
    keep_float: tuple[str, ...]
    layers: tuple[LayerRecord, ...]
    candidates: int
    costs: tuple[RepairCost, ...] = ()
    of: Literal["labels", "teacher", "float"] = "labels"
    sqnr_limit: float | None = None
    sqnr_before: float | None = None
    sqnr_after: float | None = None
