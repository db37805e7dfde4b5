"""Records of the operations that a runtime really runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Delegate:
    """A delegate or an execution provider: it runs operations of a graph in a runtime's place.

    Attributes:
        name: Such as ``XNNPACK``, ``GPU`` or ``CPUExecutionProvider``.
        taken: How many operations it took; None where that is not told.
        of: How many operations the graph has; likewise.
        parts: In how many parts it runs them; likewise.
        whole: Whether it took all of them, where only that is told.
    """

    name: str
    taken: int | None = None
    of: int | None = None
    parts: int | None = None
    whole: bool | None = None


@dataclass(frozen=True)
class FloatOperation:
    """An operation of the network that the int8 rules leave in float.

    Attributes:
        layer: Path of the module whose ``forward`` has it; empty for one of the network's own ``forward``.
        operator: Such as ``softmax``.
        node: Its name in the graph, which ``keep_float`` takes with a ``%`` before it.
        reason: Why it stays in float.
        asked: Whether ``keep_float`` asks for it.
    """

    layer: str
    operator: str
    node: str
    reason: str
    asked: bool = False

    def __str__(self) -> str:
        """Name it by the module it is in, with the reason.

        Example:
            >>> str(FloatOperation("head", "softplus", "softplus", "no int8 rule for softplus"))
            'head softplus (%softplus): no int8 rule for softplus'
        """
        return f"{where(self.layer, self.operator, self.node)}: {self.reason}" if self.node else self.reason


@dataclass(frozen=True)
class FloatOperators:
    """Operators of one kind that a runtime computes in float in its optimized graph of an int8 file.

    Attributes:
        operator: Kind, as the runtime names it, such as ``FusedConv``.
        count: How many.
        precision: ``float32``, ``float16`` or ``bfloat16``.
        expected: Whether the file says so: conversions of its input and output, and what the int8 rules left in float.
        reason: Why; empty where it is not known.
        layers: Modules (or graph nodes outside of any) that they are from; empty where it cannot be told.
    """

    operator: str
    count: int
    precision: str
    expected: bool
    reason: str = ""
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class FloatWeights:
    """Weights that the int8 files hold in float32, in bytes.

    Attributes:
        int8: Bytes of integers.
        float32: Bytes of floats.
        kept: Bytes of those floats that ``keep_float`` leaves in float, and not the lack of an int8 rule.
        holders: Module and operator that hold floats, with their bytes; the largest first.
    """

    int8: int
    float32: int
    kept: int
    holders: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """Floats among all bytes of the weights, 0 to 1."""
        return self.float32 / (self.int8 + self.float32) if self.float32 else 0.0


@dataclass(frozen=True)
class RuntimeGraph:
    """The graph that a runtime makes of an int8 file when it loads it, on the machine of the run.

    Attributes:
        runtime: Its name and version.
        operators: Number of operators, without those that only move or convert values.
        floats: Those that compute in float.
        delegates: Of TensorFlow Lite, how much of the graph XNNPACK took.
        undelegated: The kinds of operators that it did not take.
    """

    runtime: str
    operators: int
    floats: tuple[FloatOperators, ...] = ()
    delegates: tuple[Delegate, ...] = ()
    undelegated: tuple[str, ...] = ()

    def unexpected(self) -> tuple[FloatOperators, ...]:
        """Return what runs in float although the file has it in int8."""
        return tuple(found for found in self.floats if not found.expected)


@dataclass(frozen=True)
class DefaultPrecision:
    """An OpenVINO file loaded without ``INFERENCE_PRECISION_HINT=f32``, on a CPU where that makes a difference.

    Attributes:
        precision: What OpenVINO then computes float layers in, such as ``bfloat16``.
        reference: The torch network that both loads are compared with.
        n: Number of test samples.
        agreement: Share of them with the reference's class; None where the task has no classes.
        error: Root mean square of the primary output's error over the standard deviation of the reference's.
        hinted_agreement: The same images, with the hint.
        hinted_error: Likewise.
    """

    precision: str
    reference: str
    n: int
    agreement: float | None
    error: float
    hinted_agreement: float | None
    hinted_error: float


def where(layer: str, operator: str, node: str) -> str:
    """Name an operation of a network by the module it is in.

    Example:
        >>> where("layer1.0.conv", "conv2d", "conv2d_3"), where("", "add", "add_5")
        ('layer1.0.conv conv2d (%conv2d_3)', 'forward() add (%add_5)')
    """
    return f"{layer or 'forward()'} {operator} (%{node})"


def number(floats: Sequence[FloatOperators]) -> int:
    """Count the operators of several records."""
    return sum(found.count for found in floats)
