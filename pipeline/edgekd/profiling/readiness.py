"""Ask the devices of a recipe, all at once and before anything is trained, whether they can measure what it asks for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from edgekd.devices import targets
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling import agents, doctor, transports
from edgekd.recipe import Recipe
from edgekd.records_profile import DeviceRecord
from edgekd.rundir import StageRecord

ANSWER_S = 5.0
"""Seconds that a device gets for all answers."""
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
    answers: queue.SimpleQueue[tuple[int, DeviceRecord]] = queue.SimpleQueue()
    began = time.monotonic()
    for place, (device, forms) in enumerate(zip(devices, wanted, strict=True)):
        # Not waited for when this process ends: the device may never answer.
        threading.Thread(target=_ask, args=(place, device, forms, answers), daemon=True).start()
    found: dict[int, DeviceRecord] = {}
    for place, device in sorted(enumerate(devices), key=lambda pair: _limit(pair[1])):
        while place not in found:
            try:
                other, record = answers.get(timeout=max(0.0, began + _limit(device) - time.monotonic()))
                found.setdefault(other, record)
            except queue.Empty:
                error = DeviceError(
                    f"{device.name} does not answer within {_limit(device):.0f} s", f"try it by hand: {_by_hand(device)}"
                )
                found[place] = doctor.silent(device, error)
    return [found[place] for place in range(len(devices))]


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
        f"edgekd doctor {unready[0].name} looks closer; --without-devices goes on, and measures what can be measured then",
    )


def ready(found: Sequence[DeviceRecord]) -> Iterator[str]:
    """Say which devices are ready, and what was looked at."""
    for record in (record for record in found if not record.problems):
        packages = ", ".join(f"{run.package} {run.version}".strip() for run in record.runtimes)
        yield f"{record.name}: ready; {packages} installed, each is tried when it is measured"


def _ask(place: int, device: Device, forms: Sequence[str], answers: queue.SimpleQueue[tuple[int, DeviceRecord]]) -> None:
    try:
        with transports.to(device) as way:
            found = doctor.examine(device, way, forms, infer=False)
    except DeviceError as error:
        found = doctor.silent(device, error)
    answers.put((place, found))  # when the device is free again


def _limit(device: Device) -> float:
    return BUSY_S if device.emulated or device.transport == "host" else ANSWER_S


def _by_hand(device: Device) -> str:
    if device.transport == "ssh":
        return f"ssh {f'-p {device.port} ' if device.port else ''}{device.host}"
    return "adb devices -l" if device.transport == "adb" else f"edgekd doctor {device.name}"
