"""The conformance suite of transports: files and processes get to a device, and nothing is left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling import transports
from edgekd.profiling.transports.base import Transport
from edgekd.registry import transports as registered
from edgekd.testing.suite import Suite
from edgekd.testing.words import refused

HOSTILE = ("a b", "it's", 'say "x"', "c\\d", "$HOME `id` $(id)", "; exit 3", "two\nlines", "", "-n", "*", "é", "~", "&|<>!#")
"""Words that a shell would read as something else."""
NAMES = {
    "blank": "a b.onnx", "quotes": "it's \"x\".onnx", "semicolon": "x;reboot.onnx", "dash": "-rf.onnx", "umlaut": "ä.onnx",
    "newline": "two\nlines.onnx", "bytes": os.fsdecode(b"caf\xe9.onnx"),
}  # fmt: skip
_OWNER = """
import sys, tempfile
from edgekd.devices.schema import Device
from edgekd.profiling import transports
way = transports.to(Device.model_validate_json(sys.argv[1])).__enter__()
there = way.write("left.txt", b"x")
spawned = way.spawn(["sh", "-c", "echo $$; exec sleep 1000"], noise=tempfile.TemporaryFile())
print(there, spawned.stdout.readline().decode().strip(), sep="\\n", flush=True)
sys.stdin.read()
"""
"""A process that opens a session and is killed in it."""


class TransportSuite(Suite):
    """Conformance suite of transports. In two lines: ``class TestMine(TransportSuite): name = "mine"``.

    The device needs ``sh``, ``cat``, ``printf``, ``printenv``, ``sleep`` and ``kill``. Override the fixture ``device`` for a
    transport that needs keys such as ``host``.

    Attributes:
        large: Bytes of the largest file that is sent.
        wait_s: Seconds in which the device has to answer, and to clean up.
    """

    registry = registered
    large: ClassVar[int] = 32 << 20
    wait_s: ClassVar[float] = 30.0

    @classmethod
    def variants(cls) -> Mapping[str, Iterable[str]]:
        """Odd names of files."""
        return {"odd_name": NAMES}

    @pytest.fixture
    def device(self) -> Device:
        """Return the device."""
        return Device.model_validate({"name": "conformance", "transport": self.name})

    @pytest.fixture
    def way(self, device: Device) -> Iterator[Transport]:
        """Yield an open way to the device."""
        with transports.to(device) as opened:
            yield opened

    def test_run(self, way: Transport) -> None:
        """A program gets its words, variables and stdin as they are; its stdout, stderr and exit code come back."""
        assert way.reached, "reached is False although the device has answered"
        done = way.run(["printf", "%s\\0", *HOSTILE], timeout=self.wait_s)
        words = tuple(done.out.decode().split("\0")[:-1])
        assert words == HOSTILE, f"a program gets {words} for {HOSTILE}: quote each word for every shell on the way"
        done = way.run(["sh", "-c", "cat; echo no >&2; exit 7"], timeout=self.wait_s, stdin=b"\0in\n\xff")
        assert (done.code, done.out) == (7, b"\0in\n\xff"), f"exit 7 with stdin for stdout comes back as {done}"
        assert done.err.strip().endswith(b"no"), f"stderr comes back as {done.err!r}"
        value = way.run(["printenv", "EDGEKD_TEST"], timeout=self.wait_s, env={"EDGEKD_TEST": "two\nlines $HOME"}).out
        assert value == b"two\nlines $HOME\n", f"the variable two\\nlines $HOME comes there as {value!r}"

    @pytest.mark.parametrize("end", ["KILL", "SEGV", "ILL"])
    def test_killed(self, way: Transport, end: str) -> None:
        """A program that a signal ends has the code 128 + its number, and the device is not lost."""
        done = way.run(["sh", "-c", f"kill -{end} $$"], timeout=self.wait_s)
        expected = 128 + signal.Signals[f"SIG{end}"]
        assert done.code == expected, f"SIG{end} comes back as {done.code}: return {expected}, the reason of a crash"
        assert way.lost(done.code, "") is None, f"lost({done.code}) says that the device is gone: it was the program"

    def test_timeout(self, way: Transport) -> None:
        """A program that takes too long is an error in words, and ends there."""
        script = "echo $$ > $0; exec sleep 1000"
        there = way.write("pid", b"")
        with refused("a program over its time", DeviceError):
            way.run(["sh", "-c", script, there], timeout=2)
        pid = way.run(["cat", there], timeout=self.wait_s).out.decode().strip()
        assert self._soon(lambda: not self._runs(way, pid)), (
            "the program still runs there: end it, it would disturb the measurement"
        )

    def test_put(self, way: Transport, odd_name: str, tmp_path: Path) -> None:
        """A file of any name arrives, is sent once, and comes back."""
        path = tmp_path / NAMES[odd_name]
        path.write_bytes(odd_name.encode() + os.urandom(100_000))
        there = way.put(path)
        assert way.put(path) == there, "the same file has two places there: send it once"
        assert there.endswith(".onnx"), f"{there!r} has lost its ending, which runtimes go by"
        way.get(there, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == path.read_bytes(), "a file that was put and got is another"
        told = way.run(["cat", there], timeout=self.wait_s).out
        assert told == path.read_bytes(), f"a program there cannot open {there!r}, which put has returned"

    def test_parts(self, way: Transport, tmp_path: Path) -> None:
        """The .bin of an OpenVINO .xml arrives beside it."""
        for ending in ("xml", "bin"):
            (tmp_path / f"net.{ending}").write_bytes(ending.encode())
        there = way.put(tmp_path / "net.xml")
        beside = way.run(["cat", there.removesuffix("xml") + "bin"], timeout=self.wait_s)
        assert beside.out == b"bin", "put of an .xml does not bring the .bin beside it"

    def test_changed(self, way: Transport, tmp_path: Path) -> None:
        """A file that has changed is sent again."""
        path = tmp_path / "net.onnx"
        for content in (b"first", b"other"):
            path.write_bytes(content)
            told = way.run(["cat", way.put(path)], timeout=self.wait_s).out
            assert told == content, f"after {content!r} was put, a program there reads {told!r}: compare contents, not names"

    def test_large(self, way: Transport, tmp_path: Path) -> None:
        """A large file arrives and comes back whole."""
        path, back = tmp_path / "large.bin", tmp_path / "back"
        path.write_bytes(os.urandom(1 << 20) * (self.large >> 20))
        way.get(way.put(path), back)
        sent, got = (hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, back))
        assert sent == got, f"of {self.large} bytes {back.stat().st_size} came back, or others"

    def test_missing(self, way: Transport, tmp_path: Path) -> None:
        """A file that is not there is an error in words."""
        with refused("a missing file of the device", DeviceError):
            way.get("/no/such/file", tmp_path / "back")

    def test_spawn(self, way: Transport, tmp_path: Path) -> None:
        """A program that goes on talks over its stdin and stdout, at once; its stderr goes into a file."""
        with (tmp_path / "noise").open("w+b") as noise:
            process = way.spawn(["sh", "-c", "echo up >&2; exec cat"], noise=noise, env={"EDGEKD_TEST": "1"})
            assert process.stdin is not None, "spawn joins stdin: pass a pipe"
            assert process.stdout is not None, "spawn joins stdout: pass a pipe"
            for line in (b"one\n", b"\0\xff two\n"):
                process.stdin.write(line)
                process.stdin.flush()
                assert process.stdout.readline() == line, "an answer comes late or changed: buffer nothing"
            process.stdin.close()
            assert process.wait(self.wait_s) == 0, "the end of stdin does not end a program that reads it"
            process.stdout.close()
            noise.seek(0)
            assert b"up" in noise.read(), "stderr of the program is not in noise: it has the reason of a crash"

    @pytest.mark.parametrize("failing", [False, True], ids=["ended", "failed"])
    def test_clean(self, device: Device, failing: bool, tmp_path: Path) -> None:
        """The session leaves no file and no process there, also where it ends with an error."""
        try:
            with transports.to(device) as way, (tmp_path / "noise").open("w+b") as noise:
                there = way.write("left.txt", b"x")
                process = way.spawn(["sh", "-c", "echo $$; exec sleep 1000"], noise=noise)
                assert process.stdout is not None, "spawn joins stdout: pass a pipe"
                pid = process.stdout.readline().decode().strip()
                if failing:
                    raise _DeliberateError
        except _DeliberateError:
            pass
        process.communicate(timeout=self.wait_s)
        self._check_gone(device, there, pid)

    def test_orphaned(self, device: Device) -> None:
        """Remove the remains of a killed edgekd."""
        owner = [sys.executable, "-c", _OWNER, device.model_dump_json(exclude_unset=True)]
        with subprocess.Popen(owner, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            there, pid = (process.stdout.readline().strip() for _ in range(2))
            process.kill()
        self._check_gone(device, there, pid)

    def test_stop(self, way: Transport) -> None:
        """Another thread ends the session: whoever waits for the device gets an error in words, at once."""
        began = time.monotonic()
        timer = threading.Timer(1.0, way.local.stop)
        timer.start()
        with refused("a program in a session that was stopped", DeviceError):
            way.run(["sleep", "20"], timeout=self.wait_s)
        assert time.monotonic() - began < 15, "stop() does not wake the thread that waits: start processes by Local"
        with refused("a program after stop()", DeviceError):
            way.run(["true"], timeout=self.wait_s)

    def test_locked(self, way: Transport, device: Device) -> None:
        """A second session is refused in words: two measurements disturb each other."""
        with refused("a second session on the same device", DeviceError), transports.to(device):
            pass

    def _check_gone(self, device: Device, there: str, pid: str) -> None:
        """See in a new session that a file and a process of another one are gone."""
        with transports.to(device) as way:
            missing = ["sh", "-c", 'test ! -e "$0"', there]
            gone = self._soon(lambda: way.run(missing, timeout=self.wait_s).code == 0)
            assert gone, f"{there} is still there: remove the session's folder"
            assert self._soon(lambda: not self._runs(way, pid)), (
                f"process {pid} still runs there: end what the session has started"
            )

    def _runs(self, way: Transport, pid: str) -> bool:
        """Return whether a process runs there; one that has ended and waits for its parent does not."""
        script = 'kill -0 "$0" 2>/dev/null && ! grep -q "^State:.Z" /proc/$0/status 2>/dev/null'
        return way.run(["sh", "-c", script, pid], timeout=self.wait_s).code == 0

    def _soon(self, happens: Callable[[], bool]) -> bool:
        """Wait until something happens; False if it does not in time."""
        until = time.monotonic() + self.wait_s
        while not happens():
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True


class _DeliberateError(Exception):
    """Ends a session."""
