"""The host's side of the keeper on a device (``on_device/keeper.py``): questions, answers and the bytes of files."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from edgekd.errors import DeviceError, LostError
from edgekd.profiling.on_device import keeper

STALL_S = 60.0
"""Seconds without a byte going over, after which the device counts as stuck; a dead link ends by itself before."""
ROUND_TRIP_S = 2.0
"""Longest round trip of a link that is supported: OpenSSH takes about ten to open a connection."""
BEAT_S = 10.0
"""Seconds between two signs of life to the keeper."""


def program() -> bytes:
    """Text of the keeper, as it is sent."""
    return Path(keeper.__file__).read_bytes()


class Keeping:
    """A running keeper.

    Args:
        process: The connection to it, with pipes for stdin and stdout.
        name: Of the device, in messages.
        gone: Makes the error for a connection that has ended.
    """

    def __init__(self, process: subprocess.Popen[bytes], name: str, gone: Callable[[], DeviceError]) -> None:
        assert process.stdin  # opened as a pipe
        assert process.stdout  # opened as a pipe
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        self._name, self._gone, self._rest = name, gone, b""
        self._turn, self._over = threading.Lock(), threading.Event()
        os.set_blocking(self._in, False)

    def hello(self, text: bytes, timeout: float) -> Mapping[str, Any]:
        """Send the keeper's text, and read past what a login shell prints to its first answer."""
        self._write(text)
        wait = _Wait(timeout, self._name)
        while True:
            _, mark, said = self._line(wait).rpartition(keeper.HELLO.encode())
            if mark:
                found: Mapping[str, Any] = json.loads(said)
                return found

    def beat(self) -> None:
        """Say that this side lives, now and then, until :meth:`close`."""

        def say() -> None:
            while not self._over.wait(BEAT_S):
                with self._turn, contextlib.suppress(DeviceError):
                    self._write(b"\n")

        threading.Thread(target=say, name=f"{self._name} beat", daemon=True).start()

    def close(self) -> None:
        """Stop the signs of life."""
        self._over.set()

    def ask(self, command: str, timeout: float = STALL_S, **arguments: Any) -> Mapping[str, Any]:
        """Send a command and read its answer."""
        with self._turn:
            return self._ask(command, timeout, **arguments)

    def receive(self, file: IO[bytes], size: int, name: str) -> Mapping[str, Any]:
        """Send a file; the answer has ``path`` and ``sha256`` of what arrived, or ``full`` and ``free``."""
        with self._turn:
            ready = self._ask("receive", STALL_S, name=name, size=size)
            if "path" not in ready:
                return ready
            while size:
                piece = file.read(min(size, keeper.CHUNK))
                if not piece:  # it shrank; the promised size is kept, and the checksum tells
                    piece = b"\0" * min(size, keeper.CHUNK)
                self._write(piece)
                size -= len(piece)
            return {**ready, **self._answer(STALL_S)}

    def send(self, path: str, file: IO[bytes]) -> Mapping[str, Any]:
        """Read a file of the device."""
        with self._turn:
            found = self._ask("send", STALL_S, path=path)
            left = int(found.get("size", 0))
            while left:
                piece, self._rest = self._rest[:left], self._rest[left:]
                piece = piece or self._read(_Wait(STALL_S, self._name), left)
                file.write(piece)
                left -= len(piece)
            return found

    def _ask(self, command: str, timeout: float, **arguments: Any) -> Mapping[str, Any]:
        self._write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        return self._answer(timeout)

    def _answer(self, timeout: float) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(self._line(_Wait(timeout, self._name)))
        return found

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            wait = _Wait(STALL_S, self._name)
            if not select.select([], [self._in], [], wait.left())[1]:
                raise wait.over()
            try:
                view = view[os.write(self._in, view) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._gone() from None

    def _line(self, wait: _Wait) -> bytes:
        while b"\n" not in self._rest:
            self._rest += self._read(wait, keeper.CHUNK)
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _read(self, wait: _Wait, size: int) -> bytes:
        if not select.select([self._out], [], [], wait.left())[0]:
            raise wait.over()
        piece = os.read(self._out, min(size, keeper.CHUNK))
        if not piece:
            raise self._gone()
        return piece


class _Wait:
    """The seconds that a device has for an answer, from now on."""

    def __init__(self, seconds: float, name: str) -> None:
        self._seconds, self._name, self._end = seconds, name, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left."""
        return max(0.0, self._end - time.monotonic())

    def over(self) -> LostError:
        """Say that the time is over."""
        return LostError(
            f"{self._name} did not answer within {self._seconds:g} s",
            f"see whether the link is slow (round trips of up to {ROUND_TRIP_S:.0f} s are supported), whether the board is "
            "busy, and whether its disk or memory is full",
        )
