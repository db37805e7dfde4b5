"""The machine and this process: state, memory, threads, the page cache."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from .errors import UnfitError
from .sensors import sensors


def drop_from_cache(paths: list[Path]) -> bool:
    """Put the files of a model out of the page cache; tells whether they are out (never in a tmpfs)."""
    out = True
    for part in paths:
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


def pin(cores: list[int]) -> None:
    """Keep this process and the threads it starts from now on to some cores; what became of it is read from ``cores``.

    Raises:
        UnfitError: The machine does not have one of them.
    """
    known = {int(path.name[3:]) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*")}
    absent = sorted(set(cores) - known) if known else []
    if absent:
        raise UnfitError(f"cores {absent}: this machine has no such cores; it has {sorted(known)}")
    try:
        os.sched_setaffinity(0, cores)
    except (OSError, AttributeError):  # switched off, not allowed, or a system that cannot
        return


def cores() -> list[int]:
    """Cores that the threads of this process may run on."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= os.sched_getaffinity(int(task.name))
        except OSError:  # it ended meanwhile
            continue
    return sorted(found)


def state(root: Path = Path("/")) -> dict[str, Any]:
    """The machine now: what runs on it, how hot it is and whether it is throttled; what cannot be read is left out.

    Args:
        root: Where /proc and /sys are.
    """
    found: dict[str, Any] = {"at": time.perf_counter(), "cores": os.cpu_count(), **sensors(root)}
    try:
        ticks = [int(word) for word in (root / "proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        seconds = [tick / os.sysconf("SC_CLK_TCK") for tick in ticks]
        found["busy"] = sum(seconds[i] for i in (0, 1, 2, 5, 6))  # user, nice, system, irq, softirq
        found["steal"] = seconds[7]
        found["load"] = float((root / "proc/loadavg").read_text().split()[0])
    except OSError:  # Android keeps them from apps
        pass
    return found
