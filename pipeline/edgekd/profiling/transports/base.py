"""The transport protocol: how files and processes get to a device.

A new kind of device is one module with one :class:`Transport`, registered: ``@transports.register("name")``; a third party's
comes from the entry-point group ``edgekd.transports``. It is made with a ``Device``. What it starts are local processes
(``ssh board python3 …``), so that the code that talks to them is the same for all.
"""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from pydantic import BaseModel

from edgekd.errors import DeviceError, LostError
from edgekd.profiling.transports.local import Local

MEASURING = ("folder", "python", "agent", "benchmark_model", "benchmark_options")
"""Keys of a device's file for those who measure there: of every transport but this machine's."""


@dataclass(frozen=True)
class Completed:
    """A process that ran to its end on the device; ``code`` is 128 + the number of a signal that ended it."""

    code: int
    out: bytes
    err: bytes


class OursError(DeviceError):
    """Only this process holds the device, by another way to it: two files may describe one board."""


def this_process() -> str:
    """Name this process, for others who find a device locked: user, machine and number."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


class Transport(Protocol):
    """An open way to one device, with a folder there that is removed with it.

    A context manager: it connects, locks the device against other sessions, and cleans up whatever happens. Once the device
    is reached, a connection that ends is a :class:`LostError` of whatever is asked then.
    """

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of a device's file that it reads, of ``devices.schema.OF_SOME``; another one that is given is refused."""
        ...

    @property
    def options(self) -> type[BaseModel] | None:
        """The model of ``options:`` in a device's file, which they are held against; None where it has none."""
        ...

    @property
    def local(self) -> Local:
        """Its local processes: stopping them ends the session from another thread, wherever it is."""
        ...

    @property
    def reached(self) -> bool:
        """True if the device has taken the connection, however slow it is from there on."""
        ...

    def __enter__(self) -> Self:
        """Connect, lock the device and make the folder.

        Raises:
            OursError: It is locked by another way of this process.
            DeviceError: The device does not answer, refuses, is locked by another session, or has no room.
        """
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End what was started there, remove the folder, unlock the device."""
        ...

    def put(self, path: Path) -> str:
        """Bring a file, with the others of its model, to the device and return its path there.

        What arrives is compared with what was sent; the same file is sent once.

        Raises:
            DeviceError: The device does not answer or has no room, or the file arrived damaged.
        """
        ...

    def write(self, name: str, data: bytes) -> str:
        """Make a file called ``name`` in the folder on the device and return its path there.

        Raises:
            DeviceError: The device does not answer or has no room.
        """
        ...

    def get(self, remote: str, path: Path) -> None:
        """Bring a file of the device here.

        Raises:
            DeviceError: The device does not answer, or there is no such file.
        """
        ...

    def run(
        self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> Completed:
        """Run a program on the device to its end.

        Args:
            argv: Program and arguments, each as it is: no shell of the device reads anything into them.
            timeout: Seconds after which it is ended.
            env: Variables to set for it.
            stdin: What it reads.

        Raises:
            DeviceError: The device does not answer, or the time is over.
        """
        ...

    def spawn(
        self, argv: Sequence[str], *, noise: IO[bytes], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on the device with its stdin and stdout joined to a local process.

        Args:
            argv: Program and arguments, as in :meth:`run`.
            noise: File that its stderr goes to.
            env: Variables to set for it.

        Raises:
            DeviceError: The device does not answer.
        """
        ...

    def lost(self, code: int, noise: str) -> LostError | None:
        """Return the error of a connection that ended, from the exit code of what :meth:`spawn` started and what it printed.

        None where it did not end: the program on the device ended by itself.
        """
        ...
