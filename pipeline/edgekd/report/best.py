"""The best artifact on each device for the recipe's gates, in one sentence based on measured figures only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekd.results.gates import GateRecord
from edgekd.results.models import ModelRecord
from edgekd.results.profile import ProfileRecord

CLEARLY = 0.05
"""Share by which memory or size must be less to decide between artifacts that are as fast."""


def sentences(
    profiles: Sequence[ProfileRecord],
    models: Sequence[ModelRecord],
    gates: Sequence[GateRecord],
    label: Callable[[ModelRecord], str],
) -> tuple[str, ...]:
    """Say for each device which artifact is the fastest that passes; nothing of emulated devices.

    Args:
        profiles: Of all devices.
        models: Model records, for sizes.
        gates: With their verdicts; those of other devices do not count for a device.
        label: Names an artifact for a reader.
    """
    files = {model.name: model for model in models}
    found = []
    for device in dict.fromkeys(profile.device for profile in profiles if not profile.emulated):
        own = [gate for gate in gates if gate.device in (None, device)]
        held = {gate.model for gate in own if gate.level != "warn"}
        failed = {gate.model for gate in own if gate.blocks}
        candidates = [
            _Candidate(label(files[record.model]), record, files[record.model].bytes, record.model not in failed)
            for record in profiles
            if record.device == device and record.model in held and record.model in files
        ]
        if candidates:
            found.append(f"On {device} {_sentence(candidates)}.")
    return tuple(found)


@dataclass(frozen=True)
class _Candidate:
    """An artifact that the recipe's gates are for, on one device."""

    label: str
    record: ProfileRecord
    bytes: int | None
    passes: bool

    def p50(self) -> str:
        low, high = self.record.latency_ms.ci
        return f"p50 {self.record.latency_ms.p50:.3g} ms [{low:.3g}, {high:.3g}]"


def _sentence(candidates: Sequence[_Candidate]) -> str:
    passing = sorted((one for one in candidates if one.passes), key=lambda one: one.record.latency_ms.p50)
    trusted = [one for one in passing if one.record.trust.verdict == "trusted"]
    if not passing:
        return "no artifact passes the gates, so none is called best"
    if not trusted:
        return "no artifact is called best: no time of one that passes the gates is trusted"
    fastest, *others = trusted
    ties = [one for one in others if one.record.latency_ms.ci[0] <= fastest.record.latency_ms.ci[1]]
    doubted = [one.label for one in passing if one not in trusted]
    tail = f"; not ranked, for untrusted times: {', '.join(doubted)}" if doubted else ""
    if not others:
        return f"{fastest.label} is the only artifact that passes the gates with a trusted time ({fastest.p50()}){tail}"
    if not ties:
        return f"{fastest.label} is the fastest artifact that passes the gates ({fastest.p50()}){tail}"
    names = ", ".join(f"{one.label} ({one.p50()})" for one in (fastest, *ties))
    return (
        f"no difference in p50 is shown between the fastest artifacts that pass the gates: {names}"
        f"{_tie((fastest, *ties))}{tail}"
    )


def _tie(ties: Sequence[_Candidate]) -> str:
    """Decide by peak memory, else by size; by neither where they are about the same."""
    for what, values in (
        ("smallest peak memory", [(one.record.memory.peak, one.label) for one in ties]),
        ("smallest file", [(None if one.bytes is None else one.bytes / 2**20, one.label) for one in ties]),
    ):
        known = sorted((value, label) for value, label in values if value is not None)
        if len(known) == len(ties) and known[0][0] <= known[1][0] * (1 - CLEARLY):
            return f"; {known[0][1]} has the {what} ({known[0][0]:.3g} MiB against {known[1][0]:.3g})"
    return ""
