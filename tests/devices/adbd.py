"""The device side of adb over TCP, for tests: real adb clients connect, authenticate, push, pull and run shells.

    python3 adbd.py PORT STATE

Shells run as user 2000, like Android's. Files of the folder ``STATE`` decide how it behaves:

* ``keys``: it asks for authentication and takes the public keys in it, one a line as adb sends them; the last one that was
  refused is in ``asked``.
* ``legacy``: no shell protocol, as before Android 7: no exit codes, stderr in stdout.
* ``cut_after``: the connection is cut after so many bytes of a push.
* ``model``: how the phone calls itself.

SIGUSR1 cuts all connections, as a pulled cable does.

It is not Android: no bionic, no SELinux, no pairing by TLS.
"""

from __future__ import annotations

import base64
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

MAX_DATA = 256 * 1024
VERSION = 0x01000001
SHELL_USER = 2000
SHA1 = bytes.fromhex("3021300906052b0e03021a05000414")
TOKEN, SIGNATURE, PUBLIC_KEY = 1, 2, 3
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (
    int.from_bytes(word, "little") for word in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)


class Stream:
    """One service of a connection: a pipe in each direction, a write at a time as the protocol wants it."""

    def __init__(self, connection: Connection, remote: int, local: int) -> None:
        self.remote, self.local = remote, local
        self.on_close: Callable[[], None] = lambda: None
        self._connection, self._read, self._closed = connection, b"", False
        self._change = threading.Condition()
        self._acknowledged = threading.Semaphore(0)
        self._write = threading.Lock()

    def feed(self, data: bytes) -> None:
        """Take what the client wrote."""
        with self._change:
            self._read += data
            self._change.notify_all()

    def acknowledge(self) -> None:
        """The client has read what was written."""
        self._acknowledged.release()

    def close(self) -> None:
        """The client is gone, or closed it."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._acknowledged.release()
        self.on_close()

    def read(self, count: int) -> bytes:
        """Wait for ``count`` bytes; fewer at the end."""
        with self._change:
            self._change.wait_for(lambda: len(self._read) >= count or self._closed)
            data, self._read = self._read[:count], self._read[count:]
            return data

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        with self._write:
            for at in range(0, len(data), self._connection.max_data):
                if self._closed:
                    return
                self._connection.send(WRTE, self.local, self.remote, data[at : at + self._connection.max_data])
                self._acknowledged.acquire()


class Connection:
    """One client's connection."""

    def __init__(self, peer: socket.socket, state: Path) -> None:
        self.max_data = 4096
        self._peer, self._state = peer, state
        self._streams: dict[int, Stream] = {}
        self._lock = threading.Lock()
        self._token = os.urandom(20)
        self._numbers = itertools.count(1)

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        """Send one message."""
        head = struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self._lock, suppress(OSError):
            self._peer.sendall(head + data)

    def serve(self) -> None:
        """Answer until the client is gone."""
        try:
            while True:
                command, first, second, count, _, _ = struct.unpack("<6I", self._exactly(24))
                self._message(command, first, second, self._exactly(count))
        except (EOFError, OSError):
            pass
        finally:
            self.cut()

    def cut(self) -> None:
        """End the connection and all its services, as a pulled cable does."""
        with suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)
        self._peer.close()
        for stream in list(self._streams.values()):
            stream.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._peer.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def _message(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            self.max_data = min(second, MAX_DATA)
            self._ask() if (self._state / "keys").exists() else self._welcome()
        elif command == AUTH:
            self._authenticate(first, data)
        elif command == OPEN:
            stream = Stream(self, first, next(self._numbers))  # never used again: a late CLSE must not meet another
            self._streams[stream.local] = stream
            name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            threading.Thread(target=self._service, args=(stream, name), daemon=True).start()
        elif second in self._streams:
            stream = self._streams[second]
            if command == OKAY:
                stream.acknowledge()
            elif command == WRTE:
                stream.feed(data)
                self.send(OKAY, second, first)
            elif command == CLSE:
                del self._streams[second]
                stream.close()

    def _ask(self) -> None:
        self.send(AUTH, TOKEN, 0, self._token)

    def _welcome(self) -> None:
        model = (self._state / "model").read_text().strip() if (self._state / "model").exists() else "Test_Phone"
        features = "cmd,stat_v2" + ("" if (self._state / "legacy").exists() else ",shell_v2")
        banner = f"device::ro.product.name=edgekd;ro.product.model={model};ro.product.device=edgekd;features={features}"
        self.send(CNXN, VERSION, MAX_DATA, banner.encode())

    def _authenticate(self, kind: int, data: bytes) -> None:
        """Take a signature by a known key; ask on for an unknown one; take a public key when the user accepts it."""
        keys = (self._state / "keys").read_bytes().splitlines()
        if kind == SIGNATURE:
            if any(verifies(key, self._token, data) for key in keys if key):
                self._welcome()
            else:
                self._ask()
        elif kind == PUBLIC_KEY:  # a phone shows its question now; the client waits
            (self._state / "asked").write_bytes(data.rstrip(b"\0") + b"\n")

    def _service(self, stream: Stream, name: str) -> None:
        kind, _, command = name.partition(":")
        options = kind.split(",")
        if options[0] in ("shell", "exec"):
            self.send(OKAY, stream.local, stream.remote)
            Shell(stream, "v2" in options, command).run()
        elif options[0] == "sync":
            self.send(OKAY, stream.local, stream.remote)
            Sync(stream, self, self._state).run()
        self.send(CLSE, stream.local, stream.remote)
        self._streams.pop(stream.local, None)


class Shell:
    """A command in a shell; a client that goes away hangs up on it, as on a phone."""

    def __init__(self, stream: Stream, packets: bool, command: str) -> None:
        self._stream, self._packets = stream, packets
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if packets else subprocess.STDOUT,
            start_new_session=True, cwd="/", user=SHELL_USER, group=SHELL_USER, extra_groups=[],
        )  # fmt: skip

    def run(self) -> None:
        """Join the streams until it has ended."""
        self._stream.on_close = self._hang_up
        threading.Thread(target=self._stdin, daemon=True).start()
        outputs = [(STDOUT, self._process.stdout), (STDERR, self._process.stderr)]
        pumps = [threading.Thread(target=self._pump, args=pair) for pair in outputs if pair[1]]
        for pump in pumps:
            pump.start()
        code = self._process.wait()
        for pump in pumps:
            pump.join()
        if self._packets:
            self._stream.write(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 128 - code))

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._process.send_signal(signal.SIGHUP)
        self._close_stdin()

    def _close_stdin(self) -> None:
        with suppress(OSError, ValueError):
            self._process.stdin.close()  # type: ignore[union-attr]  # a pipe

    def _stdin(self) -> None:
        size = 5 if self._packets else 1
        while len(head := self._stream.read(size)) == size:
            if self._packets:
                kind, count = struct.unpack("<BI", head)
                head = self._stream.read(count)
                if kind == CLOSE_STDIN:
                    break
                if kind != STDIN:
                    continue
            try:
                os.write(self._process.stdin.fileno(), head)  # type: ignore[union-attr]  # a pipe
            except (OSError, ValueError):
                break
        self._close_stdin()

    def _pump(self, kind: int, pipe: object) -> None:
        while data := os.read(pipe.fileno(), 32768):  # type: ignore[attr-defined]  # a pipe
            self._stream.write(struct.pack("<BI", kind, len(data)) + data if self._packets else data)


class Sync:
    """Push, pull, stat and list."""

    def __init__(self, stream: Stream, connection: Connection, state: Path) -> None:
        self._stream, self._connection, self._state = stream, connection, state

    def run(self) -> None:
        """Answer requests until QUIT."""
        answers = {
            b"STAT": self._stat, b"STA2": self._stat2, b"LST2": self._stat2, b"SEND": self._send, b"RECV": self._receive,
            b"LIST": self._list,
        }  # fmt: skip
        while len(head := self._stream.read(8)) == 8 and head[:4] in answers:
            answers[head[:4]](head[:4], self._stream.read(int.from_bytes(head[4:], "little")))

    def _path(self, name: bytes) -> Path:
        return Path(os.path.normpath("/" + name.decode("utf-8", "surrogateescape")))

    def _stat(self, kind: bytes, name: bytes) -> None:
        try:
            found = self._path(name).stat()
            self._stream.write(kind + struct.pack("<3I", found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)))
        except OSError:
            self._stream.write(kind + bytes(12))

    def _stat2(self, kind: bytes, name: bytes) -> None:
        layout = "<IQQIIIIQqqq"
        try:
            s = self._path(name).stat()
            times = (int(s.st_atime), int(s.st_mtime), int(s.st_ctime))
            values = (0, s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_size, *times)
        except OSError as error:
            values = (error.errno or 2, *[0] * 10)
        self._stream.write(kind + struct.pack(layout, *values))

    def _send(self, kind: bytes, argument: bytes) -> None:
        name, _, mode = argument.rpartition(b",")
        path, problem, taken = self._path(name), "", 0
        cut = self._state / "cut_after"
        limit = int(cut.read_text()) if cut.exists() else None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.touch()
            os.chown(path, SHELL_USER, SHELL_USER)
        except OSError as error:
            problem = error.strerror
        while (head := self._stream.read(8))[:4] == b"DATA":
            data = self._stream.read(int.from_bytes(head[4:], "little"))
            taken += len(data)
            if limit is not None and taken > limit:
                self._connection.cut()
                return
            try:
                if not problem:
                    with path.open("ab") as file:
                        file.write(data)
            except OSError as error:
                problem = error.strerror
        if problem:
            text = f"couldn't write: {problem}".encode()
            self._stream.write(b"FAIL" + struct.pack("<I", len(text)) + text)
        elif head[:4] == b"DONE":
            path.chmod(int(mode) & 0o777)
            self._stream.write(b"OKAY" + bytes(4))

    def _receive(self, kind: bytes, name: bytes) -> None:
        try:
            with self._path(name).open("rb") as file:
                while data := file.read(65536):
                    self._stream.write(b"DATA" + struct.pack("<I", len(data)) + data)
            self._stream.write(b"DONE" + bytes(4))
        except OSError as error:
            text = error.strerror.encode()
            self._stream.write(b"FAIL" + struct.pack("<I", len(text)) + text)

    def _list(self, kind: bytes, name: bytes) -> None:
        for path in sorted(self._path(name).iterdir()) if self._path(name).is_dir() else ():
            s, entry = path.lstat(), os.fsencode(path.name)
            row = struct.pack("<4I", s.st_mode, s.st_size & 0xFFFFFFFF, int(s.st_mtime), len(entry))
            self._stream.write(b"DENT" + row + entry)
        self._stream.write(b"DONE" + bytes(16))


def verifies(key: bytes, token: bytes, signature: bytes) -> bool:
    """Tell whether a signature (PKCS#1 v1.5; the token stands for a SHA-1) is by a public key in adb's form."""
    data = base64.b64decode(key.split()[0])
    words, exponent = int.from_bytes(data[:4], "little"), int.from_bytes(data[-4:], "little")
    modulus = int.from_bytes(data[8 : 8 + 4 * words], "little")
    size = 4 * words
    filled = b"\0\1" + b"\xff" * (size - 3 - len(SHA1) - len(token)) + b"\0" + SHA1 + token
    return pow(int.from_bytes(signature, "big"), exponent, modulus) == int.from_bytes(filled, "big")


def main(port: int, state: Path) -> NoReturn:
    """Serve until killed."""
    connections: list[Connection] = []
    signal.signal(signal.SIGUSR1, lambda *_: [connection.cut() for connection in connections])
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        (state / "ready").touch()
        while True:
            peer, _ = server.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connections.append(Connection(peer, state))
            threading.Thread(target=connections[-1].serve, daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
