"""Sentences on the speed of int8: whether it is faster than float, and what it loses its time with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgekd.errors import joined
from edgekd.profiling import verdicts
from edgekd.report import facts
from edgekd.report.runtime import in_float, precision
from edgekd.report.words import plural
from edgekd.results.findings import Finding, listed
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Latency, ProfileRecord
from edgekd.results.run import RunResult
from edgekd.results.speed import Int8Speed, Loss, RoundRatios, TimedOperation
from edgekd.runtimes import base

NETWORK = "network"
"""Name of the part of the whole path that int8 changes."""


def sentences(result: RunResult) -> Iterator[str]:
    """Yield for each int8 file and device whether it is faster than its float twin, and what it loses its time with."""
    for found in result.speeds:
        int8, float32 = (facts.profile_of(result, name, found.device) for name in (found.model, found.twin))
        model = result.model(found.model)
        if int8 is None or float32 is None or model is None:
            continue
        where = _where(model, found.device)
        yield f"{where} {_compared(found, model, int8, float32)}"
        if found.losses:
            costs = " and ".join(
                f"{100 * record.operations.overhead:.0f} % in {name}"
                for name, record in (("int8", int8), ("float32", float32))
                if record.operations is not None
            )
            lost = "; ".join(map(_loss, found.losses))
            yield f"{where}, operation by operation (runs of their own; recording adds {costs}): {lost}."


def whole_path(profiles: Sequence[ProfileRecord], models: Sequence[ModelRecord], device: str) -> tuple[str, ...]:
    """Say what int8 changes of the network and of the whole path; nothing where no difference of the network is shown."""
    found = (_path(*pair) for pair in verdicts.pairs(profiles, models, device))
    return tuple(line for line in found if line)


def _where(model: ModelRecord, device: str) -> str:
    return f"In {base.label(model.format)} on {device}"


def _compared(found: Int8Speed, model: ModelRecord, int8: ProfileRecord, float32: ProfileRecord) -> str:
    known = [reason for fact in found.reasons for reason in _reason(fact, model)]
    why = f" Known: {'; '.join(known)}." if known else ""
    if found.verdict == "untrusted":
        return _by_rounds(found.rounds, why)
    ours, theirs = int8.latency_ms, float32.latency_ms
    figures = f"p50 {_ms(ours.p50)} against {_ms(theirs.p50)}"
    if found.verdict == "faster":
        return f"int8 is {_times(theirs.p50 / ours.p50)} faster than float32 ({figures})."
    if found.verdict == "slower":
        slower = f"it is {_times(ours.p50 / theirs.p50)} slower"
        return f"int8 is NOT faster than float32: {slower} ({figures}).{why}"
    overlap = f"the 95 % intervals {_interval(ours)} and {_interval(theirs)} overlap"
    return f"int8 is NOT shown to be faster than float32: no difference shown ({figures}; {overlap}).{why}"


def _by_rounds(rounds: RoundRatios | None, why: str) -> str:
    """Say what the order within the rounds shows, where the times are untrusted; the trust block says why they are.

    Where all rounds have one winner and are too few, it says how many are enough.
    """
    nothing = "nothing can be said about the speed of int8 against float32: the times are untrusted"
    if rounds is None:
        return f"{nothing}."
    if rounds.n < verdicts.ROUNDS:
        few = "1 round is" if rounds.n == 1 else f"{rounds.n} rounds are"
        enough = f"{verdicts.ROUNDS} are enough (profile: {{blocks: {verdicts.ROUNDS}}})"
        return f"{nothing}, and {few} too few to compare the winners; {enough}."
    untrusted, each = "The times themselves are untrusted.", f"in each of {rounds.n} rounds"
    if rounds.low > 1:
        span = f"{_times(rounds.median)} in the median, {_times(rounds.low)} to {_times(rounds.high)}"
        return f"int8 is faster than float32 {each}: {span}. {untrusted}"
    span = f"{_times(1 / rounds.median)} in the median, {_times(1 / rounds.high)} to {_times(1 / rounds.low)}"
    return f"int8 is NOT faster than float32: it is slower {each}, {span}. {untrusted}{why}"


def _reason(fact: Finding, model: ModelRecord) -> Iterator[str]:
    if fact.code == "float_by_runtime":
        yield from in_float(model)
    else:
        write = _REASONS.get(fact.code)
        yield write(fact.figures) if write else listed(fact)


def _no_int8_dot(figures: Mapping[str, Any]) -> str:
    needs = "VNNI" if figures["arch"] == "x86_64" else "dot product (asimddp)"
    return f"the CPU has no {needs}, so that an int8 multiply-add takes several instructions"


def _left_in_float(figures: Mapping[str, Any]) -> str:
    left = figures["operations"]
    return f"{plural(left, 'operation')} {'was' if left == 1 else 'were'} left in float"


_REASONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "isa_unknown": lambda figures: "the CPU's instruction sets could not be read",
    "no_int8_dot": _no_int8_dot,
    "left_in_float": _left_in_float,
    "computed_in": lambda figures: f"the runtime computed {precision(figures['operations'])}",
    "cut_up": lambda figures: (
        f"the graph is cut up: {figures['name']} {figures['taken']} of {plural(figures['of'], 'operation')} in "
        f"{plural(figures['parts'], 'part')}"
    ),
    "no_delegate": lambda figures: "no delegate took any operation",
    "call_weighs": lambda figures: (
        f"the model is so small (float32 {_ms(figures['float_ms'])}) that the cost of a call weighs in"
    ),
}

CODES = frozenset((*_REASONS, "float_by_runtime"))
"""Codes of the reasons that are written here."""


def _loss(loss: Loss) -> str:
    count, ms = plural(loss.operations, "operation"), _ms(loss.ms)
    other, other_ms = loss.float_operations or 0, _ms(loss.float_ms or 0.0)
    takes = "takes" if loss.operations == 1 else "take"
    if loss.what == "conversions":
        against = f"{other_ms} in {plural(other, 'operation')} in float32" if other else "none in float32"
        return f"converting and moving values takes {ms} in {count}, against {against}"
    if loss.what == "float":
        return f"{count} computed in float {takes} {ms}: {_named(loss)}"
    if loss.what == "slower":
        of = f"{loss.operations} of {loss.of} int8 operations"
        return f"{of} {takes} longer than the float twin, {ms} against {other_ms}: {_named(loss)}"
    return f"{count} of the kind {loss.kind} {takes} {ms}, against {other_ms} for {other} in float32"


def _named(loss: Loss) -> str:
    names = ", ".join(map(_operation, loss.longest))
    more = loss.operations - len(loss.longest)
    return names + (f" and {more} more" if more else "")


def _operation(op: TimedOperation) -> str:
    return f"{op.name} ({op.kind}) {_ms(op.ms)}" + ("" if op.float_ms is None else f" against {_ms(op.float_ms)}")


def _path(int8: ProfileRecord, float32: ProfileRecord, model: ModelRecord) -> str | None:
    ours, theirs = ({part.name: part.ms for part in record.path} for record in (int8, float32))
    if verdicts.shown(int8, float32) is None or set(ours) != set(theirs) or not theirs.get(NETWORK):
        return None
    network, whole = ours[NETWORK] / theirs[NETWORK] - 1, sum(ours.values()) / sum(theirs.values()) - 1
    parts = [
        f"{what} {100 * abs(share):.0f} % {'shorter' if share < 0 else 'longer'}"
        for what, share in (("the network", network), ("the whole", whole))
    ]
    return f"{_where(model, int8.device)} int8 makes {joined(parts)}."


def _ms(value: float) -> str:
    """Three significant digits, with unit."""
    digits = next((places for limit, places in ((1, 3), (10, 2), (100, 1)) if value < limit), 0)
    return f"{value:.{digits}f} ms"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}×"


def _interval(latency: Latency) -> str:
    return f"[{_ms(latency.ci[0])}, {_ms(latency.ci[1])}]"
