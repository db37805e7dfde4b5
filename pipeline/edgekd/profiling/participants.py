"""The participants of a session: which entered, which still run, which failed and why, and the time they have left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, LostError
from edgekd.profiling.agents.base import Agent, Agents
from edgekd.profiling.measured import Run
from edgekd.profiling.variant import Variant
from edgekd.results.findings import Finding
from edgekd.results.profile import Failure

Progress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps in all."""
SAMPLES = "samples"
"""Folder of a result with the raw samples, ``DEVICE.jsonl``."""
REFERENCE = "reference workload"
"""Name of the participant that does known arithmetic."""
START_S = 300.0
"""Seconds a variant may take to load and run once; a small board compiles slowly."""
ANSWER_S = 60.0
"""Seconds an answer may take beyond the measuring it was asked for."""


class Limit:
    """Seconds that everything on a device may take, from now on."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self._end = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left; negative when it is over."""
        return self._end - time.monotonic()

    def error(self, what: str) -> DeviceError:
        """Say that the time is over."""
        hint = "raise limit_s in the device's file, or measure fewer files or blocks"
        return DeviceError(f"{what}: limit_s is over ({self.seconds:g} s for everything on the device)", hint)


class Bounded:
    """An agent whose answers are waited for no longer than the device's time lasts."""

    def __init__(self, agent: Agent, limit: Limit) -> None:
        self.label, self._agent, self._limit = agent.label, agent, limit

    def ask(self, command: str, timeout: float, **arguments: Any) -> Mapping[str, Any]:
        """Send a command and wait for its answer; see :class:`Agent`."""
        left = self._limit.left()
        if left <= 0:
            raise self._limit.error(self.label)
        try:
            return self._agent.ask(command, min(timeout, left), **arguments)
        except DeviceError as error:
            raise (self._limit.error(error.message) if self._limit.left() <= 0 else error) from error

    def close(self, *, grace: float = 0.0) -> None:
        """End the agent."""
        self._agent.close(grace=grace)


class Participants:
    """The variants of a session and the reference workload.

    Args:
        stack: Ends every agent, whatever happens.
        agents: Starts them.
        device: Where.
        progress: Told of every step.
        limit: Time they have.
        total: Steps in all, if the first attempt is trusted.
        say: Takes the fact that all is measured again.
    """

    def __init__(
        self,
        stack: ExitStack,
        agents: Agents,
        device: Device,
        progress: Progress,
        limit: Limit,
        total: int,
        say: Callable[[Finding], None] = lambda fact: None,
    ) -> None:
        self.entered: list[Run] = []
        self.live: list[Run] = []
        self.failures: list[Failure] = []
        self.reference: Run | None = None
        self.limit = limit
        self._stack, self._agents, self._device = stack, agents, device
        self._progress, self._total, self._done, self._say = progress, total, 0, say

    def enter(self, variant: Variant) -> None:
        """Start the agent of a variant; whatever happens next, it is ended with the session."""
        try:
            self.live.append(self._started(variant))
        except DeviceError as error:
            self._failed(variant, error)

    def enter_reference(self) -> None:
        """Start the reference workload in the interpreter of the first variant; an emulated device has no pace to know."""
        if self._agents.name == "python" and self.live and not self._device.emulated:
            try:
                self.reference = self._started(Variant(REFERENCE, self.live[0].variant.runtime, Path()))
            except DeviceError:  # the variants go on, and each says what is wrong
                return

    def spare(self, variant: Variant) -> Agent:
        """Start one more agent, for what is beside the measuring."""
        agent = Bounded(self._agents.start(variant, f"{variant.model} on {self._device.name}"), self.limit)
        self._stack.callback(agent.close)
        return agent

    def each(self, what: str, work: Callable[[Run, int], None], shift: int = 0) -> None:
        """Do ``work(run, place)`` for every variant that runs, the reference among them, beginning with number ``shift``.

        A variant that fails falls out.
        """
        runs = [*self.live, *([self.reference] if self.reference else [])]
        start = shift % max(1, len(runs))
        for place, run in enumerate(runs[start:] + runs[:start]):
            self.tell(f"{what} {run.variant.model}")
            try:
                work(run, place)
            except DeviceError as error:
                self.out(run, error)
            if run is not self.reference:
                self._done += 1

    def tell(self, what: str) -> None:
        """Report what is being done."""
        self._progress(what, self._done, self._total)

    def again(self, steps: int) -> None:
        """Say that another attempt begins, and why; it adds that many steps of every variant."""
        self._total += steps * len(self.live)
        attempts = [run.attempts for run in self.live]
        number = max((len(made) for made in attempts), default=0)
        found = [reason for made in attempts if made for reason in made[-1].reasons]
        reasons = tuple(reason for at, reason in enumerate(found) if reason not in found[:at])
        figures = {"attempt": number + 1, "of": self._device.retries + 1, "reasons": reasons}
        self._say(Finding("measured_again", "warning", self._device.name, figures))

    def out(self, run: Run, error: DeviceError) -> None:
        """Take a variant out of the session; the reference leaves without a word, as figures do not need it."""
        run.agent.close()
        if run is self.reference:
            self.reference = None
            return
        self.live.remove(run)
        self._failed(run.variant, error)

    def lost(self, run: Run, error: LostError) -> None:
        """Record that the device was lost after a variant was measured, once: its figures stand."""
        if all(failure.model != run.variant.model for failure in self.failures):
            self._failed(run.variant, error)

    def state(self) -> Mapping[str, Any]:
        """The device's state as the first agent that answers tells it; empty when none does."""
        for run in self.live:
            try:
                return run.agent.ask("state", ANSWER_S)
            except DeviceError:  # told when its turn comes
                continue
        return {}

    def _started(self, variant: Variant) -> Run:
        what = variant.runtime if variant.model != REFERENCE else REFERENCE
        agent = Bounded(self._agents.start(variant, f"{what} on {self._device.name}"), self.limit)
        self._stack.callback(agent.close)
        run = Run(variant, agent)
        self.entered.append(run)
        return run

    def _failed(self, variant: Variant, error: DeviceError) -> None:
        told = str(error)
        for name in (variant.runtime, variant.model):  # labels of its agents; the failure names file and device itself
            told = told.removeprefix(f"{name} on {self._device.name}: ")
        self.failures.append(Failure(variant.model, self._device.name, told))
