"""A phone over the user's adb client.

adb joins its arguments into one line for the phone's shell: every word is quoted here. Each program runs behind a few lines
of that shell, which note its process and group (to end them when its time is over) and its exit code (older clients return
0 when the connection is cut). One more shell, the keeper, is open as long as the session is: it holds the lock on the phone,
and when its connection ends, however it ends, it ends what runs and removes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import re
import secrets
import selectors
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from edgekd import cache
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, LostError
from edgekd.profiling.transports import phones
from edgekd.profiling.transports.base import MEASURING, Completed, OursError, this_process
from edgekd.profiling.transports.local import Local
from edgekd.reads import file_sha256
from edgekd.registry import transports
from edgekd.runtimes import base

FOLDER = "/data/local/tmp"
"""The folder of Android in which the user of adb may write and run programs."""
SLOWEST = 1 << 20
"""Bytes a second that a push moves at least; a slower one is ended."""
_AGAIN = "see adb devices: plug it in again and start again"
_LOCK = "edgekd.lock"
# $1 the folder of all sessions, $2 the session's folder in it, $3 who keeps it. A lock is alive while the process that it
# names works in a session's folder.
_KEEPER = f"""
mkdir -p "$1" && cd "$1" || {{ echo "no $1 cannot be made"; exit 1; }}
stop() {{
  for f in "$1"/*.pid; do
    read -r p g <"$f" && [ "$(readlink "/proc/$p/cwd")" = "$(pwd -P)/$1" ] && {{ kill -9 "-$g" || kill -9 "$p"; }}
  done 2>/dev/null
  rm -rf "$1"
}}
held=$(readlink {_LOCK})
if [ -n "$held" ]; then
  case $(readlink "/proc/$held/cwd") in */edgekd-*) echo "busy $(cat "/proc/$held/cwd/keeper")"; exit 1;; esac
  rm -f {_LOCK}
fi
for d in edgekd-*/; do [ -d "$d" ] && stop "${{d%/}}"; done
mkdir "$2" && cd "$2" && printf '%s' "$3" >keeper || {{ echo "no $1/$2 cannot be made"; rm -rf "$1/$2"; exit 1; }}
ln -s $$ ../{_LOCK} || {{ echo "busy another session that began in the same moment"; cd ..; rm -rf "$2"; exit 1; }}
trap : HUP INT TERM PIPE
echo ready
while read -r line && [ "$line" != end ]; do :; done
cd .. && stop "$2"
rm -f {_LOCK}
echo gone
"""
# $1 the folder, $2 the number of the program in it; the program follows.
_RUN = """
cd "$1" || exit 125
n=$2; shift 2
{ "$@" <&3 3<&- & } 3<&0
p=$!
echo "$p $$" >"$n.pid"
trap 'kill -9 "-$$" || kill -9 "$p"' HUP INT TERM
wait "$p"; c=$?
rm -f "$n.pid"
"""
_SUMS = 'sha256sum <"$1" || toybox sha256sum <"$1" || md5sum <"$1"'


@transports.register("adb")
class Adb:
    """Transport to a phone.

    Args:
        device: Its file; ``serial`` names the phone, ``folder`` where to work on it.
    """

    keys = ("serial", *MEASURING)
    options = None
    local: Local
    reached: bool

    def __init__(self, device: Device) -> None:
        self._device, self.local = device, Local()
        self._base = (device.folder or FOLDER).rstrip("/") or "/"
        self._sent: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self.reached = False

    def __enter__(self) -> Self:
        """Find the phone, lock it and make the folder."""
        with ExitStack() as stack:
            program = phones.client()
            self._phone = phones.choose(program, self._device.serial, self._device.name, self.local)
            self._adb = [program, "-s", self._phone.serial]
            self.reached = True
            stack.enter_context(_locked(self._phone.serial))
            features = phones.ask([*self._adb, "features"], local=self.local)
            self._shell = "shell_v2" in features.stdout.decode(errors="replace").split()
            self._token = secrets.token_hex(6)
            self._folder = f"{self._base.rstrip('/')}/edgekd-{self._token}"
            self._keeper: subprocess.Popen[bytes] | None = None
            if self._shell:
                self._keep(stack)
            else:
                self._make(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End what runs, remove the folder, unlock the phone."""
        self._stack.close()

    def put(self, path: Path) -> str:
        """Push a file, compared by its checksum; the same bytes are pushed once."""
        parts = base.files(path)
        try:
            key = "-".join(file_sha256(part.resolve()) for part in parts)
        except OSError as error:
            raise DeviceError(f"{path} cannot be read: {error.strerror}") from error
        if key not in self._sent:
            name = f"file{len(self._sent) + 1}"
            # A name made here: adb and the programs there need not take every name that a file can have.
            for part in parts:
                self._push(part, f"{self._folder}/{name}{re.sub('[^a-zA-Z0-9.]', '', part.suffix)}")
            self._sent[key] = f"{self._folder}/{name}{re.sub('[^a-zA-Z0-9.]', '', path.suffix)}"
        return self._sent[key]

    def write(self, name: str, data: bytes) -> str:
        """Push a file that is made here."""
        remote = f"{self._folder}/{name}"
        with tempfile.NamedTemporaryFile(prefix="edgekd-") as file:
            file.write(data)
            file.flush()
            self._push(Path(file.name), remote)
        return remote

    def get(self, remote: str, path: Path) -> None:
        """Pull a file."""
        done = phones.ask([*self._adb, "pull", remote, str(path.absolute())], timeout=600, local=self.local)
        if done.returncode:
            raise self._error(f"{remote} cannot be copied from the phone", phones.told(done))

    def run(
        self, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> Completed:
        """Run a program to its end; when its time is over it is ended on the phone."""
        number = next(self._numbers)
        mark = f"edgekd {self._token} {number}:"
        # On stderr, which is joined to stdout where the phone's shell is of before Android 7.
        end = f"printf '\\n%s%s\\n' {shlex.quote(mark)} \"$c\""
        line = _line(f"{_RUN}{end} >&2" if self._shell else _RUN + end, self._folder, str(number), *_with(env, argv))
        way = ["shell", "-T"] if self._shell else ["exec-out"]
        try:
            done = self.local.run([*self._adb, *way, line], timeout=timeout, stdin=stdin)
        except subprocess.TimeoutExpired:
            self._end(number)
            raise DeviceError(f"{self._name}: {argv[0]} did not end within {timeout:.0f} s; it was ended") from None
        told = done.stderr if self._shell else done.stdout
        before, found, code = told.rpartition(f"\n{mark}".encode())
        if not found or not code.strip().isdigit():
            raise self._lost(phones.told(done))
        return Completed(int(code), *((done.stdout, before) if self._shell else (before, b"")))

    def spawn(
        self, argv: Sequence[str], *, noise: IO[bytes], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program with its stdin and stdout joined to the adb client; it ends on the phone when that ends."""
        if not self._shell:
            raise DeviceError(
                f"{self._name}: its adb cannot pass on what a program reads: it is of before Android 7",
                f"write agent: benchmark_model into devices/{self._device.name}.yaml",
            )
        line = _line(f"{_RUN}exit $c", self._folder, str(next(self._numbers)), *_with(env, argv))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": noise}
        return self.local.start(subprocess.Popen, [*self._adb, "shell", "-T", line], **pipes)

    def lost(self, code: int, noise: str) -> LostError | None:
        """Return the error of a connection that ended: the keeper's ended with it, or the phone does not answer."""
        try:
            state = phones.ask([*self._adb, "get-state"])
            self.run(["true"], timeout=phones.ANSWER_S)
        except LostError as error:
            return error
        except DeviceError as error:
            return self._lost(error.message.removeprefix(f"{self._name}: "))
        if self._keeper is not None and self._keeper.poll() is not None:
            return self._lost("it came back meanwhile")
        return None if state.returncode == 0 else self._lost(phones.told(state))

    @property
    def _name(self) -> str:
        return f"{self._device.name} ({self._phone.serial})"

    def _keep(self, stack: ExitStack) -> None:
        """Start the keeper: lock the phone, remove what dead sessions left, make the folder."""
        owner = re.sub(r"[^\w@. ()-]", "", f"{this_process()} since {time.strftime('%Y-%m-%d %H.%M')}")
        line = _line(_KEEPER, self._base, f"edgekd-{self._token}", owner)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        keeper = self.local.start(subprocess.Popen, [*self._adb, "shell", "-T", line], **pipes)
        stack.callback(self._release, keeper)
        said = b""
        end = time.monotonic() + phones.ANSWER_S
        with selectors.DefaultSelector() as ready:
            assert keeper.stdout  # opened as a pipe
            ready.register(keeper.stdout, selectors.EVENT_READ)
            while b"ready\n" not in said and ready.select(max(0.0, end - time.monotonic())):
                piece = keeper.stdout.read1(1 << 12)  # type: ignore[attr-defined]  # a BufferedReader, typed as IO
                if not piece:
                    break
                said += piece
        text = said.decode(errors="replace").strip()
        if text.endswith("ready"):
            self._keeper = keeper
            return
        if busy := re.search(r"^busy (.*)", text, re.MULTILINE):
            raise DeviceError(
                f"{self._name} is in use by another edgekd: {busy[1]}", "wait until it has ended: two would spoil both"
            )
        raise self._error(f"the folder {self._folder} cannot be made", text or "no answer")

    def _release(self, keeper: subprocess.Popen[bytes]) -> None:
        """Let the keeper clean up, and end it."""
        try:
            keeper.communicate(b"end\n", timeout=phones.ANSWER_S)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            pass
        finally:
            keeper.kill()
            keeper.wait()
            for pipe in filter(None, (keeper.stdin, keeper.stdout)):
                with contextlib.suppress(OSError):
                    pipe.close()

    def _make(self, stack: ExitStack) -> None:
        """Make the folder where the phone's shell cannot run a keeper."""
        script = 'rm -rf "$1"/edgekd-*; mkdir -p "$2" && echo made'
        done = phones.ask([*self._adb, "exec-out", _line(script, self._base, self._folder)])
        if b"made" not in done.stdout:
            raise self._error(f"the folder {self._folder} cannot be made", phones.told(done))
        stack.callback(phones.ask, [*self._adb, "exec-out", _line('rm -rf "$1"', self._folder)])

    def _push(self, path: Path, remote: str) -> None:
        limit = phones.ANSWER_S + path.stat().st_size / SLOWEST
        done = phones.ask([*self._adb, "push", str(path.absolute()), remote], timeout=limit, local=self.local)
        if done.returncode:
            raise self._error(f"{path.name} could not be copied to the phone", phones.told(done))
        found = self.run(["sh", "-c", _SUMS, "sh", remote], timeout=limit)
        words = re.findall(rb"\b[0-9a-f]{32,64}\b", found.out)
        if not words:
            words = re.findall(rb"\b[0-9a-f]{64}\b", self._python_sum(remote))
        if not words:
            raise self._error("no way to compare files", "the phone has no sha256sum, md5sum or Python")
        kind = "sha256" if len(words[0]) == 64 else "md5"
        with path.open("rb") as file:
            if hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest().encode() != words[0]:
                raise self._error(f"{path.name} arrived damaged", "its checksum on the phone differs")

    def _python_sum(self, remote: str) -> bytes:
        text = "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
        return self.run([self._device.python[0], "-c", text, remote], timeout=phones.ANSWER_S).out

    def _end(self, number: int) -> None:
        """End a program on the phone whose time is over."""
        script = 'cd "$1" && read -r p g <"$2.pid" && { kill -9 "-$g" || kill -9 "$p"; }; rm -f "$2.pid"'
        with contextlib.suppress(DeviceError):
            phones.ask([*self._adb, "shell" if self._shell else "exec-out", _line(script, self._folder, str(number))])

    def _error(self, what: str, why: str) -> DeviceError:
        """An error with what to do about it, as far as the phone's words tell."""
        room, gone = "No space left" in why, re.search("offline|not found|closed|no devices|protocol fault|EOF", why)
        hint = ""
        if room:
            hint = f"make room in {self._base} on the phone, or set folder: in devices/{self._device.name}.yaml"
        elif gone:
            return LostError(f"{self._name}: {what}: {why}", _AGAIN)
        elif re.search("Permission denied|Read-only", why):
            hint = f"set folder: in devices/{self._device.name}.yaml to a folder in which adb may write, such as {FOLDER}"
        return DeviceError(f"{self._name}: {what}: {why}", hint)

    def _lost(self, why: str) -> LostError:
        return LostError(f"{self._name}: the connection was lost: {why}", _AGAIN)


@contextlib.contextmanager
def _locked(serial: str) -> Iterator[None]:
    """Hold a phone against other sessions of this user on this machine; the lock ends with the process."""
    folder = cache.root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"adb-{hashlib.sha256(serial.encode()).hexdigest()[:16]}").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read()
            if holder == this_process():
                raise OursError(
                    f"the phone {serial} is in use by this edgekd, for another device's file: they are one phone"
                ) from None
            raise DeviceError(
                f"the phone {serial} is in use by another edgekd on this machine: {holder}",
                "wait until it has ended: two at once would spoil both",
            ) from None
        handle.truncate(0)
        handle.write(this_process())
        handle.flush()
        yield


def _with(env: Mapping[str, str] | None, argv: Sequence[str]) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in env.items()), *argv] if env else [*argv]


def _line(script: str, *arguments: str) -> str:
    """A script with its arguments, quoted, for the phone's shell: no second shell, which a hang-up would not reach."""
    return f"set -- {shlex.join(arguments)}\n{script}"
