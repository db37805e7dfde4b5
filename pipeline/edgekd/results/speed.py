"""Records of whether int8 is faster than float, and of what it loses its time with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekd.results.findings import Finding


@dataclass(frozen=True)
class RoundRatios:
    """Time of the float file over that of the int8 file in each round of a session, where all rounds have one winner."""

    n: int
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class TimedOperation:
    """An operation of the int8 file with its mean milliseconds, and those of its float twin where it has one."""

    name: str
    kind: str
    ms: float
    float_ms: float | None = None


@dataclass(frozen=True)
class Loss:
    """Operations in which an int8 file loses time against its float twin, from runs that record single operations.

    Attributes:
        what: ``conversions``: operations that convert or move values. ``float``: operations that compute in float.
            ``slower``: int8 operations that take longer than their float twins. ``slower kind``: the same of a kind of
            operation of which both files have different numbers.
        operations: How many, in the int8 file.
        ms: Their mean milliseconds in an inference.
        float_operations: What they are compared with in the float file; None for ``float``.
        float_ms: Likewise.
        of: Of ``slower``, number of int8 operations that have a float twin.
        kind: Of ``slower kind``, the kind.
        longest: Those in which most time is lost, the worst first.
    """

    what: Literal["conversions", "float", "slower", "slower kind"]
    operations: int
    ms: float
    float_operations: int | None = None
    float_ms: float | None = None
    of: int | None = None
    kind: str = ""
    longest: tuple[TimedOperation, ...] = ()


@dataclass(frozen=True)
class Int8Speed:
    """An int8 file beside its float twin on one device. Their times are in the records of their measurement.

    Attributes:
        model: The int8 file.
        twin: The float32 file of the same runtime, measured in the same session.
        device: Where.
        verdict: ``faster`` and ``slower`` only where both are trusted and the intervals of p50 do not overlap.
        rounds: Where the times are untrusted and all rounds have one winner: by how much.
        reasons: Known facts that slow int8 down, not proved to be the cause; empty where it is faster.
        losses: Operations in which int8 loses its time, where it is not faster and single operations were timed.
    """

    model: str
    twin: str
    device: str
    verdict: Literal["faster", "slower", "no difference shown", "untrusted"]
    rounds: RoundRatios | None = None
    reasons: tuple[Finding, ...] = ()
    losses: tuple[Loss, ...] = ()
