"""edgekd's own program as an agent: packed into one file, sent to the device, started anew for every variant.

On a device it needs Python 3.8 or later, numpy and a runtime.
"""

from __future__ import annotations

import contextlib
import io
import json
import selectors
import signal
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, LostError
from edgekd.profiling import on_device
from edgekd.profiling.transports.base import Transport
from edgekd.results.profile import RuntimeFound
from edgekd.runtimes import base

if TYPE_CHECKING:
    from edgekd.profiling.variant import Variant

PACKAGE = "edgekd_agent"
_WORK = {
    "facts": "being asked what the device is",
    "runtimes": "trying its runtimes",
    "start": "loading the model and running it once",
    "state": "being asked for temperature and load",
    "warmup": "warming up",
    "block": "measuring",
    "memory": "being asked for its memory",
    "effective": "being asked what it used",
    "power": "measuring power without inferences",
    "energy": "measuring energy",
    "window": "running without a pause",
    "outputs": "computing the outputs",
    "whole": "measuring the whole path",
    "answers": "classifying the test images",
    "operations": "timing single operations",
}
"""Each command of ``on_device/commands.py`` in words, after ``while``."""
_HINTS = {
    "SIGILL": "this build of the runtime uses instructions that this CPU does not have; try another version of it",
    "SIGKILL": "probably out of memory; see dmesg on the device",
    "SIGSEGV": "the runtime crashed: check the model in another version of the runtime",
}


def packed() -> bytes:
    """The program as one file that ``python3 FILE`` runs; the same bytes from the same source."""
    root = Path(on_device.__file__).parent
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        paths = [path for path in root.rglob("*") if path.suffix == ".py" or path.parent.name == "models"]
        files = {f"{PACKAGE}/{path.relative_to(root).as_posix()}": path.read_bytes() for path in paths}
        for name, runtime in base.known().items():  # a third party's stands elsewhere
            if runtime.on_device is not None:
                files[f"{PACKAGE}/runtimes/{name}.py"] = runtime.on_device.module.read_bytes()
                files |= {f"{PACKAGE}/models/{path.name}": path.read_bytes() for path in runtime.on_device.trivial}
        files["__main__.py"] = f"from {PACKAGE}.__main__ import main\n\nmain()\n".encode()
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name), files[name])  # its date is 1980
    return data.getvalue()


def program(way: Transport) -> str:
    """Bring the program to a device and return its path there."""
    return way.write("agent.pyz", packed())


class PythonAgents:
    """Starts the program on a device.

    Args:
        device: The device.
        way: The open way to it.
        runtimes: What was found there; for each format the first that works is used.
    """

    name = "python"

    def __init__(self, device: Device, way: Transport, runtimes: Sequence[RuntimeFound]) -> None:
        self._device, self._way, self._runtimes = device, way, runtimes

    @cached_property
    def _program(self) -> str:
        """Path of the program on the device."""
        return program(self._way)

    def start(self, variant: Variant, label: str) -> PythonAgent:
        """Start an agent for one model file.

        Raises:
            DeviceError: The device does not answer, or has no runtime for the format that works.
        """
        own = [found for found in self._runtimes if found.format == variant.runtime]
        chosen = next((found for found in own if found.works), None)
        if chosen is None:
            reason = "; ".join(found.problem for found in own) or "no runtime is installed"
            hint = own[0].fix if own else f"edgekd doctor {self._device.name} says what to install"
            raise DeviceError(f"{label}: {reason}", hint)
        return PythonAgent(self._way, [chosen.python, self._program], label, chosen.module, self._device.env)


class PythonAgent:
    """The running program.

    Args:
        way: The way to the device.
        argv: What starts it there.
        label: What it is for, in messages.
        package: The runtime's, to measure with; by default the first that is installed.
        env: Environment variables of it.
    """

    def __init__(
        self, way: Transport, argv: list[str], label: str, package: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        self.label, self._way, self._package = label, way, package
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the agent
        try:
            self._process = way.spawn(argv, noise=self._noise, env=env or None)
        except DeviceError as error:
            self._noise.close()
            raise error.labelled(label) from error
        assert self._process.stdout  # opened as a pipe
        self._answers = self._process.stdout
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._answers, selectors.EVENT_READ)
        self._rest = b""

    @property
    def pid(self) -> int:
        """Process id of the agent, or of the local end of its connection."""
        return self._process.pid

    def ask(self, command: str, timeout: float, **arguments: Any) -> Mapping[str, Any]:
        """Send a command and wait for its answer.

        Args:
            command: Name of the command; ``on_device/commands.py`` lists them.
            timeout: Seconds to wait; after that the agent is killed.
            arguments: Of the command.

        Raises:
            DeviceError: The runtime refused, died or did not answer in time; the message says which.
        """
        assert self._process.stdin  # opened as a pipe
        if command == "start" and self._package:
            arguments = {"package": self._package, **arguments}
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:  # it is gone
            raise self._death(command) from None
        try:
            answer: Mapping[str, Any] = json.loads(self._line(command, timeout))
        except ValueError as error:
            raise DeviceError(f"{self.label}: the agent's answer cannot be read: {error}") from error
        if "error" in answer:
            who = "" if answer.get("unfit") else f"the runtime refused while {_WORK[command]}: "
            raise DeviceError(f"{self.label}: {who}{answer['error']}")
        return answer

    def close(self, *, grace: float = 0.0) -> None:
        """End the process; ``grace`` is the seconds it gets to end by itself. May be called twice."""
        if self._noise.closed:
            return
        assert self._process.stdin  # opened as a pipe
        try:
            if grace and self._process.poll() is None:
                self._process.stdin.write(b'{"command": "stop"}\n')
                self._process.stdin.flush()
                self._process.wait(grace)
        except (OSError, subprocess.TimeoutExpired):
            pass
        finally:
            self._process.kill()
            self._process.wait()
            self._ready.close()
            self._answers.close()
            self._noise.close()
            with contextlib.suppress(OSError):  # unsent bytes for a dead reader
                self._process.stdin.close()

    def _line(self, command: str, timeout: float) -> bytes:
        end = time.monotonic() + timeout
        while b"\n" not in self._rest:
            if not self._ready.select(max(0.0, end - time.monotonic())):
                self._process.kill()
                raise DeviceError(
                    f"{self.label}: no answer within {timeout:.0f} s while {_WORK[command]}; the agent was killed"
                )
            piece = self._answers.read1(1 << 16)  # type: ignore[attr-defined]  # a BufferedReader, typed as IO
            if not piece:
                raise self._death(command)
            self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _death(self, command: str) -> DeviceError:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return DeviceError(f"{self.label}: the agent closed its output while {_WORK[command]}")
        self._noise.seek(0)
        noise = self._noise.read().decode(errors="replace").strip()
        if lost := self._way.lost(code, noise):
            return LostError(f"{self.label}: {lost.message} while {_WORK[command]}", lost.hint)
        number = -code if code < 0 else code - 128  # shells tell a signal as 128 + its number
        name = next((item.name for item in signal.Signals if item == number), None)
        if name:
            return DeviceError(f"{self.label}: the runtime died with {name} while {_WORK[command]}", _HINTS.get(name, ""))
        last = noise.rpartition("\n")[2][:300]
        return DeviceError(f"{self.label}: the agent ended with code {code} while {_WORK[command]}: {last}")
