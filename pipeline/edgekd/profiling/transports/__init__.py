"""Transports: how files and processes get to a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgekd.devices.schema import Device
from edgekd.profiling.transports.adb import Adb
from edgekd.profiling.transports.base import Transport
from edgekd.profiling.transports.host import Host
from edgekd.profiling.transports.ssh import Ssh

_KINDS: Mapping[str, Callable[[Device], Transport]] = {"host": lambda device: Host(), "ssh": Ssh, "adb": Adb}


def to(device: Device) -> Transport:
    r"""Return the way to a device; it connects when it is entered.

    Example:
        >>> from edgekd.devices import schema
        >>> with to(schema.load("host")) as way:
        ...     way.run(["echo", "hello"], timeout=10).out
        b'hello\n'
    """
    return _KINDS[device.transport](device)
