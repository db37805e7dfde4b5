"""Is int8 faster than float? One plain sentence a runtime, and never a claim that the measurement does not carry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import median

from edgekd.devices.isa import Isa
from edgekd.profiling import twins
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Latency, ProfileRecord
from edgekd.results.runtime import in_float
from edgekd.runtimes import base

CALL_MS = 0.2
"""Below this a good part of an inference is the cost of the call itself, which int8 does not change (milliseconds)."""
FLOAT_SUFFIX = "_float"
NETWORK = "network"
"""Name of the part of the whole path that int8 changes."""
HALF = ("float16", "f16", "bfloat16", "bf16")
"""What runtimes call half precision."""
ROUNDS = 6
"""Rounds with the same winner that a claim needs where the times are untrusted."""


def findings(
    profiles: Sequence[ProfileRecord], models: Sequence[ModelRecord], cpu: Isa, device: str = "host"
) -> tuple[str, ...]:
    """Compare every int8 artifact with the float one of the same runtime; name settings that were not taken as asked.

    Nothing is said of the speed of an emulated device.

    Args:
        profiles: Records of the session, ``onnx`` beside ``onnx_float`` and so on; others are ignored.
        models: Model records, for what is left in float by the int8 rules and by the runtime.
        cpu: What the device's CPU can do.
        device: The device.
    """
    by_name = {profile.model: profile for profile in profiles if profile.device == device}
    known = {model.name: model for model in models}
    found = [sentence for profile in by_name.values() for sentence in unlike(profile, known.get(profile.model))]
    for name, profile in by_name.items():
        float32 = by_name.get(name + FLOAT_SUFFIX)
        if float32 is not None and not profile.emulated:
            found += [compare(profile, float32, cpu, known.get(name)), *_operation_by_operation(profile, float32)]
    return tuple(found)


def unlike(profile: ProfileRecord, model: ModelRecord | None) -> Iterator[str]:
    """Say which settings the runtime did not take as they were asked for; a warning, not a verdict."""
    used, where = profile.effective, f"In {base.label(model.format) if model else profile.model}"
    where += f" on {profile.device} {profile.model}"
    if used.asked_threads not in (None, used.threads):
        yield f"{where} ran with {used.threads} threads instead of {used.asked_threads}."
    if narrowed(profile, model):
        assert model is not None
        yield f"{where} was computed in {used.precision}, although the file is {model.precision}."
    elif model is not None and model.precision == "int8" and _mostly_float(used.precision):
        yield f"{where} was computed mostly in float ({used.precision}), although the file is {model.precision}."
    if used.delegate == "none" and model is not None and model.format == "tflite":
        yield f"{where} ran without XNNPACK: no delegate took any operation."


def _mostly_float(precision: str) -> bool:
    """Return whether more operations computed in float than in int8, as ``measured.precision`` counts them."""
    counts = {kind: int(number) for kind, number in re.findall(r"(\w+) (\d+)", precision)}
    floats = sum(number for kind, number in counts.items() if "float" in kind)
    return floats > counts.get("int8", 0) or precision == "float32"


def narrowed(profile: ProfileRecord, model: ModelRecord | None) -> bool:
    """Tell whether a file of float32 or int8 was computed in half precision."""
    asked = model.precision if model else None
    return asked in ("float32", "int8") and any(half in profile.effective.precision for half in HALF)


def compare(int8: ProfileRecord, float32: ProfileRecord, cpu: Isa, model: ModelRecord | None = None) -> str:
    """Say in one sentence whether int8 is faster; a reason is what is known, not proved to be the cause.

    Args:
        int8: The int8 artifact's record.
        float32: The float artifact's, of the same runtime and session.
        cpu: What the device's CPU can do.
        model: The int8 artifact, for what is left in float.
    """
    where = _where(int8)
    known = list(_reasons(int8, float32, cpu, model))
    why = f" Known: {'; '.join(known)}." if known else ""
    if doubted(int8, float32):
        return f"{where} {_by_rounds(int8, float32, why)}"
    ours, theirs = int8.latency_ms, float32.latency_ms
    figures, ratio = f"p50 {_ms(ours.p50)} against {_ms(theirs.p50)}", shown(int8, float32)
    if ratio is not None and ratio > 1:
        return f"{where} int8 is {_times(ratio)} faster than float32 ({figures})."
    if ratio is not None:
        slower = f"it is {_times(ours.p50 / theirs.p50)} slower"
        return f"{where} int8 is NOT faster than float32: {slower} ({figures}).{why}"
    overlap = f"the 95 % intervals {_interval(ours)} and {_interval(theirs)} overlap"
    return f"{where} int8 is NOT shown to be faster than float32: no difference shown ({figures}; {overlap}).{why}"


def shown(int8: ProfileRecord, float32: ProfileRecord) -> float | None:
    """Return how many times as fast as float32 int8 is shown to be; None where the times do not carry a claim.

    Every sentence about it in a report follows this rule: both are trusted, and their intervals do not overlap.
    """
    ours, theirs = int8.latency_ms, float32.latency_ms
    apart = ours.ci[1] < theirs.ci[0] or ours.ci[0] > theirs.ci[1]
    return theirs.p50 / ours.p50 if apart and not doubted(int8, float32) else None


def _where(profile: ProfileRecord) -> str:
    return f"In {base.label(profile.model)} on {profile.device}"


def _operation_by_operation(int8: ProfileRecord, float32: ProfileRecord) -> Iterator[str]:
    """Say what int8 loses its time with, where it is not faster and single operations were timed."""
    told = list(twins.sentences(int8, float32))
    if doubted(int8, float32) or (shown(int8, float32) or 0) > 1 or not told:
        return
    costs = " and ".join(
        f"{record.operations.overhead:.0%} in {name}".replace("%", " %")
        for name, record in (("int8", int8), ("float32", float32))
        if record.operations is not None
    )
    yield f"{_where(int8)}, operation by operation (runs of their own; recording adds {costs}): {'; '.join(told)}."


def doubted(int8: ProfileRecord, float32: ProfileRecord) -> bool:
    """Tell whether the times of one of them are not trusted."""
    return any(record.emulated or record.trust.verdict == "untrusted" for record in (int8, float32))


def _by_rounds(int8: ProfileRecord, float32: ProfileRecord, why: str) -> str:
    """What the order within the rounds says, where the times themselves are untrusted; the trust block says why they are.

    Where all rounds have one winner and are too few, it says how many are enough.

    Blocks of one round are neighbours in time, so that a machine that slows down slows both; ``ROUNDS`` in a row with the
    same winner are less than 5 % likely by chance (two-sided sign test).
    """
    ratios = sorted(theirs / ours for ours, theirs in zip(int8.blocks, float32.blocks, strict=False))
    agree = bool(ratios) and (ratios[0] > 1 or ratios[-1] < 1)
    nothing = "nothing can be said about the speed of int8 against float32: the times are untrusted"
    if not agree or int8.emulated or float32.emulated:
        return f"{nothing}."
    if len(ratios) < ROUNDS:
        few = "1 round is" if len(ratios) == 1 else f"{len(ratios)} rounds are"
        return f"{nothing}, and {few} too few to compare the winners; {ROUNDS} are enough (profile: {{blocks: {ROUNDS}}})."
    untrusted = "The times themselves are untrusted."
    rounds = f"in each of {len(ratios)} rounds"
    if ratios[0] > 1:
        span = f"{_times(median(ratios))} in the median, {_times(ratios[0])} to {_times(ratios[-1])}"
        return f"int8 is faster than float32 {rounds}: {span}. {untrusted}"
    span = f"{_times(1 / median(ratios))} in the median, {_times(1 / ratios[-1])} to {_times(1 / ratios[0])}"
    return f"int8 is NOT faster than float32: it is slower {rounds}, {span}. {untrusted}{why}"


def _reasons(int8: ProfileRecord, float32: ProfileRecord, cpu: Isa, model: ModelRecord | None) -> Iterator[str]:
    if not cpu.features:
        yield "the CPU's instruction sets could not be read"
    elif not cpu.has_int8_dot:
        needs = "VNNI" if cpu.arch == "x86_64" else "dot product (asimddp)"
        yield f"the CPU has no {needs}, so that an int8 multiply-add takes several instructions"
    if model and model.float_ops:
        yield f"{len(model.float_ops)} {'operation was' if len(model.float_ops) == 1 else 'operations were'} left in float"
    if model and model.runtime_graph:
        yield from in_float(model.format, model.runtime_graph)
    if "float" in int8.effective.precision:
        yield f"the runtime computed {int8.effective.precision}"
    part = re.match(r"XNNPACK (\d+) of (\d+) operations in (\d+) part", int8.effective.delegate)
    if part and (part[1] != part[2] or part[3] != "1"):
        yield f"the graph is cut up: {part[0]}{'s' if part[3] != '1' else ''}"
    if int8.effective.delegate == "none":
        yield "no delegate took any operation"
    if float32.latency_ms.p50 < CALL_MS:
        yield f"the model is so small (float32 {_ms(float32.latency_ms.p50)}) that the cost of a call weighs in"


def _ms(value: float) -> str:
    """Three significant digits, with unit."""
    digits = next((places for limit, places in ((1, 3), (10, 2), (100, 1)) if value < limit), 0)
    return f"{value:.{digits}f} ms"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}×"


def _interval(latency: Latency) -> str:
    return f"[{_ms(latency.ci[0])}, {_ms(latency.ci[1])}]"


def whole_path(profiles: Sequence[ProfileRecord]) -> tuple[str, ...]:
    """Say what int8 changes of the network and of the whole path; nothing where no difference of the network is shown.

    Args:
        profiles: Records of one device, ``onnx`` beside ``onnx_float`` and so on.
    """
    by_name = {profile.model: profile for profile in profiles}
    pairs = ((by_name[name], by_name.get(name + FLOAT_SUFFIX)) for name in by_name)
    return tuple(
        sentence for int8, float32 in pairs if float32 is not None and (sentence := _path(int8, float32)) is not None
    )


def _path(int8: ProfileRecord, float32: ProfileRecord) -> str | None:
    ours, theirs = ({part.name: part.ms for part in record.path} for record in (int8, float32))
    if shown(int8, float32) is None or set(ours) != set(theirs) or not theirs.get(NETWORK):
        return None
    network, whole = ours[NETWORK] / theirs[NETWORK] - 1, sum(ours.values()) / sum(theirs.values()) - 1
    parts = (f"{what} {abs(share):.0%} {'shorter' if share < 0 else 'longer'}".replace("%", " %")
             for what, share in (("the network", network), ("the whole", whole)))  # fmt: skip
    return f"{_where(int8)} int8 makes {' and '.join(parts)}."
