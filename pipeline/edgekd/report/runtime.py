"""Sentences on the operations that a runtime really runs, and in which type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgekd.report.words import count, plural
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Effective
from edgekd.results.runtime import DefaultPrecision, Delegate
from edgekd.runtimes import base


def in_float(model: ModelRecord) -> Iterator[str]:
    """Say what a runtime runs in float although the file is int8."""
    runtime = base.label(model.format)
    for found in model.runtime_graph.unexpected() if model.runtime_graph else ():
        where = f" ({', '.join(found.layers)})" if found.layers else ""
        why = found.reason or "the reason is not known"
        yield f"{runtime} runs {found.count} {found.operator}{where} in {found.precision} although the file is int8: {why}"


def without_hint(found: DefaultPrecision, noun: str) -> str:
    """Say why the precision hint matters, with both figures; ``noun`` is what one of the data is called."""
    parts = [
        f"an error of {_percent(error)} of the deviation of the output"
        + ("" if same is None else f" and the same class for {_percent(same)} of them")
        for error, same in ((found.error, found.agreement), (found.hinted_error, found.hinted_agreement))
    ]
    return (
        f"loaded without INFERENCE_PRECISION_HINT=f32, OpenVINO computes float layers in {found.precision} on this CPU: "
        f"against {found.reference} on {count(found.n)} test {noun}s {parts[0]}; with the hint, which the load snippet "
        f"sets, {parts[1]}"
    )


def precision(operations: Mapping[str, int]) -> str:
    """Say in which types operations were computed.

    Example:
        >>> precision({"int8": 12, "float32": 2})
        'int8 12, float32 2 of 14 operations'
        >>> precision({"int8": 12})
        'int8'
    """
    total = sum(operations.values())
    if len(operations) < 2:
        return next(iter(operations), "unknown")
    parts = (f"{name} {number}" for name, number in sorted(operations.items(), reverse=True))
    return f"{', '.join(parts)} of {total} operations"


def delegates(used: Effective) -> str:
    """Say what took operations and how the runtime was set; empty where it tells neither."""
    settings = (f"{name} {value}" for name, value in used.settings.items())
    return ", ".join((*([took(used.delegates)] if used.delegates is not None else []), *settings))


def took(found: Sequence[Delegate]) -> str:
    """Say which delegates took how much of a graph.

    Example:
        >>> took([Delegate("XNNPACK", 29, 31, 2)]), took([Delegate("GPU", whole=True)]), took([])
        ('XNNPACK 29 of 31 operations in 2 parts', 'GPU, all operations', 'none')
    """
    return "; ".join(map(_took, found)) or "none"


def _took(found: Delegate) -> str:
    if found.taken is not None and found.of is not None:
        parts = "" if found.parts is None else f" in {plural(found.parts, 'part')}"
        return f"{found.name} {found.taken} of {plural(found.of, 'operation')}{parts}"
    if found.whole is None:
        return f"{found.name}, for an unknown number of operations"
    return f"{found.name}, {'all' if found.whole else 'part of the'} operations"


def _percent(share: float) -> str:
    return "less than 0.001 %" if 0 < share < 1e-5 else f"{100 * share:.3g} %"
