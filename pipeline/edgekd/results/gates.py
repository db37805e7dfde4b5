"""Records of gates: a limit, what was measured against it, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "fail", "undecided", "untrusted", "not_measured", "emulated", "not_applicable"]
"""pass: the whole 95 % interval is within the limit. fail: all of it is beyond. undecided: the limit lies inside, for there
are too few images. untrusted: measured under bad conditions. emulated: not measured on the device itself. not_applicable:
the figure does not exist for this file, and another gate takes its place."""

SEVERITY: tuple[Verdict, ...] = (
    "fail", "not_measured", "untrusted", "emulated", "undecided", "not_applicable", "pass",
)  # fmt: skip
"""Verdicts, the worst first."""

QUALITY = (
    "accuracy_drop", "expected_drop", "agreement", "sqnr_db", "lost_classes", "worst_sqnr_db", "worst_agreement", "drop",
)  # fmt: skip
"""Gates that hold a file against the float model."""

Level = Literal["error", "warn", "off"]


@dataclass(frozen=True)
class Limit:
    """A limit of a gate, in the unit that ``run.json`` has: ``<= 0.02`` or ``>= 0.8``."""

    op: Literal["<=", ">="]
    value: float

    def met(self, value: float) -> bool:
        """Tell whether a value is within the limit."""
        slack = 1e-9  # 0.8935 - 0.8835 is a hair above 0.01
        return value <= self.value + slack if self.op == "<=" else value >= self.value - slack

    def __str__(self) -> str:
        return f"{self.op} {self.value:g}"


@dataclass(frozen=True)
class GateRecord:
    """A gate and its verdict.

    Attributes:
        name: Key of the gate in the recipe; ``agreement_drop`` for ``accuracy_drop`` where a teacher stands in for labels.
        model: Name of the artifact.
        metric: Of the gates ``drop`` and ``metric``: the metric they hold.
        limit: What the figure is held against; None for a gate that is off and has none.
        measured: The estimate; None where there is none.
        device: Of a latency or a memory figure.
        low: Lower end of the 95 % interval of ``measured``; None for a figure without sampling noise.
        high: Upper end.
        n: Number of test images behind it.
        reference: Name of the model that the figure compares with.
        level: What the recipe makes of a gate that does not pass: ``error``, ``warn``, or ``off`` (recorded only).
        blocks: Whether the run ends with exit code 1 because of this gate.
        instead: Of one that is not applicable: the gate that takes its place.
        value: Of ``worst_sqnr_db`` and ``worst_agreement``: the value that is harmed most, ``OUTPUT`` or ``OUTPUT[INDEX]``.
            Of a gate of parity that does not pass: the output that decides, where the file has several. Of
            ``lost_classes``: the numbers of the classes, such as ``1 4``.
    """

    name: str
    model: str
    limit: Limit | None = None
    measured: float | None = None
    verdict: Verdict = "not_measured"
    device: str | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reference: str | None = None
    level: Level = "error"
    blocks: bool = False
    instead: str | None = None
    metric: str | None = None
    value: str | None = None
