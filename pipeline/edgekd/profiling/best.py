"""Which artifact is best on a device for the recipe's gates, in one sentence a device that claims what was measured only."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.records_gates import GateRecord
from edgekd.records_profile import ProfileRecord
from edgekd.rundir import ModelRecord

CLEARLY = 0.05
"""Share by which memory or size must be less to decide between artifacts that are as fast."""


def sentences(
    profiles: Sequence[ProfileRecord], models: Sequence[ModelRecord], gates: Sequence[GateRecord]
) -> tuple[str, ...]:
    """Say for each device which artifact is the fastest that passes; nothing of emulated devices.

    Args:
        profiles: Of all devices.
        models: Model records, for sizes.
        gates: With their verdicts; those of other devices do not count for a device.
    """
    devices = dict.fromkeys(profile.device for profile in profiles if not profile.emulated)
    sizes = {model.name: model.bytes for model in models}
    found = []
    for device in devices:
        own = [gate for gate in gates if gate.device in (None, device)]
        held = {gate.model for gate in own if gate.level != "warn"}
        candidates = [record for record in profiles if record.device == device and record.model in held]
        if candidates:
            found.append(f"On {device}: {_sentence(candidates, sizes, own)}.")
    return tuple(found)


def _sentence(candidates: Sequence[ProfileRecord], sizes: dict[str, int | None], gates: Sequence[GateRecord]) -> str:
    failed = {gate.model for gate in gates if gate.blocks}
    passing = sorted((p for p in candidates if p.model not in failed), key=lambda p: p.latency_ms.p50)
    trusted = [p for p in passing if p.trust.verdict == "trusted"]
    if not passing:
        return "no artifact passes the gates, so none is best"
    if not trusted:
        return "no artifact is called best, for no time of one that passes is trusted"
    fastest, *others = trusted
    ties = [p for p in others if p.latency_ms.ci[0] <= fastest.latency_ms.ci[1]]
    doubted = len(passing) - len(trusted)
    rest = f"; {doubted} that {'passes' if doubted == 1 else 'pass'} had untrusted times and {_was(doubted)} not ranked"
    tail = rest if doubted else ""
    if not others:
        return f"{fastest.model} is the only artifact that passes the gates with trusted times ({_p50(fastest)}){tail}"
    if not ties:
        return f"{fastest.model} is the fastest artifact that passes the gates ({_p50(fastest)}){tail}"
    names = ", ".join(f"{p.model} ({_p50(p)})" for p in (fastest, *ties))
    decided = _tie((fastest, *ties), sizes)
    return f"no difference in p50 is shown between the fastest artifacts that pass the gates: {names}{decided}{tail}"


def _tie(ties: Sequence[ProfileRecord], sizes: dict[str, int | None]) -> str:
    """Decide by peak memory, else by size; by neither where they are about the same."""
    for what, unit, values in (
        ("peak memory", "MiB", {p.model: p.memory.peak for p in ties}),
        ("file", "MiB", {p.model: size / 2**20 if (size := sizes.get(p.model)) else None for p in ties}),
    ):
        known = {name: value for name, value in values.items() if value is not None}
        if len(known) < len(ties):
            continue
        (name, least), (_, second) = sorted(known.items(), key=lambda item: item[1])[:2]
        if least <= second * (1 - CLEARLY):
            return f"; {name} has the smallest {what} ({least:.3g} {unit} against {second:.3g})"
    return ""


def _p50(record: ProfileRecord) -> str:
    low, high = record.latency_ms.ci
    return f"p50 {record.latency_ms.p50:.3g} ms [{low:.3g}, {high:.3g}]"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
