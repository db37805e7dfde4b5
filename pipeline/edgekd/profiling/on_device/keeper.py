"""Keeper of one session on a device: its lock, its folder, its files, and the end of what it started.

On the machine of edgekd itself :func:`guard` is all there is of it.

It stands alone in one file (standard library; Python 3.8 or later). ``transports/ssh.py`` sends its text over the connection
that the session lives by, so that the end of the connection, for whatever reason, is the end of its stdin, and then of all
that the session left on the device.

It reads one JSON object a line on stdin, such as ``{"command": "end", "mark": "3"}``, and answers with one JSON object a
line on stdout. The bytes of a file follow the answer to ``receive`` and the answer of ``send``. An empty line says that
the other side still lives.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELLO = "edgekd-keeper "
"""Before the first answer: a login shell may print before it."""
LOCK = Path("/tmp/edgekd.lock")
"""One for all users of the device."""
PREFIX = "edgekd-session-"
MARK = "EDGEKD_SESSION"
"""Variable in the environment of all that a session starts: ``FOLDER.NUMBER.``, as no process forgets its environment."""
SILENCE_S = 90.0
"""Seconds without a sign of the other side, after which the connection counts as cut."""
LOCK_S = 3.0
"""Seconds to wait for the lock: the session before may be cleaning up."""
END_S = 10.0
"""Seconds that killed processes may take to be gone."""
CHUNK = 1 << 16


class Keeper:
    """The commands.

    Args:
        folder: Of the session.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._rest = folder, b""

    def serve(self) -> None:
        """Answer until stdin ends or falls silent."""
        while True:
            line = self._line()
            if not line.strip():
                continue
            request = json.loads(line)
            command = request.pop("command")
            try:
                getattr(self, command)(**request)
            except OSError as error:
                answer({"error": error.strerror or str(error)})

    def receive(self, name: str, size: int) -> None:
        """Make a file of the bytes that follow and answer with the sha256 of what is on the disk then."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        problem = None
        with path.open("wb") as file:
            try:
                if size:  # the room is taken before the bytes are sent
                    os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    file.truncate(0)
                    answer({"full": True, "free": free(self.folder)})
                    return
            answer({"path": str(path)})
            for piece in self._exactly(size):
                try:
                    file.write(piece)
                except OSError as error:  # the rest is read all the same: it is no command
                    problem = error
            if problem is None:
                file.flush()
                os.fsync(file.fileno())
        if problem is not None:
            raise problem
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for piece in iter(lambda: file.read(CHUNK), b""):
                digest.update(piece)
        answer({"sha256": digest.hexdigest()})

    def send(self, path: str) -> None:
        """Answer with the size of a file, then its bytes."""
        with (self.folder / path).open("rb") as file:
            left = os.fstat(file.fileno()).st_size
            answer({"size": left})
            while left:
                piece = file.read(min(left, CHUNK)) or b"\0" * min(left, CHUNK)  # it was cut; the size was promised
                sys.stdout.buffer.write(piece)
                left -= len(piece)
        sys.stdout.buffer.flush()

    def end(self, mark: str) -> None:
        """End what was started under a number; answers whether all of it is gone."""
        answer({"gone": end(f"{self.folder.name}.{mark}.")})

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            self._rest += self._read(CHUNK)
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            piece, self._rest = self._rest[:size], self._rest[size:]
            piece = piece or self._read(min(size, CHUNK))
            size -= len(piece)
            yield piece

    def _read(self, size: int) -> bytes:
        if not select.select([0], [], [], SILENCE_S)[0]:
            raise EOFError
        piece = os.read(0, size)
        if not piece:
            raise EOFError
        return piece


def answer(found: Any) -> None:
    """Send an answer."""
    sys.stdout.buffer.write(json.dumps(found).encode() + b"\n")
    sys.stdout.buffer.flush()


def free(folder: Path) -> int:
    """Bytes that this user may still write where a folder is."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


def end(mark: str) -> bool:
    """Kill all processes whose mark begins so; tells whether they are gone."""
    limit = time.monotonic() + END_S
    while True:
        found = marked(mark)
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not found or time.monotonic() > limit:
            return not found
        time.sleep(0.02)


def marked(mark: str) -> list[int]:
    """Process ids of all living processes whose mark begins so."""
    found, wanted = [], f"\0{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in b"\0" + (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def lock(who: str) -> tuple[int, str]:
    """Take the device; returns the open lock and an empty text, or -1 and who has it.

    /tmp is sticky: with ``fs.protected_regular`` a file of another user there cannot even be opened with O_CREAT.
    """
    limit = time.monotonic() + LOCK_S
    how = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        try:
            handle = os.open(LOCK, how)
        except FileNotFoundError:
            try:
                handle = os.open(LOCK, how | os.O_CREAT | os.O_EXCL)
                os.fchmod(handle, 0o666)  # whatever the umask says: others must be able to lock it
            except FileExistsError:
                continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 1000).decode(errors="replace")
            os.close(handle)
            if time.monotonic() > limit:
                return -1, holder or "another session"
            time.sleep(0.1)
            continue
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), LOCK.stat()):  # not one that its holder has just removed
                os.ftruncate(handle, 0)
                os.write(handle, who.encode())
                return handle, ""
        os.close(handle)


def sweep(base: Path) -> None:
    """Remove what sessions left behind that ended without their keeper (a reboot, the keeper killed)."""
    for folder in base.glob(PREFIX + "*"):
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            continue
        try:  # several boards may have one home on a network: a living keeper holds its folder
            with (folder / "keeper").open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:  # a folder without it is no whole session
            pass
        end(folder.name + ".")
        shutil.rmtree(folder, ignore_errors=True)


def maps(folder: Path) -> None:
    """Remove lists of compiled functions that runtimes of this session have left in /tmp, each under its process's number.

    One that is older than the session is of another process, which had the number before.
    """
    began = (folder / "keeper").stat().st_mtime
    for mark in folder.glob("process-*"):
        path = Path("/tmp") / f"perf-{mark.name.rpartition('-')[2]}.map"
        with contextlib.suppress(OSError):
            found = path.lstat()
            if found.st_uid == os.getuid() and found.st_mtime >= began:
                path.unlink()


def make(base: Path) -> tuple[Path, int]:
    """Make the folder of a session and hold it; returns it and what holds it."""
    base.mkdir(parents=True, exist_ok=True)
    sweep(base)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    handle = os.open(folder / "keeper", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return folder, handle


def main(folder: str, who: str) -> None:
    """Take the device, make the folder, serve, and leave nothing behind.

    Args:
        folder: Where to make it; empty for the user's cache folder.
        who: Says who has the device, to others who ask for it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.buffer.write(HELLO.encode())
    try:
        handle, holder = lock(who)
    except OSError as error:
        answer({"error": f"{LOCK}: {error.strerror}"})
        return
    if handle < 0:
        answer({"busy": holder})
        return
    base = Path(folder or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute()
    missing = [path for path in (base, *base.parents) if not path.exists()]
    made = None
    try:
        made, _ = make(base)
        answer({"folder": str(made), "free": free(made)})
        with contextlib.suppress(EOFError, OSError):
            Keeper(made).serve()
    except OSError as error:
        answer({"error": f"{error.filename or base}: {error.strerror}"})
    finally:
        if made:
            end(made.name + ".")
            with contextlib.suppress(OSError):
                maps(made)
            shutil.rmtree(made, ignore_errors=True)
        for path in missing:
            with contextlib.suppress(OSError):  # another has put something there
                path.rmdir()
        with contextlib.suppress(OSError):
            LOCK.unlink()  # before it is let go; another user's file stays, and does no harm


def guard(folder: str) -> None:
    """Wait until stdin ends, then leave nothing behind: the keeper of the machine that edgekd itself runs on."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    (Path(folder) / "keeper").touch()
    while os.read(0, CHUNK):
        pass
    end(f"{Path(folder).name}.")
    with contextlib.suppress(OSError):
        maps(Path(folder))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    (main if len(sys.argv) > 2 else guard)(*sys.argv[1:])
