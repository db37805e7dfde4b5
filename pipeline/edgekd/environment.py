"""The machine and the software of a run, for provenance."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from edgekd.registry import exporters
from edgekd.runtimes import base

PACKAGES = ("torch", "torchvision", "torchao", "lightning-fabric", "numpy")
"""Packages that decide results, besides those of exporters and runtimes."""


def describe() -> dict[str, Any]:
    """Operating system, processor, memory, Python and the versions of the packages that decide results."""
    found: dict[str, Any] = {
        "os": _os_name(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "packages": {name: number for name in _packages() if (number := _version(name))},
    }
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else ""
    return {**found, **({"governor": governor} if governor else {}), **({"gpu": gpu} if gpu else {})}


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of packages, by their names; ``not installed`` for one that is not."""
    return {name: _version(name) or "not installed" for name in sorted({*packages})}


def _packages() -> Iterable[str]:
    """Names of the packages that decide results."""
    yield from PACKAGES
    usable: Iterable[type[_Packaged]] = exporters.usable().values()
    for exporter in usable:
        yield from exporter.packages
    yield from base.packages()


class _Packaged(Protocol):
    packages: tuple[str, ...]


def _version(package: str) -> str:
    """Return the version of a package, empty if it is not installed; a plan asks for those of each stage."""
    return _version_in(package, tuple(sys.path))


@cache
def _version_in(package: str, path: tuple[str, ...]) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _cpu_name() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
