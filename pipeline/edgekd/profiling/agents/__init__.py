"""Agents that measure on a device: edgekd's own program for Python, or a benchmark that the device has."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.devices.schema import Device
from edgekd.profiling.agents.base import Agents
from edgekd.profiling.agents.benchmark_model import BenchmarkAgents
from edgekd.profiling.agents.phone import PhoneAgents
from edgekd.profiling.agents.python import PythonAgents
from edgekd.profiling.transports.base import Transport
from edgekd.results.profile import RuntimeFound
from edgekd.runtimes import base


def unfit(device: Device, form: str) -> str:
    """Say why a device cannot have a format, whatever is done on it; empty where it can."""
    if device.agent == "benchmark_model":
        return "benchmark_model runs .tflite files only" if form != "tflite" else ""
    runtime = base.of(form)
    return "" if runtime.on_device else f"{runtime.label} has no program for devices (on_device), which measures"


def fits(device: Device) -> str:
    """Say what to do where a device can have none of the formats."""
    if device.agent == "benchmark_model":
        return "for other formats the phone needs Python and the runtime: agent: python"
    return f"measure {', '.join(name for name, runtime in base.known().items() if runtime.on_device)}"


def of(device: Device, way: Transport, runtimes: Sequence[RuntimeFound]) -> Agents:
    """Return what measures on a device, behind an open way to it, with the runtimes that were found there."""
    if device.agent == "benchmark_model":
        return BenchmarkAgents(device, way)
    agents = PythonAgents(device, way, runtimes)
    return PhoneAgents(agents, way) if device.transport == "adb" else agents
