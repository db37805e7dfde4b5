"""A new device: ask it what it is, and write its file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from edgekd.devices.isa import ARCHS
from edgekd.devices.schema import HOST, NAME, Device
from edgekd.errors import DeviceError, UsageError
from edgekd.loading.lock import flow
from edgekd.profiling import doctor, transports
from edgekd.profiling.transports.base import Transport
from edgekd.results.profile import DeviceRecord

_PYTHONS = ("python3", "{home}/edgekd/bin/python")
"""Interpreters to try where none is given; the second is where edgekd's advice puts a virtual environment."""


_PROGRAM = "android_aarch64_benchmark_model"
"""What the program is called where it can be downloaded."""


def chosen(target: str, name: str | None, port: int | None, pythons: Sequence[str], *, emulated: bool = False) -> Device:
    """Return the device that is meant, of which no more is known yet.

    Args:
        target: A name of ``~/.ssh/config``, a host with or without a user, or ``adb:SERIAL``.
        name: What to call it, if it was said.
        port: Of ssh.
        pythons: Interpreters to try there.
        emulated: Whether it is emulated.

    Raises:
        UsageError: There can be no such device.
    """
    transport, _, serial = target.partition(":") if target.partition(":")[0] == "adb" else ("ssh", "", "")
    if name is not None and not re.search(NAME, name):
        raise UsageError(f"--name {name} is no name of a device", "use letters, digits, _, - and dots, such as pi4")
    called = name or _name(serial or "phone" if transport == "adb" else target)
    if called == HOST:
        raise UsageError(f"{target}: {HOST} is the name of the machine that runs edgekd", "add --name NAME, such as pi4")
    keys = {
        "transport": transport,
        "name": called,
        **({"serial": serial} if serial else {}),
        **({"host": target} if transport == "ssh" else {}),
        **({"port": port} if port is not None else {}),
        **({"python": tuple(pythons)} if pythons else {}),
        **({"emulated": True} if emulated else {}),
    }
    try:
        return Device.model_validate(keys)
    except ValidationError as error:
        told = "; ".join(item["msg"] for item in error.errors())
        raise UsageError(f"{target}: {told}", "write USER@HOST, a name of ~/.ssh/config, or adb:SERIAL") from error


def asked(device: Device) -> tuple[Device, DeviceRecord]:
    """Ask a device what it is.

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
            told = doctor.look(device, way, thorough=True)
        except DeviceError:
            if device.transport != "adb":
                raise
            # A phone without Python: Android says what it is, and benchmark_model is still to be found.
            device = device.model_copy(update={"agent": "benchmark_model", "benchmark_model": _PROGRAM})
            found = doctor.examine(device, way, infer=False)
            device = _filled(device, found)
            return device, replace(found, description=device.description)
    device = _filled(device, doctor.described(device, told.facts, told.rows, (), told.silent))
    return device, doctor.described(device, told.facts, told.rows, (), told.silent)


def _filled(device: Device, found: DeviceRecord) -> Device:
    """The device with what its file is to say."""
    formats: set[str] = set()
    pythons = []
    for runtime in found.runtimes:
        if runtime.works and runtime.python and runtime.format not in formats:
            formats.add(runtime.format)
            pythons.append(runtime.python)
    changes: dict[str, object] = {
        "python": tuple(dict.fromkeys(pythons)) or device.python,
        "description": found.model or device.host or device.serial or device.name,
    }
    if found.arch in ARCHS:
        changes |= {"arch": found.arch, "isa": found.isa}
    return device.model_copy(update=changes)


_TYPED = (
    (r"or name (one that is there|its interpreter).*", "or name one that is there: --python PATH"),
    (r"correct port: in its file", "give --port"),
    (r"write the board's address as host: in its file", "type the board's address"),
    (r"write which one into \S+, such as serial: (\S+)", r"say which one: edgekd devices add adb:\1"),
)
"""What is typed where there is no file yet, for what is written into a file."""


def hint(text: str) -> str:
    """Say what to type to add a device, from a hint of what to write into its file.

    Example:
        >>> hint("switch SSH on, or correct port: in its file")
        'switch SSH on, or give --port'
    """
    for pattern, typed in _TYPED:
        text = re.sub(pattern, typed, text)
    return text


def _starts(way: Transport, python: str) -> bool:
    try:
        return way.run([python, "-c", "0"], timeout=20).code == 0
    except DeviceError:  # it is not there; of a device that has gone the next question tells
        return False


def text(device: Device, found: DeviceRecord, target: str) -> str:
    """Return the text of a device's file."""
    lines = [f"# Written by: edgekd devices add {' '.join(target.split())}"]
    keys = (
        "transport", "host", "port", "serial", "description", "emulated", "arch", "isa", "python", "agent",
        "benchmark_model",
    )  # fmt: skip
    for key in keys:
        value = getattr(device, key)
        if value not in (None, "", type(device).model_fields[key].default):
            comment = f" # beside this file; then: edgekd doctor {device.name}" if key == "benchmark_model" else ""
            lines.append(f"{key}: {flow(list(value) if isinstance(value, tuple) else value)}{comment}")
    if device.agent == "benchmark_model":
        lines.append("# TensorFlow Lite's program, built for the phone; benchmark_options: {use_gpu: true} for its GPU")
    fastest = [number for number, mhz in enumerate(found.cores) if mhz == max(found.cores)]
    if len(set(found.cores)) > 1:
        kinds = ", ".join(f"{found.cores.count(mhz)} at {mhz} MHz" for mhz in sorted(set(found.cores)))
        lines.append(f"# cores: {fastest} # the fastest ones; it has {kinds}")
    return "\n".join(lines) + "\n"


def _name(target: str) -> str:
    """A name from a host or a serial number: ``pi@raspberrypi.local`` is raspberrypi, an address stays whole.

    Example:
        >>> [_name(target) for target in ("ssh://pi@pi5.local:22/", "pi@10.0.0.7", "pi@fe80::1%eth0", "pi@::1")]
        ['pi5', '10.0.0.7', 'fe80-1-eth0', 'board-1']
    """
    host = target.removeprefix("ssh://").rstrip("/").rpartition("@")[2]
    if target.startswith("ssh://"):
        host = re.sub(r":\d+$", "", host) if host.count(":") == 1 or "]" in host else host
    address = re.fullmatch(r"[\d.]+", host) or host.count(":") > 1
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", host if address else host.partition(".")[0]).strip("-.")
    return name if re.search(r"[A-Za-z.]", name) else f"board-{name}".rstrip("-")
