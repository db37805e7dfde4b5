"""Operations in which an int8 file loses time against its float twin, as measured.

A runtime renames operations when it optimizes a graph, so twins are found by name where both runs have it, else by place:
the third convolution of one run is that of the other where both have as many. Where they have not, kinds are compared as a
whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from edgekd.profiling.on_device.runtimes.precision import MOVES
from edgekd.results.profile import Operation, Operations, ProfileRecord
from edgekd.results.speed import Loss, TimedOperation

CLEAR = 0.10
"""Share by which an operation must take longer than its twin to be named: single operations are not timed more exactly."""
WEIGHT = 0.03
"""Share of the inference that something must take to be named."""
ATTRIBUTED = 0.5
"""Share of both inferences that their operations must account for; with less, nothing is said."""
OVERHEAD = 0.5
"""Share by which recording may lengthen either inference; with more, the recording itself is what was timed."""
NAMED = 3
"""Operations that are named, at most."""

_ALIKE = {
    "convolution": "convolution",
    "groupconvolution": "convolution",
    "conv": "convolution",
    "depthwiseconv": "convolution",
    "gemm": "matrix product",
    "matmul": "matrix product",
    "fullyconnected": "matrix product",
    "globalaveragepool": "pooling",
    "averagepool": "pooling",
    "maxpool": "pooling",
    "pooling": "pooling",
}
_DRESS = re.compile(r"qlinear|fused|nhwc|nchwc|integer|quantized|legacy|_2d|2d|_|^q(?=gemm|attention)")


def losses(int8: ProfileRecord, float32: ProfileRecord) -> Iterator[Loss]:
    """Yield what takes longer in int8, the costliest kind of reason first known: conversions, float leftovers, slow twins.

    Args:
        int8: The int8 artifact's record.
        float32: The float artifact's, of the same runtime and session; both with operations.
    """
    ours, theirs = int8.operations, float32.operations
    if ours is None or theirs is None or min(ours.attributed, theirs.attributed) < ATTRIBUTED:
        return
    if unusable(ours) or unusable(theirs):
        return
    yield from _conversions(ours, theirs)
    yield from _left_in_float(ours)
    yield from _slower(ours, theirs)


def unusable(found: Operations) -> bool:
    """Tell whether nothing can be concluded from times of single operations."""
    return overlapping(found) or found.overhead > OVERHEAD


def overlapping(found: Operations) -> bool:
    """Tell whether the operations take more time than the inference that they are of."""
    return round(100 * found.attributed) > 100


def delegated(operation: Operation) -> bool:
    """Tell whether it is a part of the graph that a delegate runs in one piece, in a type that is not told."""
    return not operation.precision and "delegate" in operation.kind.lower()


def kind(operation: Operation) -> str:
    """Name the kind of an operation alike in int8 and in float.

    Example:
        >>> kind(Operation("a", "QLinearConv", 1.0)), kind(Operation("b", "FullyConnectedQuantizedLegacy", 1.0))
        ('convolution', 'matrix product')
    """
    plain = _DRESS.sub("", operation.kind.lower())
    return _ALIKE.get(plain, plain)


def _moves(operation: Operation) -> bool:
    """Tell whether an operation only converts or moves values."""
    return not (operation.precision or delegated(operation)) or MOVES.search(operation.kind) is not None


def _conversions(ours: Operations, theirs: Operations) -> Iterator[Loss]:
    mine, other = ([op for op in found.operations if _moves(op)] for found in (ours, theirs))
    if _ms(mine) - _ms(other) > WEIGHT * ours.mean:
        yield Loss("conversions", len(mine), _ms(mine), len(other), _ms(other))


def _left_in_float(ours: Operations) -> Iterator[Loss]:
    floats = [op for op in ours.operations if "float" in op.precision and not _moves(op)]
    if _ms(floats) > WEIGHT * ours.mean:
        longest = sorted(floats, key=lambda op: -op.ms)[:NAMED]
        named = tuple(TimedOperation(op.name, op.kind, op.ms) for op in longest)
        yield Loss("float", len(floats), _ms(floats), longest=named)


def _slower(ours: Operations, theirs: Operations) -> Iterator[Loss]:
    pairs, rest = _twins(ours, theirs)
    slow = [(a, b) for a, b in pairs if a.ms > b.ms * (1 + CLEAR)]
    mine, other = [a for a, _ in slow], [b for _, b in slow]
    if _ms(mine) - _ms(other) > WEIGHT * ours.mean:
        slow.sort(key=lambda pair: pair[1].ms - pair[0].ms)
        named = tuple(TimedOperation(a.name, a.kind, a.ms, b.ms) for a, b in slow[:NAMED])
        yield Loss("slower", len(mine), _ms(mine), len(other), _ms(other), len(pairs), longest=named)
    for name, mine, other in rest:
        if _ms(mine) - _ms(other) > WEIGHT * ours.mean:
            yield Loss("slower kind", len(mine), _ms(mine), len(other), _ms(other), kind=name)


def _ms(operations: Sequence[Operation]) -> float:
    return sum(op.ms for op in operations)


def _twins(
    ours: Operations, theirs: Operations
) -> tuple[list[tuple[Operation, Operation]], list[tuple[str, list[Operation], list[Operation]]]]:
    """Pair int8 operations with float ones; returns pairs, and kinds of which both runs have different numbers."""
    mine = [op for op in ours.operations if "int8" in op.precision and not _moves(op)]
    other = [op for op in theirs.operations if not _moves(op)]
    by_name = {op.name: op for op in other}
    pairs = [(op, by_name.pop(op.name)) for op in mine if op.name in by_name]
    paired = {op.name for op, _ in pairs}
    rest = []
    for name in dict.fromkeys(kind(op) for op in mine if op.name not in paired):
        left = [op for op in mine if op.name not in paired and kind(op) == name]
        right = [op for op in by_name.values() if kind(op) == name]
        if len(left) == len(right):
            pairs += zip(left, right, strict=True)
        elif right:
            rest.append((name, left, right))
    return pairs, rest
