"""Transports: how files and processes get to a device; one per file, registered under its name in devices' files."""

from __future__ import annotations

from typing import cast

from edgekd import registry
from edgekd.devices.schema import Device
from edgekd.profiling.transports.base import Transport


def to(device: Device) -> Transport:
    r"""Return the way to a device; it connects when it is entered.

    Example:
        >>> from edgekd.devices import schema
        >>> with to(schema.load("host")) as way:
        ...     way.run(["echo", "hello"], timeout=10).out
        b'hello\n'
    """
    return cast(Transport, registry.transports.get(device.transport)(device))
