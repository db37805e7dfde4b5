"""The machine and this process: state, memory, threads, the page cache."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any


def drop_from_cache(path: Path) -> bool:
    """Put a model file (and OpenVINO's .bin) out of the page cache; tells whether it is out (never in a tmpfs)."""
    out = True
    for part in {path, path.with_suffix(".bin")} if path.suffix == ".xml" else {path}:
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)  # what is not on the disk yet cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.preadv(handle, [bytearray(1)], 0, os.RWF_NOWAIT)  # succeeds without waiting only if the page is there
            out = False
        except BlockingIOError:
            pass
        except (OSError, AttributeError):
            out = False  # a file system or a system that cannot tell
        finally:
            os.close(handle)
    return out


def peak_mib() -> float:
    """Peak resident set of this process (VmHWM)."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def thread_ns() -> dict[str, int]:
    """CPU time in nanoseconds of each thread of this process."""
    times = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            times[task.name] = int((task / "schedstat").read_text().split()[0])
        except OSError:  # it ended meanwhile, or the kernel keeps no such figure
            continue
    return times


def state(root: Path = Path("/")) -> dict[str, Any]:
    """The machine now: what runs on it and whether it is throttled; what cannot be read is left out.

    Args:
        root: Where /proc and /sys are.
    """
    ticks = [int(word) for word in (root / "proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    seconds = [tick / os.sysconf("SC_CLK_TCK") for tick in ticks]
    cpu = root / "sys/devices/system/cpu"
    counters = cpu.glob("cpu*/thermal_throttle/*_throttle_count")
    found: dict[str, Any] = {
        "at": time.perf_counter(),
        "cores": os.cpu_count(),
        "load": float((root / "proc/loadavg").read_text().split()[0]),
        "busy": sum(seconds[i] for i in (0, 1, 2, 5, 6)),  # user, nice, system, irq, softirq
        "steal": seconds[7],
        "throttled": sum(int(path.read_text()) for path in counters),
    }
    files = {
        "governor": cpu / "cpu0/cpufreq/scaling_governor",
        "driver": cpu / "cpu0/cpufreq/scaling_driver",
        "firmware": root / "sys/devices/platform/soc/soc:firmware/get_throttled",  # Raspberry Pi, hexadecimal bits
    }
    found.update({name: path.read_text().strip() for name, path in files.items() if path.exists()})
    return found
