"""Waiting until a device is cool, before a session and between two attempts. Every wait has an end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edgekd.devices.schema import Device
from edgekd.profiling.participants import Participants
from edgekd.profiling.stats import Doubt, doubt

STEP_S = 2.0
"""Seconds between two looks at the temperature."""
BLIND_S = 30.0
"""Seconds to cool down where the temperature cannot be read."""
PAUSE_S = 2.0
"""Seconds between two attempts where it was not heat that spoiled the first."""
ABOVE = 2.0
"""A device is cool again at this many degrees above the temperature that the attempt began with."""

State = Callable[[], Mapping[str, Any]]


def begin(participants: Participants, device: Device, what: str = "the session", state: State | None = None) -> Doubt | None:
    """Wait until the device is below ``max_celsius``, at most ``wait_s``.

    Args:
        participants: The participants.
        device: Where.
        what: What is to begin.
        state: Asks for the device's state; by default a participant does, which runs until its memory is read.

    Returns:
        Why it does not begin as it should; None if it does.
    """
    if device.max_celsius is None:
        return None
    waited, last = wait(participants, device.max_celsius, device.wait_s, state)
    celsius = last.get("celsius")
    if celsius is None:
        return doubt("no_temperature")
    if celsius > device.max_celsius:
        return doubt("hot", what=what, celsius=celsius, limit=device.max_celsius, waited=waited)
    return None


def cool_down(participants: Participants, device: Device, reasons: Iterable[Doubt], before: Mapping[str, Any]) -> float:
    """Wait before the next attempt, at most ``wait_s``.

    Args:
        participants: The participants.
        device: Where.
        reasons: Why the last attempt was not trusted.
        before: State that the last attempt began with.

    Returns:
        Seconds waited.
    """
    if all(reason.cure != "cool" for reason in reasons):
        return _sleep(participants, "pausing before the next attempt", min(PAUSE_S, device.wait_s))
    cool = [device.max_celsius] if device.max_celsius is not None else []
    cool += [before["celsius"] + ABOVE] if "celsius" in before else []
    if not cool:
        blind = min(BLIND_S, device.wait_s)
        return _sleep(participants, f"cooling down for {blind:.0f} s", blind)
    return wait(participants, min(cool), device.wait_s)[0]


def wait(
    participants: Participants, celsius: float, seconds: float, ask: State | None = None
) -> tuple[float, Mapping[str, Any]]:
    """Wait until the device is at most that hot and nothing throttles it, at most so many seconds.

    Returns:
        Seconds waited, and the last state.
    """
    began = time.monotonic()
    while True:
        state = (ask or participants.state)()
        now, waited = state.get("celsius"), time.monotonic() - began
        left = min(seconds - waited, participants.limit.left())
        throttled = int(state.get("firmware", "0"), 16) & 0xF
        if now is None or left <= 0 or (now <= celsius and not throttled):
            return waited, state
        what = f"waiting for {celsius:.0f} °C" if now > celsius else "still throttled"
        participants.tell(f"cooling down: {now:.0f} °C, {what}, {left:.0f} s left")
        time.sleep(min(STEP_S, left))


def _sleep(participants: Participants, what: str, seconds: float) -> float:
    left = seconds = max(0.0, min(seconds, participants.limit.left()))
    participants.tell(what)
    while left > 0:
        time.sleep(min(STEP_S, left))
        left -= STEP_S
        participants.tell(what)  # an interruption is raised there
    return seconds
