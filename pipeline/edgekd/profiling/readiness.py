"""Ask the devices of a recipe, all at once and before anything is trained, whether they can measure what it asks for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from edgekd.devices import targets
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, unexpected
from edgekd.profiling import agents, doctor, transports
from edgekd.profiling.transports.base import OursError
from edgekd.recipe import Recipe
from edgekd.results.profile import DeviceRecord
from edgekd.results.run import StageRecord

REACH_S = 5.0
"""Seconds in which a device must take the connection."""
ANSWER_S = 30.0
"""Seconds that one which has gets for all answers, from the beginning."""
SLOW = "answered after"
"""What a slow device's record says more."""
AGAIN_S = 0.2
"""Seconds between two tries where this process has the board by another device's file."""
BUSY_S = 120.0
"""The same for this machine and for emulated ones: they answer, as slowly as this machine is busy."""


def formats(recipe: Recipe, device: Device) -> tuple[str, ...]:
    """Return the formats that a recipe measures on a device: those that it can have."""
    first = ["onnx"] if recipe.export and recipe.quantize else []  # the float twin that sizes are compared with
    found = dict.fromkeys([*first, *(item.format for item in recipe.export)])
    return tuple(form for form in found if not agents.unfit(device, form))


def of(recipe: Recipe) -> list[DeviceRecord]:
    """Ask the devices of a recipe."""
    devices = targets.of(recipe)
    return ask(devices, [formats(recipe, device) for device in devices])


def ask(devices: Sequence[Device], wanted: Sequence[Sequence[str]]) -> list[DeviceRecord]:
    """Ask devices in parallel; no inference is run.

    Args:
        devices: The devices.
        wanted: Formats that are to be measured, of each; empty for any.

    Returns:
        What was found, in the order of the devices; ``problems`` says what is in the way.
    """
    asked = [_Asked(device, forms) for device, forms in zip(devices, wanted, strict=True)]
    try:
        return [one.answer() for one in asked]
    except KeyboardInterrupt:
        for one in asked:
            one.stop()
        raise


def check(recipe: Recipe, say: Callable[[str], None], go_on: bool = False) -> list[DeviceRecord]:
    """Ask the devices of a recipe, and stop if one is not ready.

    Args:
        recipe: The recipe.
        say: Prints a line.
        go_on: Only say it.

    Returns:
        What was found of each; nothing where the recipe measures nothing.

    Raises:
        DeviceError: One is not ready.
    """
    if recipe.profile is None:
        return []
    found = of(recipe)
    try:
        refuse(found)
    except DeviceError as error:
        if not go_on:
            raise
        say(f"warning: {error.message}\n  → --without-devices: they are asked again when they are measured")
    for line in ready(found):
        say(line)
    return found


def failed(found: Sequence[DeviceRecord], stages: Iterable[StageRecord]) -> Iterator[DeviceRecord]:
    """Yield the devices whose stage failed, as they were found before the run, with what was in the way in the end."""
    reasons = {stage.name: stage.reason for stage in stages if stage.status == "failed"}
    for record in found:
        if reason := reasons.get(f"profile.{record.name}"):
            yield replace(record, problems=(reason,))


def refuse(found: Sequence[DeviceRecord]) -> None:
    """Stop if a device is not ready, with the problems of all.

    Raises:
        DeviceError: At least one is not.
    """
    unready = [record for record in found if record.problems]
    if not unready:
        return
    lines = [f"{record.name}: {problem}".replace("\n", "\n  ") for record in unready for problem in record.problems]
    head = f"{len(unready)} of {len(found)} devices {'is' if len(unready) == 1 else 'are'} not ready"
    raise DeviceError(
        "\n  ".join([f"{head}:", *lines]),
        f"edgekd doctor {unready[0].name} tries every step; --without-devices goes on without it",
    )


def ready(found: Sequence[DeviceRecord]) -> Iterator[str]:
    """Say which devices are ready, and what was looked at."""
    for record in (record for record in found if not record.problems):
        packages = ", ".join(f"{run.package} {run.version}".strip() for run in record.runtimes)
        slow = f" (slow: {SLOW} {record.more[SLOW]})" if SLOW in record.more else ""
        yield f"{record.name}: ready{slow}; {packages} installed, each is tried when it is measured"


class _Asked:
    """A device that is being asked, in a thread of its own: it may never answer, and is not waited for at the end.

    Args:
        device: The device.
        forms: Formats that are to be measured.
    """

    def __init__(self, device: Device, forms: Sequence[str]) -> None:
        self._device, self._forms, self._began = device, forms, time.monotonic()
        patient = device.emulated or device.transport == "host"
        self._reach, self._limit = (BUSY_S, BUSY_S) if patient else (REACH_S, ANSWER_S)
        self._way, self._shared = transports.to(device), False
        self._answers: queue.SimpleQueue[DeviceRecord] = queue.SimpleQueue()
        threading.Thread(target=self._ask, daemon=True).start()

    def answer(self) -> DeviceRecord:
        """Wait for the answer, as long as the device may take."""
        name = self._device.name
        if found := self._within(self._reach):
            return found
        if not (self._way.reached or self._shared):
            what = f"{name} does not answer within {self._reach:.0f} s"
        elif found := self._within(self._limit):
            return found
        else:
            what = f"{name} takes the connection, but does not answer within {self._limit:.0f} s"
        return doctor.silent(self._device, DeviceError(what, f"try it by hand: {_by_hand(self._device)}"))

    def stop(self) -> None:
        """End what the thread waits for."""
        self._way.local.stop()

    def _within(self, seconds: float) -> DeviceRecord | None:
        """The answer, if it comes within seconds from the beginning."""
        try:
            return self._answers.get(timeout=max(0.0, self._began + seconds - time.monotonic()))
        except queue.Empty:
            return None

    def _ask(self) -> None:
        end = self._began + self._limit
        while True:
            try:
                with self._way as way:
                    found = doctor.examine(self._device, way, self._forms, infer=False)
            except OursError:  # two files of one board: one after the other
                self._shared = True
                if time.monotonic() > end:
                    return
                time.sleep(AGAIN_S)
                self._way = transports.to(self._device)
                continue
            except DeviceError as error:
                found = doctor.silent(self._device, error)
            except Exception as error:
                found = doctor.silent(self._device, DeviceError(*unexpected(error)))
            break
        seconds = time.monotonic() - self._began
        if seconds > self._reach and not self._shared:
            found = replace(found, more={**found.more, SLOW: f"{seconds:.0f} s"})
        self._answers.put(found)  # when the device is free again


def _by_hand(device: Device) -> str:
    if device.transport == "ssh":
        return f"ssh {f'-p {device.port} ' if device.port else ''}{device.host}"
    return "adb devices -l" if device.transport == "adb" else f"edgekd doctor {device.name}"
