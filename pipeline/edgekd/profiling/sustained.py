"""Measurements after the rounds, by agents of their own: energy where there is a meter, minutes without a pause."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, LostError
from edgekd.profiling import heat
from edgekd.profiling.agents.base import Agent
from edgekd.profiling.measured import Run
from edgekd.profiling.participants import ANSWER_S, Participants
from edgekd.profiling.rounds import RESERVE_S
from edgekd.recipe.profile import Profile
from edgekd.results.findings import Finding, Missing
from edgekd.results.profile import Energy, ProfileRecord, Sustained

WINDOW_S = 10.0
"""Seconds of each median of the sustained minutes."""
ENOUGH = 0.9
"""Share of the minutes that windows must cover; between two windows a little time goes by."""
METER_S = 3.0
"""Seconds that energy is measured: idle, and of each variant."""


@dataclass(frozen=True)
class Extra:
    """Measured figures of one variant, and remarks."""

    energy: Energy | None = None
    sustained: Sustained | None = None
    notes: tuple[Missing, ...] = ()

    def into(self, record: ProfileRecord) -> ProfileRecord:
        """The record with it."""
        return replace(record, energy=self.energy, sustained=self.sustained)


def idle(participants: Participants, device: Device) -> Mapping[str, Any]:
    """Measure the power of the device while all agents wait; empty without a meter that this user may read."""
    if device.emulated or not participants.live:
        return {}
    participants.tell("power while nothing is measured")
    try:
        found = participants.live[0].agent.ask("power", ANSWER_S, ms=1000 * METER_S)
    except DeviceError:  # told when its turn comes
        return {}
    return found if found["meter"] else {}


def measure(
    participants: Participants, begin: Callable[[Run], Agent], protocol: Profile, device: Device, power: Mapping[str, Any]
) -> dict[str, Extra]:
    """Measure each variant that is left, one after the other.

    Args:
        participants: The participants.
        begin: Starts and loads one more agent of a variant.
        protocol: Warm-up and minutes.
        device: Where.
        power: What :func:`idle` found.

    Returns:
        By model; an agent that fails here costs only what is measured here, and is a note. A lost device is a failure.
    """
    found = {}
    minutes = protocol.sustained_minutes
    for run in participants.live if power or minutes else []:
        energy, windows = None, _Windows()
        notes: list[Missing] = []

        def note(reason: Finding, run: Run = run, notes: list[Missing] = notes) -> None:
            notes.append(Missing(reason, "", run.variant.model, device.name))

        try:
            agent = begin(run)
            agent.ask("warmup", 2 * ANSWER_S, runs=protocol.warmup_runs, ms=protocol.warmup_ms)
            participants.tell(f"energy of {run.variant.model}")
            energy = _energy(agent, power) if power else None
            ask = partial(agent.ask, "state", ANSWER_S)
            if minutes and (hot := heat.begin(participants, device, "the minutes without a pause", ask)):
                note(hot.fact)
            for left in _minutes(minutes, participants):
                participants.tell(f"{run.variant.model} without a pause, {left / 60:.1f} minutes left")
                windows.add(agent.ask("window", 2 * ANSWER_S, ms=1000 * min(WINDOW_S, left)), min(WINDOW_S, left))
            agent.close(grace=2.0)
            over = participants.limit.left() <= WINDOW_S + RESERVE_S
            if over and windows.seconds < ENOUGH * 60 * minutes:
                figures = {"minutes": windows.seconds / 60, "of": minutes, "limit_s": participants.limit.seconds}
                note(Finding("few_minutes", figures=figures))
        except LostError as error:
            what = " and ".join([*(["energy"] if power else []), *(["the minutes without a pause"] if minutes else [])])
            participants.lost(run, LostError(f"{error.message}; not measured to the end: {what}", error.hint))
        except DeviceError as error:
            label = f"{run.variant.model} on {device.name}: "
            note(Finding("not_to_the_end", figures={"why": str(error).removeprefix(label)}))
        found[run.variant.model] = Extra(energy, windows.record(), tuple(notes))
    return found


class _Windows:
    """The windows so far."""

    def __init__(self) -> None:
        self.seconds, self._medians, self._celsius = 0.0, list[float](), list[float]()

    def add(self, answer: Mapping[str, Any], seconds: float) -> None:
        """Take an answer to ``window``."""
        self.seconds += seconds
        self._medians.append(answer["median_ms"])
        self._celsius += [answer["state"]["celsius"]] if "celsius" in answer["state"] else []

    def record(self) -> Sustained | None:
        """Make the record; None without a window."""
        if not self._medians:
            return None
        return Sustained(round(self.seconds / 60, 3), tuple(self._medians), tuple(self._celsius))


def _minutes(minutes: float, participants: Participants) -> Iterator[float]:
    """Yield the seconds that are left, until none are or the device's time is over."""
    began = time.monotonic()
    while (left := 60 * minutes - (time.monotonic() - began)) > 0 and participants.limit.left() > WINDOW_S + RESERVE_S:
        yield left


def _energy(agent: Agent, power: Mapping[str, Any]) -> Energy | None:
    answer = agent.ask("energy", ANSWER_S + 10 * METER_S, ms=1000 * METER_S)
    joules = answer["joules"] - power["watts"] * answer["seconds"]
    # Not above idle: the rest of the device was busier while idle was measured.
    return Energy(1000 * joules / answer["runs"], power["meter"]) if joules > 0 else None
