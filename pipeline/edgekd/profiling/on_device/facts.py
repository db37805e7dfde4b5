"""The device: what it is, and the state it is in. What cannot be read is left out."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

THROTTLING = {
    0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit",
}  # fmt: skip
"""Bits of a Raspberry Pi's throttling flags; the same since boot are 16 higher."""
CLOCK_READS = 1000


def facts(root: Path = Path("/")) -> dict[str, Any]:
    """Return the facts of the device; its free disk is that of the folder of this program.

    Args:
        root: Where /proc, /sys and /etc are.
    """
    found: dict[str, Any] = {
        "arch": arch(),
        "kernel_arch": platform.machine(),
        "home": str(Path.home()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "managed": _managed(),
        "clock_ns": clock_ns(),
    }
    more: dict[str, Any] = {
        "features": lambda: features(_read(root / "proc/cpuinfo")),
        "model": lambda: _model(root),
        "os": lambda: re.findall(r'(?m)^PRETTY_NAME="?([^"\n]*)', _read(root / "etc/os-release"))[0],
        "libc": lambda: platform.libc_ver()[1],
        "cores": lambda: _clocks(root / "sys/devices/system/cpu"),
        "governor": lambda: _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "driver": lambda: _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"),
        "celsius": lambda: celsius(root),
        "throttled": lambda: throttled(root),
        "memory_mib": lambda: _memory(root, "MemTotal"),
        "available_mib": lambda: _memory(root, "MemAvailable"),
        "disk_mib": lambda: shutil.disk_usage(Path(sys.argv[0]).parent).free / 2**20,
        "numpy": lambda: importlib.metadata.version("numpy"),
        "load": lambda: float(_read(root / "proc/loadavg").split()[0]),
    }
    for name, read in more.items():
        try:
            value = read()
        except Exception:  # a file that is not there, or has another form on this kernel
            continue
        if value not in (None, ""):
            found[name] = value
    return found


def arch() -> str:
    """Return the architecture of this process: of a 32-bit system on a 64-bit kernel the 32-bit one."""
    machine = {"amd64": "x86_64", "arm64": "aarch64", "armv8l": "armv7l"}.get(platform.machine(), platform.machine())
    return "armv7l" if machine == "aarch64" and struct.calcsize("P") == 4 else machine


def features(cpuinfo: str) -> list[str]:
    """Return the instruction sets that all cores have, as /proc/cpuinfo names them."""
    fields = [line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith(("flags", "Features"))]
    return sorted(set.intersection(*map(set, fields))) if fields else []


def clock_ns() -> float:
    """Return the smallest step of the clock that times, in nanoseconds."""
    reads = [time.perf_counter_ns() for _ in range(CLOCK_READS)]
    steps = (after - before for before, after in zip(reads, reads[1:]))  # noqa: B905, RUF007  # for Python 3.8
    return min((step for step in steps if step > 0), default=0.0)


def celsius(root: Path = Path("/")) -> float:
    """Return the temperature of the CPU, or of the hottest zone where none is the CPU's.

    Raises:
        ValueError: The device has no thermal zone that can be read.
    """
    zones = {}
    for zone in (root / "sys/class/thermal").glob("thermal_zone*"):
        try:
            zones[zone.name, _read(zone / "type")] = int(_read(zone / "temp")) / 1000
        except (OSError, ValueError):  # a sensor that is switched off
            continue
    cpu = [value for (_, kind), value in zones.items() if re.search(r"(?i)cpu|soc|x86_pkg|k10temp|big|little", kind)]
    return max(cpu or zones.values())


def throttled(root: Path = Path("/")) -> list[str]:
    """Return what holds the clock down, now and since boot, in words.

    Raises:
        OSError: The device does not tell.
    """
    bits = firmware(root)
    if bits is None:
        counters = (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/*_throttle_count")
        count = sum(int(_read(path)) for path in counters)
        return [f"throttled {count} times since boot"] if count else []
    now = [word for bit, word in THROTTLING.items() if bits >> bit & 1]
    return [word + " now" for word in now] + [
        word + " since boot" for bit, word in THROTTLING.items() if bits >> bit + 16 & 1 and word not in now
    ]


def firmware(root: Path = Path("/")) -> Any:
    """Return a Raspberry Pi's throttling flags, or None on another device."""
    path = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
    if path.exists():
        return int(_read(path), 16)
    command = shutil.which("vcgencmd") if root == Path("/") else None
    if command is None:
        return None
    done = subprocess.run(
        [command, "get_throttled"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=True
    )
    return int(done.stdout.decode().strip().partition("=")[2], 16)


def _model(root: Path) -> str:
    """The board, the computer, or its CPU, as it calls itself."""
    for name in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        if (root / name).exists():
            return _read(root / name)
    told = dict(re.findall(r"(?m)^(Model|model name|Hardware)\s*:\s*(.+)$", _read(root / "proc/cpuinfo")))
    if "Model" in told:
        return str(told["Model"])
    product = root / "sys/class/dmi/id/product_name"
    parts = [_read(product) if product.exists() else "", told.get("model name", told.get("Hardware", ""))]
    return ", ".join(part for part in parts if part)


def _clocks(cpu: Path) -> list[int]:
    """Limit of each core's clock in MHz; 0 where it cannot be read."""
    limits = [cpu / f"cpu{number}/cpufreq/scaling_max_freq" for number in _online(cpu)]
    return [int(_read(path)) // 1000 if path.exists() else 0 for path in limits]


def _online(cpu: Path) -> list[int]:
    """Numbers of the cores that are switched on, from such as ``0-3,6``."""
    found: list[int] = []
    for part in _read(cpu / "online").split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _memory(root: Path, key: str) -> float:
    return int(re.findall(rf"(?m)^{key}:\s+(\d+) kB", _read(root / "proc/meminfo"))[0]) / 1024


def _managed() -> bool:
    """Return whether pip refuses to install for this interpreter (PEP 668): it is the system's own."""
    here = sys.prefix != sys.base_prefix
    return not here and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()


def _read(path: Path) -> str:
    return path.read_text(errors="replace").strip("\0 \n\t")
