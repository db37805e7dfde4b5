"""Warm-up and rounds of a session, as often as it takes until the figures are trusted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TextIO

from edgekd.devices.schema import Device
from edgekd.profiling import heat, measured
from edgekd.profiling.measured import Run, Setting
from edgekd.profiling.participants import ANSWER_S, REFERENCE, Participants
from edgekd.profiling.stats import Conditions, Doubt
from edgekd.recipe.profile import Profile
from edgekd.results.profile import Attempt

WARM_UP_S = 10.0
"""Seconds after which a warm-up ends although the times are not steady, once it has what the recipe asks for."""
REFERENCE_WORK = {"runs": 5, "ms": 20}
"""Warm-up and block of the reference workload, at the least."""
LEAST_ROUNDS = 3
"""Rounds without which there are no figures."""
RESERVE_S = 5.0
"""Seconds of a device's time that are kept to read memory and settings after the last round."""


class Rounds:
    """Warm-up and rounds, as often as it takes.

    Args:
        participants: The participants.
        protocol: Number and length of blocks.
        setting: What is known of the session so far.
        hot: Why it did not begin as cool as it should; empty if it did.
        log: Takes the raw samples.
    """

    def __init__(self, participants: Participants, protocol: Profile, setting: Setting, hot: str, log: TextIO) -> None:
        self.notes: list[str] = []
        self._participants, self._protocol, self._setting, self._hot, self._log = participants, protocol, setting, hot, log
        self._began = time.perf_counter()

    def measure(self) -> Setting:
        """Measure until the figures are trusted, or until there are no more attempts or no time."""
        participants, device = self._participants, self._setting.device
        for attempt in range(1, device.retries + 2):
            began = time.monotonic()
            before, now = self._attempt(attempt)
            setting = replace(self._setting, now=now, reference=participants.reference)
            doubts = {run.variant.model: measured.doubts(run, setting) for run in participants.live}
            curable = [doubt for found in doubts.values() for doubt in found if _may_pass(doubt, device)]
            took = time.monotonic() - began
            if not curable or attempt > device.retries or participants.limit.left() < took + RESERVE_S:
                break
            cooled = heat.cool_down(participants, device, curable, before)
            if participants.limit.left() < took + RESERVE_S:
                self.notes.append(f"not measured again on {device.name}: limit_s is nearly over")
                break
            for run in participants.live:
                reasons = tuple(doubt.text for doubt in doubts[run.variant.model])
                run.attempts.append(Attempt(reasons, cooled, measured.p50(run)))
            participants.again(self._protocol.blocks + 1)
        return setting

    def _attempt(self, attempt: int) -> tuple[Mapping[str, Any], Conditions]:
        """Warm up and run all rounds once; returns the state before them and the conditions during them."""
        participants, protocol, device = self._participants, self._protocol, self._setting.device
        for run in participants.entered:
            run.blocks.clear()
            run.rounds.clear()
        participants.each("warm up", lambda run, _: _warm_up(run, protocol))
        state = before = participants.state()
        longest = 0.0
        for turn in range(protocol.blocks):
            began = time.monotonic()
            if participants.limit.left() < longest + RESERVE_S and turn:
                self._stopped(turn)
                break

            def block(run: Run, place: int, turn: int = turn) -> None:
                nonlocal state
                at = time.perf_counter() - self._began
                answer = _block(run, protocol)
                after = answer.get("state") or run.agent.ask("state", ANSWER_S)
                run.blocks.append(answer)
                run.rounds.append((state, after))
                state = after
                line = {"model": run.variant.model, "attempt": attempt, "round": turn, "order": place, "at_s": round(at, 3)}
                kept = {"summary_ms": answer["summary"]} if "summary" in answer else {"samples_ms": answer["samples"]}
                self._log.write(json.dumps({**line, **kept}) + "\n")

            participants.each(f"block {turn + 1}/{protocol.blocks}", block, shift=turn)
            longest = max(longest, time.monotonic() - began)
        now = measured.conditions(before, state, participants.entered, device.emulated)
        return before, replace(now, hot=self._hot)

    def _stopped(self, rounds: int) -> None:
        """The time is over after some rounds: enough for figures, or not."""
        participants = self._participants
        if rounds >= LEAST_ROUNDS:
            told = f"only {rounds} of {self._protocol.blocks} blocks were measured"
            self.notes.append(f"{told} on {self._setting.device.name}: limit_s is over ({participants.limit.seconds:g} s)")
            return
        for run in list(participants.live):
            told = f"{run.agent.label}: only {rounds} of {self._protocol.blocks} blocks"
            participants.out(run, participants.limit.error(told))


def _may_pass(doubt: Doubt, device: Device) -> bool:
    """Return whether another attempt may be trusted; the restlessness of an emulated device says nothing."""
    return doubt.cure == "cool" or (doubt.cure == "again" and not device.emulated)


def _warm_up(run: Run, protocol: Profile) -> None:
    least = REFERENCE_WORK if run.variant.model == REFERENCE else {"runs": protocol.warmup_runs, "ms": protocol.warmup_ms}
    limit = WARM_UP_S * 1000
    run.warmup = run.agent.ask("warmup", _limit(run, **least) + WARM_UP_S, **least, limit_ms=limit)


def _block(run: Run, protocol: Profile) -> Mapping[str, Any]:
    least = REFERENCE_WORK if run.variant.model == REFERENCE else {"runs": protocol.block_runs, "ms": protocol.block_ms}
    return run.agent.ask("block", _limit(run, **least), **least)


def _limit(run: Run, runs: int, ms: int) -> float:
    """Seconds to wait for inferences: ten times what the first one, the slowest, lets expect."""
    return ANSWER_S + 10 * max(ms, runs * float(run.start["first_ms"])) / 1000
