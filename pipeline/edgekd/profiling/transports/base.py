"""How a session reaches a device: a transport puts files there and starts agents.

A new kind of device (ssh, adb) is one module with one :class:`Transport`; the agents it starts are local processes too
(``ssh pi@board python3 python.py``), so that :class:`Agent`, with its time limits and its telling of deaths, serves all.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgekd.errors import DeviceError

_WORK = {
    "start": "loading the model and running it once",
    "warmup": "warming up",
    "block": "measuring",
    "effective": "being asked what it used",
}
_HINTS = {
    "SIGILL": "this build of the runtime uses instructions that this CPU does not have; try another version of it",
    "SIGKILL": "probably out of memory; see dmesg on the device",
    "SIGSEGV": "the runtime crashed: check the model in another version of the runtime",
}


class Transport(Protocol):
    """The way to one device."""

    def put(self, path: Path) -> str:
        """Bring a file (an OpenVINO .xml with its .bin) to the device and return its path there.

        Raises:
            DeviceError: The device does not answer or has no room.
        """
        ...

    def spawn(self, label: str) -> Agent:
        """Start a fresh ``agents/python.py`` on the device.

        Args:
            label: What the agent is for, in messages, such as ``tflite on pi4``.

        Raises:
            DeviceError: The device does not answer.
        """
        ...


class Agent:
    """A running ``agents/python.py``: one question, one answer, never a hang.

    Args:
        argv: Command that starts the agent and joins its stdin and stdout.
        label: What it is for, in messages.
    """

    def __init__(self, argv: Sequence[str], label: str) -> None:
        self.label = label
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the agent
        try:
            # A session of its own: Ctrl-C reaches edgekd alone, which then ends its agents.
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._noise, start_new_session=True
            )
        except OSError as error:
            self._noise.close()
            raise DeviceError(f"{label}: {argv[0]} does not start: {error.strerror}") from error
        assert self._process.stdout
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
            command: Name of the command; ``agents/python.py`` lists them.
            timeout: Seconds to wait; after that the agent is killed.
            arguments: Of the command.

        Raises:
            DeviceError: The runtime refused, died or did not answer in time; the message says which.
        """
        assert self._process.stdin
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
            raise DeviceError(f"{self.label}: the runtime refused while {_doing(command)}: {answer['error']}")
        return answer

    def close(self, *, grace: float = 0.0) -> None:
        """End the process; ``grace`` is the seconds it gets to end by itself. May be called twice."""
        if self._noise.closed:
            return
        assert self._process.stdin
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
                    f"{self.label}: no answer within {timeout:.0f} s while {_doing(command)}; the agent was killed"
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
            return DeviceError(f"{self.label}: the agent closed its output while {_doing(command)}")
        number = -code if code < 0 else code - 128  # ssh and shells tell a signal as 128 + its number
        name = next((item.name for item in signal.Signals if item == number), None)
        if name:
            return DeviceError(f"{self.label}: the runtime died with {name} while {_doing(command)}", _HINTS.get(name, ""))
        self._noise.seek(0)
        last = self._noise.read().decode(errors="replace").strip().rpartition("\n")[2][:300]
        return DeviceError(f"{self.label}: the agent ended with code {code} while {_doing(command)}: {last}")


def _doing(command: str) -> str:
    return _WORK.get(command, command)
