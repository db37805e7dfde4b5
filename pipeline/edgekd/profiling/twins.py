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


def sentences(int8: ProfileRecord, float32: ProfileRecord) -> Iterator[str]:
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


def unusable(found: Operations) -> str:
    """Say why nothing can be concluded from times of single operations; empty where something can."""
    if round(100 * found.attributed) > 100:
        return f"{100 * found.attributed:.0f} % of the time is in operations"
    return f"recording costs {100 * found.overhead:.0f} %" if found.overhead > OVERHEAD else ""


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


def _conversions(ours: Operations, theirs: Operations) -> Iterator[str]:
    mine, other = ([op for op in found.operations if _moves(op)] for found in (ours, theirs))
    spent, before = sum(op.ms for op in mine), sum(op.ms for op in other)
    if spent - before > WEIGHT * ours.mean:
        against = f"{_ms(before)} in {_operations(len(other))} in float32" if other else "none in float32"
        yield f"converting and moving values takes {_ms(spent)} in {_operations(len(mine))}, against {against}"


def _left_in_float(ours: Operations) -> Iterator[str]:
    floats = [op for op in ours.operations if "float" in op.precision and not _moves(op)]
    spent = sum(op.ms for op in floats)
    if spent > WEIGHT * ours.mean:
        takes = "takes" if len(floats) == 1 else "take"
        yield f"{_operations(len(floats))} computed in float {takes} {_ms(spent)}: {_named(floats)}"


def _slower(ours: Operations, theirs: Operations) -> Iterator[str]:
    pairs, rest = _twins(ours, theirs)
    slow = [(a, b) for a, b in pairs if a.ms > b.ms * (1 + CLEAR)]
    spent, before = sum(a.ms for a, _ in slow), sum(b.ms for _, b in slow)
    if spent - before > WEIGHT * ours.mean:
        slow.sort(key=lambda pair: pair[1].ms - pair[0].ms)
        names = ", ".join(f"{a.name} ({a.kind}) {_ms(a.ms)} against {_ms(b.ms)}" for a, b in slow[:NAMED])
        more = f" and {len(slow) - NAMED} more" if len(slow) > NAMED else ""
        yield (
            f"{len(slow)} of {len(pairs)} int8 operations {'takes' if len(slow) == 1 else 'take'} longer than the float "
            f"twin, {_ms(spent)} against {_ms(before)}: {names}{more}"
        )
    for name, mine, other in rest:
        if sum(op.ms for op in mine) - sum(op.ms for op in other) > WEIGHT * ours.mean:
            yield (
                f"{len(mine)} operations of the kind {name} take {_ms(sum(op.ms for op in mine))}, against "
                f"{_ms(sum(op.ms for op in other))} for {len(other)} in float32"
            )


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


def _named(operations: Sequence[Operation]) -> str:
    longest = sorted(operations, key=lambda op: -op.ms)
    names = ", ".join(f"{op.name} ({op.kind}) {_ms(op.ms)}" for op in longest[:NAMED])
    return names + (f" and {len(longest) - NAMED} more" if len(longest) > NAMED else "")


def _operations(number: int) -> str:
    return "1 operation" if number == 1 else f"{number} operations"


def _ms(value: float) -> str:
    """Three significant digits, with unit."""
    digits = next((places for limit, places in ((1, 3), (10, 2), (100, 1)) if value < limit), 0)
    return f"{value:.{digits}f} ms"
