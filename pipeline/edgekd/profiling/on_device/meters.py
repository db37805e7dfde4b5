"""Power meters of a machine: RAPL counters on x86, the power chip of a Raspberry Pi 5, the battery of a phone or laptop."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEP_S = 0.1
"""Seconds between two readings of a meter that tells watts."""


class Meter:
    """Joules between ``start`` and ``stop``.

    Args:
        name: What it is, for reports.
        joules: Reads a counter that runs up; None for a meter that tells watts.
        watts: Reads the power now; None for a counter.
        wrap: Joules at which the counter begins again.
    """

    def __init__(
        self,
        name: str,
        joules: Callable[[], float] | None = None,
        watts: Callable[[], float] | None = None,
        wrap: float = 0.0,
    ) -> None:
        self.name, self._joules, self._watts, self._wrap = name, joules, watts, wrap

    def start(self) -> None:
        """Begin."""
        self._began = time.perf_counter()
        if self._joules is not None:
            self._before = self._joules()
            return
        self._readings: list[float] = []
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def stop(self) -> tuple[float, float]:
        """End; returns joules and seconds."""
        if self._joules is not None:
            used = self._joules() - self._before
            return used + (self._wrap if used < 0 else 0.0), time.perf_counter() - self._began
        seconds = time.perf_counter() - self._began
        self._over.set()
        self._reader.join()
        return seconds * sum(self._readings) / len(self._readings), seconds

    def _read(self) -> None:
        assert self._watts is not None
        while True:  # at least once
            self._readings.append(self._watts())
            if self._over.wait(STEP_S):
                return


def find(root: Path = Path("/")) -> Meter | None:
    """Return the machine's meter, if this user may read one.

    Args:
        root: Where /sys and the firmware's program are.
    """
    for kind in (_rapl, _raspberry, _battery):
        try:
            meter = kind(root)
        except (OSError, ValueError):  # not there, not allowed (RAPL is root's), or of another form
            continue
        if meter is not None:
            return meter
    return None


def _rapl(root: Path) -> Meter | None:
    """Counters of whole packages; their parts (core, uncore) are in them."""
    packages = sorted(
        path for path in root.glob("sys/class/powercap/intel-rapl:*") if re.search(r"intel-rapl:\d+$", path.name)
    )
    if not packages:
        return None

    def joules() -> float:
        return sum(int((path / "energy_uj").read_text()) for path in packages) / 1e6

    joules()
    wrap = int((packages[0] / "max_energy_range_uj").read_text()) / 1e6
    return Meter(f"RAPL, processor packages: {len(packages)}", joules, wrap=wrap)


def _raspberry(root: Path) -> Meter | None:
    """The rails of a Raspberry Pi 5's power chip; what hangs on the 5 V directly, such as USB, is not among them."""
    for folder in ("usr/bin", "opt/vc/bin"):
        program = root / folder / "vcgencmd"
        if not os.access(str(program), os.X_OK):
            continue
        import subprocess  # 1 MiB of memory where there is no firmware to ask

        def watts(program: Path = program) -> float:
            done = subprocess.run([str(program), "pmic_read_adc"], capture_output=True, text=True, timeout=5, check=False)
            return rails_watts(done.stdout)

        watts()
        return Meter("power chip of the board (PMIC), all rails", watts=watts)
    return None


def rails_watts(text: str) -> float:
    """Add up current times voltage of the rails that ``vcgencmd pmic_read_adc`` tells.

    Example:
        >>> rails_watts("3V3_SYS_A current(1)=0.5A 3V3_SYS_V volt(9)=3.3V EXT5V_V volt(24)=5.1V")
        1.65
    """
    found: dict[str, dict[str, float]] = {}
    for rail, unit, value in re.findall(r"(\S+)_([AV]) (?:current|volt)\(\d+\)=([\d.]+)[AV]", text):
        found.setdefault(rail, {})[unit] = float(value)
    rails = [rail["A"] * rail["V"] for rail in found.values() if len(rail) == 2]
    if not rails:
        raise ValueError(f"no rails: {text[:80]!r}")
    return sum(rails)


def _battery(root: Path) -> Meter | None:
    """A battery that is being emptied; beside a charger its current says nothing of the machine."""
    for path in sorted(root.glob("sys/class/power_supply/*")):
        if (path / "type").read_text().strip() != "Battery" or (path / "status").read_text().strip() != "Discharging":
            continue

        def watts(path: Path = path) -> float:
            if (path / "power_now").exists():
                return abs(int((path / "power_now").read_text())) / 1e6
            return battery_watts((path / "current_now").read_text(), (path / "voltage_now").read_text())

        watts()
        return Meter("battery", watts=watts)
    return None


def battery_watts(current: str, voltage: str) -> float:
    """Power from a battery's current and voltage, in microamperes and microvolts, as Linux and Android tell them.

    The sign of the current while it is emptied is up to the maker.

    Example:
        >>> battery_watts("-512000", "4000000")
        2.048
    """
    return abs(int(current)) * int(voltage) / 1e12


def power(meter: Meter, seconds: float) -> dict[str, Any]:
    """Watts while this process does nothing."""
    meter.start()
    time.sleep(seconds)
    joules, took = meter.stop()
    return {"meter": meter.name, "watts": joules / took}
