"""The machine edgekd runs on, as a device: processes are local."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Self

from edgekd.errors import DeviceError
from edgekd.profiling.transports.base import Completed


class Host:
    """Transport to this machine."""

    reached = True

    def __enter__(self) -> Self:
        """Make the folder."""
        self._folder = TemporaryDirectory(prefix="edgekd-")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove the folder."""
        self._folder.cleanup()

    def put(self, path: Path) -> str:
        """The file is already here."""
        return str(path.resolve())

    def write(self, name: str, data: bytes) -> str:
        """Write the file into the folder."""
        path = Path(self._folder.name) / name
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
            done = subprocess.run(
                argv, input=stdin, capture_output=True, timeout=timeout, env=_environment(env), check=False
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{argv[0]} did not end within {timeout:.0f} s") from None
        except OSError as error:
            raise DeviceError(f"{argv[0]} does not start: {error.strerror}") from error
        return Completed(done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout, done.stderr)

    def spawn(
        self, argv: Sequence[str], *, noise: IO[bytes], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own: Ctrl-C reaches edgekd alone, which then ends its agents."""
        try:
            return subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise,
                env=_environment(env), start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise DeviceError(f"{argv[0]} does not start: {error.strerror}") from error

    def lost(self, code: int, noise: str) -> str:
        """This machine is always reached."""
        return ""


def _environment(more: Mapping[str, str] | None) -> dict[str, str] | None:
    return {**os.environ, **more} if more else None
