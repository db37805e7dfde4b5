"""The state of a phone, as Android tells it: thermal status, temperatures, battery, clocks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekd.errors import DeviceError
from edgekd.profiling.agents.base import Agent, Agents
from edgekd.profiling.transports.base import Transport

if TYPE_CHECKING:
    from edgekd.profiling.variant import Variant

ANSWER_S = 30.0
"""Seconds that the phone gets to tell its state."""
CPU, SKIN = 0, 3
"""Kinds of Android's temperatures (``mType``)."""
TICKS = 100.0
"""Clock ticks a second in /proc/stat, on every Android."""
_SCRIPT = """
cpu=/sys/devices/system/cpu
echo "@uptime"; cat /proc/uptime
echo "@load"; cat /proc/loadavg
echo "@ticks"; head -n 1 /proc/stat
echo "@cores"; ls -d "$cpu"/cpu[0-9]*
echo "@khz"; cat "$cpu"/cpu[0-9]*/cpufreq/scaling_cur_freq
echo "@governor"; cat "$cpu"/cpu0/cpufreq/scaling_governor
echo "@zones"; cat /sys/class/thermal/thermal_zone*/temp
echo "@thermal"; dumpsys thermalservice
echo "@battery"; dumpsys battery
"""


def state(way: Transport) -> dict[str, Any]:
    """Read the state of a phone now; what cannot be read is left out.

    ``throttled`` is Android's thermal status, 0 (none) to 6 (shutdown). ``celsius`` is the battery's temperature, which
    tells how hot the whole phone is, else the case's, else the processor's. The other names are those of the ``state``
    command.

    Raises:
        DeviceError: The phone does not answer.
    """
    told = way.run(["sh", "-c", _SCRIPT], timeout=ANSWER_S).out.decode(errors="replace")
    return read(dict(re.findall(r"^@(\w+)\n((?:[^@\n].*\n|\n)*)", told, re.MULTILINE)))


def read(parts: Mapping[str, str]) -> dict[str, Any]:
    r"""Read the parts of the answer.

    Example:
        >>> read({"thermal": "Thermal Status: 2\n", "battery": "  level: 81\n  temperature: 291\n"})
        {'throttled': 2, 'celsius': 29.1, 'battery_percent': 81}
    """
    thermal, battery = parts.get("thermal", ""), parts.get("battery", "")
    status = _first(r"Thermal Status: (\d+)", thermal)
    level, tenths, power = (_first(rf"^\s*{name}: (\d+)", battery) for name in ("level", "temperature", "status"))
    found = {
        "at": _first(r"([\d.]+)", parts.get("uptime", "")),
        "cores": len(parts.get("cores", "").split()) or None,
        "load": _first(r"([\d.]+)", parts.get("load", "")),
        "mhz": max((int(word) / 1000 for word in parts.get("khz", "").split() if word.isdigit()), default=None),
        "governor": parts.get("governor", "").strip() or None,
        "throttled": None if status is None else int(status),
        "celsius": tenths / 10 if tenths is not None else _hottest(thermal, parts.get("zones", "")),
        "battery_percent": None if level is None else int(level),
        "charging": None if power is None else power in (2, 5),  # BatteryManager: charging, full
    }
    ticks = [int(word) / TICKS for word in parts.get("ticks", "").split()[1:] if word.isdigit()]
    if len(ticks) >= 8:
        found["busy"], found["steal"] = sum(ticks[i] for i in (0, 1, 2, 5, 6)), ticks[7]  # as on_device/machine.py
    return {name: value for name, value in found.items() if value is not None}


class PhoneAgents:
    """Agents of a phone whose own program cannot ask Android: its state is added to their answers.

    Args:
        agents: They.
        way: The open way to the phone.
    """

    def __init__(self, agents: Agents, way: Transport) -> None:
        self.name, self._agents, self._way = agents.name, agents, way

    def start(self, variant: Variant, label: str) -> Agent:
        """Start an agent for one model file."""
        return _OnPhone(self._agents.start(variant, label), self._way)


class _OnPhone:
    def __init__(self, agent: Agent, way: Transport) -> None:
        self.label, self._agent, self._way = agent.label, agent, way

    def ask(self, command: str, timeout: float, **arguments: Any) -> Mapping[str, Any]:
        answer = self._agent.ask(command, timeout, **arguments)
        if command == "state":
            return {**answer, **self._heat()}
        return {**answer, "state": {**answer["state"], **self._heat()}} if command in ("block", "window") else answer

    def close(self, *, grace: float = 0.0) -> None:
        self._agent.close(grace=grace)

    def _heat(self) -> dict[str, Any]:
        """What only Android knows; clocks of processors and times are those of the agent, which are compared."""
        try:
            found = state(self._way)
        except DeviceError as error:
            raise error.labelled(self.label) from error
        names = ("throttled", "celsius", "battery_percent", "charging")
        return {name: found[name] for name in names if name in found}


def _hottest(thermal: str, zones: str) -> float | None:
    """The case's temperature, else the processor's, as Android tells them; else the kernel's hottest."""
    _, _, now = thermal.partition("Current temperatures from HAL:")
    found = re.findall(r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+),", now or thermal)
    for kind in (SKIN, CPU):
        if degrees := [float(value) for value, of in found if int(of) == kind]:
            return max(degrees)
    return max((int(word) / 1000 for word in zones.split() if word.isdigit() and int(word) > 1000), default=None)


def _first(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text, re.MULTILINE)
    return float(match[1]) if match else None
