"""Sensors of the machine: temperature, clock, throttling. A value that cannot be read is left out."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

PROCESSOR = re.compile(r"(?i)cpu|soc|pkg|core|cluster|tsens|k10temp|zenpower|big|little")
"""Names of the thermal zones that sit in the processor; where none has such a name, all zones count."""


def sensors(root: Path) -> dict[str, Any]:
    """Read temperature, clock and throttling now.

    ``celsius``: the hottest zone of the processor. ``mhz``: the fastest core. ``throttled``: how often the kernel has
    throttled a core (x86). ``firmware``: the Raspberry Pi's throttling bits, hexadecimal.

    Args:
        root: Where /proc and /sys are.
    """
    cpu = root / "sys/devices/system/cpu"
    firmware = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or _firmware(root, "get_throttled")
    counts = [_number(path) for path in sorted(cpu.glob("cpu*/thermal_throttle/*_throttle_count"))]
    found = {
        "celsius": _celsius(root),
        "mhz": _mhz(root, firmware),
        "throttled": sum(int(count) for count in counts if count is not None),
        "firmware": firmware,
        "governor": _text(cpu / "cpu0/cpufreq/scaling_governor"),
        "driver": _text(cpu / "cpu0/cpufreq/scaling_driver"),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}


def _celsius(root: Path) -> float | None:
    zones = [(_text(path.with_name("type")), path) for path in root.glob("sys/class/thermal/thermal_zone*/temp")]
    zones += [(_text(path.with_name("name")), path) for path in root.glob("sys/class/hwmon/hwmon*/temp*_input")]
    ours = [zone for zone in zones if PROCESSOR.search(zone[0])] or zones
    degrees = [_number(path) for _, path in ours]
    # Zones that are switched off say 0 or -274; some vendors give degrees, not thousandths.
    sane = [value / 1000 if value > 1000 else value for value in degrees if value is not None and value > 1]
    if sane:
        return max(sane)
    told = _firmware(root, "measure_temp").rstrip("'C")
    return float(told) if told else None


def _mhz(root: Path, firmware: str) -> float | None:
    # On a Raspberry Pi the kernel tells the clock it asked for; while the firmware limits it, the firmware tells the true.
    told = _firmware(root, "measure_clock", "arm") if firmware and int(firmware, 16) & 0xF else ""
    if told:
        return float(told) / 1e6
    clocks = [_number(path) for path in root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")]
    khz = [value for value in clocks if value is not None]
    if khz:
        return max(khz) / 1000
    lines = re.findall(r"(?m)^cpu MHz\s*:\s*([\d.]+)", _text(root / "proc/cpuinfo"))
    return max(map(float, lines), default=None)


def _firmware(root: Path, *words: str) -> str:
    """Ask the Raspberry Pi's firmware; empty where there is none, or this user may not ask."""
    for folder in ("usr/bin", "opt/vc/bin"):
        program = root / folder / "vcgencmd"
        if os.access(str(program), os.X_OK):
            import subprocess  # 1 MiB of memory where there is no firmware to ask

            try:
                done = subprocess.run([str(program), *words], capture_output=True, text=True, timeout=5, check=False)
            except (OSError, subprocess.TimeoutExpired):
                return ""
            name, _, value = done.stdout.strip().partition("=")
            return "" if name == "error" else value
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # also zones that fail while they sleep
        return None
