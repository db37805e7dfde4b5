"""A Linux board over the system's OpenSSH client.

One connection lives as long as the session. It carries the keeper (``on_device/keeper.py``), which has the device's lock and
the session's folder, takes and gives files, and ends what still runs when the connection ends. Programs share that
connection (ControlMaster), each as a local ``ssh`` of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, LostError
from edgekd.profiling.transports import openssh
from edgekd.profiling.transports.base import MEASURING, Completed, OursError, this_process
from edgekd.profiling.transports.keeping import Keeping, program
from edgekd.profiling.transports.local import Local
from edgekd.registry import transports
from edgekd.runtimes import base

HELLO_S = 30.0
"""Seconds from the connection's start to the keeper's first word; OpenSSH gives up connecting long before."""
BEGIN_S = 30.0
"""Seconds that a program may take to start on the device."""
CLEAN_S = 20.0
"""Seconds that the keeper gets to clean up."""
NOTICE_S = 2.0
"""Seconds until the end of the shared connection is noticed, after a program on it ended with ssh's own exit code."""
FAILED = 255
"""ssh's exit code when it, not the program on the device, failed."""
OLD = 96
"""Exit code of an interpreter that is too old."""

_BOOT = (
    f"import os, sys\nif sys.version_info < (3, 8): sys.exit({OLD})\ntext, size = b'', int(sys.argv.pop(1))\n"
    "while len(text) < size: text += os.read(0, size - len(text)) or sys.exit(1)\n"
    "exec(compile(text, 'edgekd-keeper', 'exec'))"
)
_KEEPER = (
    'boot=$1 size=$2 folder=$3 who=$4; shift 4; for python in "$@"; do '
    f'"$python" -c "$boot" "$size" "$folder" "$who"; code=$?; case $code in {OLD}|126|127) ;; *) exit $code ;; esac; '
    "done; exit 127"
)
# A shell stays between, so that a signal comes back as 128 + its number. Out of memory, the kernel is to choose the program,
# not what the board lives by.
_PROGRAM = (
    'cd -- "$1" || exit; begin=$2; shift 2; (echo 500 >/proc/self/oom_score_adj) 2>/dev/null; '
    'command -v "$1" >/dev/null || { echo "$begin-"; exit 127; }; echo "$begin+"; "$@"; exit $?'
)


class Remote(subprocess.Popen[bytes]):
    """A program on the device, by its local ``ssh``; killing it ends it there too, with all that it started."""

    end: Callable[[], None]

    def kill(self) -> None:
        """End it on the device, then here."""
        if self.poll() is None:
            with contextlib.suppress(DeviceError):  # without the connection the keeper ends it by itself
                self.end()
        super().kill()


@transports.register("ssh")
class Ssh:
    """Transport to a board.

    Args:
        device: The device.
    """

    keys = ("host", "port", *MEASURING)
    options = None
    local: Local

    def __init__(self, device: Device) -> None:
        self._device, self.local = device, Local()
        self._where = f"{device.name} ({device.host})"
        self._pythons = list(dict.fromkeys([*device.python, "python3"]))
        self._begin = secrets.token_hex(8)
        self._sent: dict[tuple[str, ...], str] = {}
        self._folder, self._count, self._control = "", 0, ""

    @property
    def reached(self) -> bool:
        """True if OpenSSH has opened the connection that the programs share."""
        return bool(self._control) and Path(self._control).exists()

    def __enter__(self) -> Self:
        """Connect, lock the device and make the folder."""
        with contextlib.ExitStack() as stack:
            self._control = stack.enter_context(_short_folder()) + "/control"
            self._said = stack.enter_context(tempfile.TemporaryFile())
            self._connect(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the connection: the keeper ends the programs, removes the folder and unlocks the device."""
        self._open.close()

    def put(self, path: Path) -> str:
        """Send a file once; it arrives under a name that every runtime can read."""
        parts = [*base.files(path)]
        parts = [part for part in parts if part == path or part.exists()]
        try:
            key = (path.suffix, *(_sha256(part) for part in parts))
            if key not in self._sent:
                self._count += 1
                stem = f"{self._count}/{re.sub(r'[^A-Za-z0-9_-]+', '_', path.stem)[:60] or 'file'}"
                names = [stem + re.sub(r"[^A-Za-z0-9_.-]", "_", part.suffix) for part in parts]
                found = [self._send(part, name, sha) for part, name, sha in zip(parts, names, key[1:], strict=True)]
                self._sent[key] = found[0]
        except OSError as problem:
            raise DeviceError(f"{problem.filename or path} cannot be read: {problem.strerror}") from problem
        return self._sent[key]

    def write(self, name: str, data: bytes) -> str:
        """Make a file in the session's folder."""
        return self._receive(BytesIO(data), len(data), name, name, hashlib.sha256(data).hexdigest())

    def get(self, remote: str, path: Path) -> None:
        """Bring a file of the device here; a relative path is in the session's folder."""
        try:
            with path.open("wb") as file:
                found = self._keeping.send(remote, file)
        except OSError as problem:
            raise DeviceError(f"{path} cannot be written: {problem.strerror}") from problem
        if "error" in found:
            path.unlink()
            raise DeviceError(f"{remote} on {self._where} cannot be read: {found['error']}")

    def run(
        self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> Completed:
        """Run a program to its end."""
        with tempfile.TemporaryFile() as noise:
            process = self.spawn(argv, noise=noise, env=env)
            try:
                out, _ = process.communicate(stdin, timeout)
            except subprocess.TimeoutExpired:
                raise DeviceError(f"{argv[0]} did not end within {timeout:.0f} s on {self._where}; it was ended") from None
            finally:
                process.kill()
                process.communicate()
            noise.seek(0)
            err = noise.read()
        self.local.check()
        if lost := self.lost(process.returncode, err.decode(errors="replace")):
            raise LostError(f"{lost.message} while {argv[0]} ran", lost.hint)
        return Completed(process.returncode, out, err)

    def spawn(
        self, argv: Sequence[str], *, noise: IO[bytes], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in the session's folder, and wait until it has begun."""
        if self._master.poll() is not None:
            raise self._gone()
        self._count += 1
        mark = str(self._count)
        # TMPDIR: what a killed program leaves behind goes with the folder.
        ours = {"EDGEKD_SESSION": f"{Path(self._folder).name}.{mark}.", "TMPDIR": self._folder}
        values = [f"{name}={value}" for name, value in {**self._device.env, **(env or {}), **ours}.items()]
        words = ["env", *values, "sh", "-c", _PROGRAM, "sh", self._folder, self._begin, *argv]
        here = [*openssh.command(self._device, self._control, master=False), "exec " + openssh.quoted(words)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": noise}
        process = self.local.start(Remote, here, **pipes)
        process.end = lambda: self._end(mark, argv[0])
        try:
            self._await(process, argv[0], noise)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return process

    def lost(self, code: int, noise: str) -> LostError | None:
        """Return the error of a connection that ended, unless it still stands."""
        if code != FAILED:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):  # a program may end with 255 of its own accord
            self._master.wait(NOTICE_S)
            return self._ended()
        return None

    def _connect(self, stack: contextlib.ExitStack) -> None:
        text = program()
        words = ["sh", "-c", _KEEPER, "sh", _BOOT, str(len(text)), self._device.folder or "", _who(), *self._pythons]
        try:
            argv = [*openssh.command(self._device, self._control, master=True), "exec " + openssh.quoted(words)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._said}
            self._master = self.local.start(subprocess.Popen, argv, **pipes)
        except FileNotFoundError:
            raise DeviceError(
                "there is no OpenSSH client here", "install it, such as: sudo apt install openssh-client"
            ) from None
        stack.callback(self._disconnect)
        self._keeping = Keeping(self._master, self._where, self._gone)
        stack.callback(self._keeping.close)
        found = self._keeping.hello(text, HELLO_S)
        file = f"{self._device.name}.yaml"
        if str(found.get("busy", "")).startswith(this_process()):
            raise OursError(f"{self._where} is in use by this edgekd, for another device's file: they are one board")
        if "busy" in found:
            raise DeviceError(f"{self._where} is in use by {found['busy']}", "run again when that session has ended")
        if "error" in found:
            hint = f"write a folder that you may write to into {file}, such as folder: /home/pi/edgekd"
            raise DeviceError(f"{self._where}: the session's folder cannot be made: {found['error']}", hint)
        self._folder = str(found["folder"])
        self._keeping.beat()

    def _disconnect(self) -> None:
        assert self._master.stdin  # opened as a pipe
        assert self._master.stdout  # opened as a pipe
        with contextlib.suppress(OSError):
            self._master.stdin.close()
        if not self._folder:  # a keeper that has not answered cleans up by itself
            self._master.kill()
        # The keeper's end is seen here; programs that outlive it hold the connection.
        end = time.monotonic() + CLEAN_S
        while select.select([self._master.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            if not os.read(self._master.stdout.fileno(), 1 << 16):
                break
        try:
            self._master.wait(NOTICE_S)
        except subprocess.TimeoutExpired:
            self._master.kill()
            self._master.wait()
        self._master.stdout.close()

    def _gone(self) -> DeviceError:
        """The error for a connection that has ended, or that was not made."""
        if self._folder:
            return self._ended()
        code, said, last = self._last_words()
        if code == FAILED:
            return openssh.refusal(self._device, said)
        if code == 127:
            return DeviceError(
                f"{self._where} has no Python 3.8 or later: tried {', '.join(self._pythons)}",
                "install it there, such as: sudo apt install python3   or name one that is there, "
                f"such as python: [/home/pi/venv/bin/python] in {self._device.name}.yaml",
            )
        hint = f"this must work without a question: {openssh.by_hand(self._device)} {self._pythons[0]} -V"
        return DeviceError(f"{self._where} accepts the connection, but runs nothing (exit code {code}): {last}", hint)

    def _ended(self) -> LostError:
        """The error for a connection that has ended."""
        code, _, last = self._last_words()
        # OpenSSH says why it lost a connection; a signal that ended the keeper comes as the same code, without a word.
        if code == FAILED:
            reason = last or "edgekd's helper program there was killed"
        else:
            reason = f"edgekd's helper program there ended: {last or f'exit code {code}'}"
        return LostError(f"the connection to {self._where} ended: {reason}", "run again when the device is back")

    def _last_words(self) -> tuple[int | None, str, str]:
        """Exit code of the connection, all that it printed, and the last line of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._master.wait(NOTICE_S)
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")
        last = next((line.strip(" .") for line in reversed(said.split("\n")) if line.strip()), "").strip()
        return self._master.poll(), said, last

    def _send(self, path: Path, name: str, sha: str) -> str:
        with path.open("rb") as file:
            return self._receive(file, os.fstat(file.fileno()).st_size, name, str(path), sha)

    def _receive(self, file: IO[bytes], size: int, name: str, label: str, sha: str) -> str:
        found = self._keeping.receive(file, size, name)
        if "full" in found:
            raise DeviceError(
                f"{self._where} has no room for {label}: it needs {_mib(size)}, {_mib(found['free'])} are free "
                f"in {self._folder}",
                f"make room there, or choose another folder with folder: in {self._device.name}.yaml",
            )
        if "error" in found:
            raise DeviceError(f"{label} could not be written on {self._where}: {found['error']}")
        if found["sha256"] != sha:
            raise DeviceError(
                f"{label} arrived damaged on {self._where}: sha256 {found['sha256'][:12]}, not {sha[:12]}",
                "check the device's disk or SD card, and whether the file was written to meanwhile",
            )
        return str(found["path"])

    def _end(self, mark: str, what: str) -> None:
        if not self._keeping.ask("end", mark=mark)["gone"]:
            raise DeviceError(f"{what} on {self._where} cannot be ended; restart the device")

    def _await(self, process: Remote, what: str, noise: IO[bytes]) -> None:
        """Read past what a login shell prints, to the line that says that the program begins."""
        assert process.stdout  # opened as a pipe
        handle, end, said = process.stdout.fileno(), time.monotonic() + BEGIN_S, b""
        begin = self._begin.encode()
        while not said.endswith((begin + b"+\n", begin + b"-\n")):
            if not select.select([handle], [], [], max(0.0, end - time.monotonic()))[0]:
                raise LostError(f"{what} did not start within {BEGIN_S:.0f} s on {self._where}")
            piece = os.read(handle, 1)  # what follows is the program's
            if not piece:
                code = process.wait()
                noise.seek(0)
                words = noise.read().decode(errors="replace")
                last = words.strip().rpartition("\n")[2] or f"exit code {code}"
                raise self.lost(code, words) or DeviceError(f"{what} does not start on {self._where}: {last}")
            said += piece
        if self._master.poll() is not None:  # it broke meanwhile, and OpenSSH made another, which nobody cleans up after
            raise self._gone()
        if said.endswith(b"-\n"):
            process.communicate()
            raise DeviceError(f"{what} does not start on {self._where}: it is not there")


def _short_folder() -> tempfile.TemporaryDirectory[str]:
    """A private folder for the control socket, whose path must be short."""
    for parent in (None, "/tmp"):
        folder: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="edgekd-ssh-", dir=parent)
        if len(os.fsencode(folder.name)) <= openssh.FOLDER_MAX:
            return folder
        folder.cleanup()
    raise DeviceError("no folder has a path that is short enough for OpenSSH's control socket", "set TMPDIR to a short path")


def _who() -> str:
    """This session, for others who find the device locked."""
    return f"{this_process()} since {time.strftime('%Y-%m-%d %H:%M')}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
