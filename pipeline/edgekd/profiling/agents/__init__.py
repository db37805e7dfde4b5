"""Who measures on a device: edgekd's own program for Python, or a benchmark that the device has."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.devices.schema import Device
from edgekd.profiling.agents.base import Agents
from edgekd.profiling.agents.python import PythonAgents
from edgekd.profiling.transports.base import Transport
from edgekd.records_profile import RuntimeFound


def of(device: Device, way: Transport, runtimes: Sequence[RuntimeFound]) -> Agents:
    """Return what measures on a device, behind an open way to it, with the runtimes that were found there."""
    return PythonAgents(device, way, runtimes)
