"""The local processes of a transport, which another thread can end all at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from edgekd.errors import DeviceError

P = TypeVar("P", bound="subprocess.Popen[bytes]")


class Local:
    """Starts local processes and knows those that run.

    A thread that waits for an answer waits for one of them: :meth:`stop` wakes it, whatever it asked.
    """

    def __init__(self) -> None:
        self._lock, self._live, self._stopped = threading.Lock(), list[subprocess.Popen[bytes]](), False

    def start(self, kind: type[P], argv: Sequence[str], **options: Any) -> P:
        """Start a process in a session of its own: Ctrl-C reaches edgekd alone, which then ends what it has started.

        Args:
            kind: ``subprocess.Popen``, or a class made of it.
            argv: Program and arguments.
            options: Of ``Popen``.

        Raises:
            DeviceError: All were stopped.
            OSError: The program does not start.
        """
        with self._lock:
            self.check()
            process = kind(argv, start_new_session=True, **options)
            self._live = [*(one for one in self._live if one.poll() is None), process]
            return process

    def run(
        self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a process to its end, as ``subprocess.run`` does.

        Raises:
            DeviceError: All were stopped.
            OSError: The program does not start.
            subprocess.TimeoutExpired: It did not end in time, and was ended.
        """
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(subprocess.Popen, argv, **pipes, env=env) as process:
            try:
                out, err = process.communicate(stdin, timeout)
            finally:
                process.kill()
        self.check()
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def stop(self) -> None:
        """End all processes, with what they started in their session; from now on none starts."""
        with self._lock:
            self._stopped = True
            for process in self._live:
                if process.poll() is None:
                    with contextlib.suppress(OSError):  # it ended meanwhile
                        os.killpg(process.pid, signal.SIGKILL)

    def check(self) -> None:
        """Refuse to go on after :meth:`stop`: a process that was killed here has no result.

        Raises:
            DeviceError: All were stopped.
        """
        if self._stopped:
            raise DeviceError("interrupted")
