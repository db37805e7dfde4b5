"""Is int8 faster than float? A record for each pair of files, and never a claim that the measurement does not carry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from edgekd.devices.isa import Isa
from edgekd.profiling import twins
from edgekd.results.findings import Finding
from edgekd.results.models import ModelRecord
from edgekd.results.profile import ProfileRecord
from edgekd.results.speed import Int8Speed, RoundRatios

CALL_MS = 0.2
"""Below this a good part of an inference is the cost of the call itself, which int8 does not change (milliseconds)."""
HALF = frozenset(("float16", "f16", "bfloat16", "bf16"))
"""What runtimes call half precision."""
ROUNDS = 6
"""Rounds with the same winner that a claim needs where the times are untrusted."""


def pairs(
    profiles: Sequence[ProfileRecord], models: Sequence[ModelRecord], device: str
) -> Iterator[tuple[ProfileRecord, ProfileRecord, ModelRecord]]:
    """Yield every int8 file that was measured on a device with its float twin, as the records of the files pair them.

    Args:
        profiles: Records of a session.
        models: Records of the files; a file that nobody describes has no twin.
        device: The device.
    """
    here = {profile.model: profile for profile in profiles if profile.device == device}
    files = {model.name: model for model in models}
    floats = {model.twin_of: here[model.name] for model in models if model.twin_of and model.name in here}
    yield from ((here[name], floats[name], files[name]) for name in here if name in floats and name in files)


def settings(profiles: Sequence[ProfileRecord], models: Sequence[ModelRecord], device: str) -> Iterator[Finding]:
    """Yield the settings that a runtime did not take as they were asked for; a warning, not a verdict."""
    known = {model.name: model for model in models}
    for profile in profiles:
        if profile.device == device:
            yield from _unlike(profile, known.get(profile.model))


def _unlike(profile: ProfileRecord, model: ModelRecord | None) -> Iterator[Finding]:
    used, place = profile.effective, {"device": profile.device, "format": model.format if model else ""}

    def warning(code: str, **figures: object) -> Finding:
        return Finding(code, "warning", profile.model, {**place, **figures})

    if used.asked_threads not in (None, used.threads):
        yield warning("other_threads", used=used.threads, asked=used.asked_threads)
    if model is not None and narrowed(profile, model):
        yield warning("other_precision", used=dict(used.operations), file=model.precision)
    elif model is not None and model.precision == "int8" and _floats(used.operations) > used.operations.get("int8", 0):
        yield warning("mostly_float", used=dict(used.operations), file=model.precision)
    if used.delegates == () and model is not None and model.format == "tflite":
        yield warning("no_xnnpack")


def _floats(operations: Mapping[str, int]) -> int:
    """Return how many operations computed in a type of floats."""
    return sum(number for kind, number in operations.items() if "float" in kind)


def narrowed(profile: ProfileRecord, model: ModelRecord | None) -> bool:
    """Tell whether a file of float32 or int8 was computed in half precision."""
    asked = model.precision if model else None
    return asked in ("float32", "int8") and not HALF.isdisjoint(profile.effective.operations)


def speeds(
    profiles: Sequence[ProfileRecord], models: Sequence[ModelRecord], cpu: Isa, device: str = "host"
) -> tuple[Int8Speed, ...]:
    """Compare every int8 file with its float twin; nothing is said of the speed of an emulated device.

    Args:
        profiles: Records of the session.
        models: Records of the files: which are twins, and what the int8 rules and the runtime leave in float.
        cpu: What the device's CPU can do.
        device: The device.
    """
    found = pairs(profiles, models, device)
    return tuple(compare(int8, float32, cpu, model) for int8, float32, model in found if not int8.emulated)


def compare(int8: ProfileRecord, float32: ProfileRecord, cpu: Isa, model: ModelRecord) -> Int8Speed:
    """Return whether int8 is faster; a reason is what is known, not proved to be the cause.

    Args:
        int8: The int8 file's record.
        float32: The float file's, of the same runtime and session.
        cpu: What the device's CPU can do.
        model: The int8 file.
    """
    names = (int8.model, float32.model, int8.device)
    if doubted(int8, float32):
        rounds = _rounds(int8, float32)
        slower = rounds is not None and rounds.n >= ROUNDS and rounds.high < 1
        known = tuple(_reasons(int8, float32, cpu, model)) if slower else ()
        return Int8Speed(*names, "untrusted", rounds, known)
    ratio = shown(int8, float32)
    if ratio is not None and ratio > 1:
        return Int8Speed(*names, "faster")
    known = tuple(_reasons(int8, float32, cpu, model))
    losses = tuple(twins.losses(int8, float32))
    return Int8Speed(*names, "no difference shown" if ratio is None else "slower", None, known, losses)


def shown(int8: ProfileRecord, float32: ProfileRecord) -> float | None:
    """Return how many times as fast as float32 int8 is shown to be; None where the times do not carry a claim.

    Every sentence about it in a report follows this rule: both are trusted, and their intervals do not overlap.
    """
    ours, theirs = int8.latency_ms, float32.latency_ms
    apart = ours.ci[1] < theirs.ci[0] or ours.ci[0] > theirs.ci[1]
    return theirs.p50 / ours.p50 if apart and not doubted(int8, float32) else None


def doubted(int8: ProfileRecord, float32: ProfileRecord) -> bool:
    """Tell whether the times of one of them are not trusted."""
    return any(record.emulated or record.trust.verdict == "untrusted" for record in (int8, float32))


def _rounds(int8: ProfileRecord, float32: ProfileRecord) -> RoundRatios | None:
    """The ratios of the rounds, where the times themselves are untrusted; None where not all rounds have one winner.

    Blocks of one round are neighbours in time, so that a machine that slows down slows both; ``ROUNDS`` in a row with the
    same winner are less than 5 % likely by chance (two-sided sign test).
    """
    ratios = sorted(theirs / ours for ours, theirs in zip(int8.blocks, float32.blocks, strict=False))
    agree = bool(ratios) and (ratios[0] > 1 or ratios[-1] < 1)
    if not agree or int8.emulated or float32.emulated:
        return None
    return RoundRatios(len(ratios), median(ratios), ratios[0], ratios[-1])


def _reasons(int8: ProfileRecord, float32: ProfileRecord, cpu: Isa, model: ModelRecord) -> Iterator[Finding]:
    if not cpu.features:
        yield Finding("isa_unknown")
    elif not cpu.has_int8_dot:
        yield Finding("no_int8_dot", figures={"arch": cpu.arch})
    if model.float_ops:
        yield Finding("left_in_float", figures={"operations": len(model.float_ops)})
    if model.runtime_graph and model.runtime_graph.unexpected():
        yield Finding("float_by_runtime")  # the file's record has the operators
    if _floats(int8.effective.operations):
        yield Finding("computed_in", figures={"operations": dict(int8.effective.operations)})
    for took in int8.effective.delegates or ():
        if took.parts is not None and (took.taken != took.of or took.parts > 1):
            yield Finding("cut_up", figures={"name": took.name, "taken": took.taken, "of": took.of, "parts": took.parts})
    if int8.effective.delegates == ():
        yield Finding("no_delegate")
    if float32.latency_ms.p50 < CALL_MS:
        yield Finding("call_weighs", figures={"float_ms": float32.latency_ms.p50})
