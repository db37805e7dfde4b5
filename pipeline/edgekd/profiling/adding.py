"""A new device: ask it what it is, and write its file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import ValidationError

from edgekd.devices.isa import ARCHS
from edgekd.devices.schema import NAME, Device
from edgekd.errors import DeviceError, UsageError
from edgekd.loading.lock import flow
from edgekd.profiling import doctor, transports
from edgekd.profiling.transports.base import Transport
from edgekd.records_profile import DeviceRecord

_PYTHONS = ("python3", "{home}/edgekd/bin/python")
"""Interpreters to try where none is given; the second is where edgekd's advice puts a virtual environment."""


_PROGRAM = "android_aarch64_benchmark_model"
"""What the program is called where it can be downloaded."""


def chosen(target: str, name: str | None, port: int | None, pythons: Sequence[str]) -> Device:
    """Return the device that is meant, of which no more is known yet.

    Args:
        target: What is typed after ``ssh``, or ``adb:SERIAL``.
        name: What to call it, if it was said.
        port: Of ssh.
        pythons: Interpreters to try there.

    Raises:
        UsageError: There can be no such device.
    """
    transport, _, serial = target.partition(":") if target.partition(":")[0] == "adb" else ("ssh", "", "")
    if name is not None and not re.search(NAME, name):
        raise UsageError(f"--name {name} is no name of a device", "use letters, digits, _, - and dots, such as pi4")
    keys = {
        "transport": transport,
        "name": name or _name(serial or "phone" if transport == "adb" else target),
        **({"serial": serial} if serial else {}),
        **({"host": target} if transport == "ssh" else {}),
        **({"port": port} if port is not None else {}),
        **({"python": tuple(pythons)} if pythons else {}),
    }
    try:
        return Device.model_validate(keys)
    except ValidationError as error:
        told = "; ".join(item["msg"] for item in error.errors())
        raise UsageError(f"{target}: {told}", "write USER@HOST, a name of ~/.ssh/config, or adb:SERIAL") from error


def asked(device: Device) -> tuple[Device, DeviceRecord]:
    """Ask a device what it is; a name that was not chosen follows.

    Returns:
        The device with what its file should say, and all that was found.

    Raises:
        DeviceError: It does not answer.
    """
    with transports.to(device) as way:
        if "python" not in device.model_fields_set:
            home = way.run(["sh", "-c", 'printf %s "$HOME"'], timeout=10).out.decode(errors="replace")
            known = [python.format(home=home) for python in _PYTHONS]
            there = [python for python in known if _starts(way, python)]
            device = device.model_copy(update={"python": tuple(there or known[:1])})
        try:
            found = doctor.examine(device, way)
        except DeviceError:
            if device.transport != "adb":
                raise
            # A phone without Python: Android says what it is, and benchmark_model is still to be found.
            device = device.model_copy(update={"agent": "benchmark_model", "benchmark_model": _PROGRAM})
            found = doctor.examine(device, way, infer=False)
    working = dict.fromkeys(runtime.python for runtime in found.runtimes if runtime.works and runtime.python)
    changes: dict[str, object] = {"python": tuple(working) or device.python, "description": found.model or device.host or ""}
    if found.arch in ARCHS:
        changes |= {"arch": found.arch, "isa": found.isa}
    return device.model_copy(update=changes), found


def _starts(way: Transport, python: str) -> bool:
    try:
        return way.run([python, "-c", "0"], timeout=20).code == 0
    except DeviceError:  # it is not there; of a device that has gone the next question tells
        return False


def text(device: Device, found: DeviceRecord, target: str) -> str:
    """Return the text of a device's file."""
    lines = [f"# Written by: edgekd devices add {' '.join(target.split())}"]
    keys = ("transport", "host", "port", "serial", "description", "arch", "isa", "python", "agent", "benchmark_model")
    for key in keys:
        value = getattr(device, key)
        if value not in (None, "", type(device).model_fields[key].default):
            lines.append(f"{key}: {flow(list(value) if isinstance(value, tuple) else value)}")
    return "\n".join(lines) + "\n"


def _name(target: str) -> str:
    """A name from a host or a serial number: ``pi@raspberrypi.local`` is raspberrypi, an address stays whole."""
    host = target.rpartition("@")[2]
    short = host if re.fullmatch(r"[\d.]+", host) else host.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_.-]", "-", short).lstrip("-.") or "board"
