"""The machine edgekd runs on, as a device: processes are local.

A guard (``on_device/keeper.py``) ends what the session left and removes its folder, also after a SIGKILL of edgekd: an agent
inside a runtime would not see the end of its stdin.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling.on_device import keeper
from edgekd.profiling.transports.base import Completed
from edgekd.profiling.transports.local import Local
from edgekd.registry import transports


@transports.register("host")
class Host:
    """Transport to this machine.

    Args:
        device: The device; its file says nothing of the way.
    """

    keys: tuple[str, ...] = ()
    options = None

    reached = True

    def __init__(self, device: Device | None = None) -> None:
        del device

    @cached_property
    def local(self) -> Local:
        """The processes of the session, without its guard."""
        return Local()

    def __enter__(self) -> Self:
        """Make the folder."""
        self._folder = tempfile.mkdtemp(prefix="edgekd-")
        guard = [sys.executable, "-I", "-S", keeper.__file__, self._folder]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._guard = Local().start(subprocess.Popen, guard, **pipes)  # it outlives the others
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let the guard end what is left and remove the folder."""
        self._guard.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)  # of a guard that was killed

    def put(self, path: Path) -> str:
        """The file is already here."""
        return str(path.resolve())

    def write(self, name: str, data: bytes) -> str:
        """Write the file into the folder."""
        path = Path(self._folder) / name
        path.write_bytes(data)
        return str(path)

    def get(self, remote: str, path: Path) -> None:
        """Copy the file."""
        try:
            shutil.copyfile(remote, path)
        except OSError as error:
            raise DeviceError(f"{remote} cannot be copied: {error.strerror}") from error

    def run(
        self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> Completed:
        """Run a program to its end."""
        try:
            done = self.local.run(argv, timeout=timeout, stdin=stdin, env=self._environment(env))
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{argv[0]} did not end within {timeout:.0f} s") from None
        except OSError as error:
            raise DeviceError(f"{argv[0]} does not start: {error.strerror}") from error
        return Completed(done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout, done.stderr)

    def spawn(
        self, argv: Sequence[str], *, noise: IO[bytes], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": noise}
        try:
            return self.local.start(subprocess.Popen, argv, **pipes, env=self._environment(env))
        except OSError as error:
            raise DeviceError(f"{argv[0]} does not start: {error.strerror}") from error

    def lost(self, code: int, noise: str) -> None:
        """This machine is always reached."""

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        """The variables of a program; the guard knows it by its mark, and what it leaves in TMPDIR goes with the folder."""
        mark = f"{Path(self._folder).name}."
        return {**os.environ, **(more or {}), keeper.MARK: mark, "TMPDIR": self._folder}
