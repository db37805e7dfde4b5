"""Test devices: an aarch64 userland (emulated) behind a real OpenSSH server on this machine.

``python tests/devices/lab.py pi5`` starts one and says how to reach it; ``build`` in place of a name makes what they run on.
Its times are the emulator's: never quote them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent
USERS = {"pi": 1000, "anna": 1001, "fish": 1002, "bare": 1003}
_HELD: list[IO[str]] = []
CPUS = {"pi4": "cortex-a72", "pi5": "cortex-a76"}


def folder() -> Path:
    """What the devices run on: in ``$LAB`` or a folder of the user's cache, one folder for each state of its recipe."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    parent = Path(os.environ.get("LAB") or Path(cache) / "edgekd-test-devices").resolve()
    return parent / hashlib.sha256((HERE / "build.sh").read_bytes()).hexdigest()[:12]


def lacks() -> str:
    """Say why test devices cannot be had on this machine; empty if they can."""
    if os.geteuid():
        return "test devices need root (mounts, and users of their own)"
    kernel = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    if sys.platform != "linux" or kernel < (6, 7) or not Path("/proc/sys/fs/binfmt_misc").is_dir():
        return f"test devices need Linux 6.7 or later with binfmt_misc (here: {platform.system()} {platform.release()})"
    for tool in ("apt-get", "dpkg", "unshare", "ssh", "ssh-keygen"):
        if not shutil.which(tool):
            return f"test devices need {tool}"
    return ""


def build() -> None:
    """Make what the devices run on; a minute the first time. It stays as long as a process that called this uses it."""
    mine = folder()
    mine.mkdir(parents=True, exist_ok=True)
    held = mine.with_suffix(".lock").open("w")  # shared by all who use it, until their processes end
    with (mine.parent / "building").open("w") as building:
        fcntl.flock(building, fcntl.LOCK_EX)
        fcntl.flock(held, fcntl.LOCK_SH)
        _HELD.append(held)
        if not (mine / "made").exists():
            subprocess.run([HERE / "build.sh", mine], check=True, env={**os.environ, "PYTHON": sys.executable})
        for path in mine.parent.glob("*.lock"):  # earlier ones
            with path.open("w") as other, contextlib.suppress(BlockingIOError):
                if path.stem != mine.name:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                    path.unlink()


class Pi:
    """One device.

    Args:
        name: ``pi4`` or ``pi5``.
        state: Folder for its homes, keys, log and for the client's configuration.
    """

    def __init__(self, name: str, state: Path) -> None:
        self.name, self.state, self.port = name, state, free_port()
        state.mkdir(parents=True)
        for key in ("host_key", "key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", state / key], check=True)
        for user, number in USERS.items():
            keys = state / "home" / user / ".ssh" / "authorized_keys"
            keys.parent.mkdir(parents=True)
            shutil.copy(state / "key.pub", keys)
            for path in (keys, keys.parent, keys.parent.parent):
                os.chown(path, number, number)
                path.chmod(0o700)
        lines = [
            f"Port {self.port}", "ListenAddress 127.0.0.1", "HostKey /run/host_key", "PasswordAuthentication no",
            "KbdInteractiveAuthentication no", "UsePAM no", f"AllowUsers {' '.join(USERS)}", "PidFile none",
            f"SetEnv QEMU_CPU={CPUS[name]} PYTHONPATH=/opt/edge ORT_DISABLE_TELEMETRY=1",
            "Match User bare", f"  SetEnv PATH=/opt/bare QEMU_CPU={CPUS[name]}",
        ]  # fmt: skip
        (state / "sshd_config").write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        """Switch it on, and wait until its SSH server answers."""
        with (self.state / "sshd.log").open("wb") as log:
            sshd = ["/usr/sbin/sshd", "-D", "-e", "-f", "/run/sshd_config"]
            self._process = enter([HERE / "boot.sh", folder(), self.state, CPUS[self.name], *sshd], log)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as link:
                if link.recv(4) == b"SSH-":
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not start: {(self.state / 'sshd.log').read_text()}")

    def stop(self) -> None:
        """Switch it off: all its processes are killed."""
        leave(self._process)

    @property
    def root(self) -> Path:
        """Its root folder, to look into and to write into while it runs."""
        return Path(f"/proc/{main_process(self._process)}/root")

    def pids(self, word: str) -> list[int]:
        """Process ids, on this machine, of its processes whose command line has a word."""
        return pids_beside(main_process(self._process), word)

    def programs(self, word: str) -> list[int]:
        """The same without the shells that started them, in the order they were started."""
        return [pid for pid in self.pids(word) if b"/bin/sh\0" not in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def cut(self) -> None:
        """Cut all its connections: the server's processes for them are killed."""
        for pid in self.pids("sshd")[1:]:  # the first one listens
            os.kill(pid, signal.SIGKILL)

    def client(self, user: str = "pi", host_key: Path | None = None, key: Path | None = None) -> str:
        """Lines of a client's configuration that reach it.

        Args:
            user: Account.
            host_key: Public key that the client knows it by; by default its own.
            key: Key of the client; by default the right one.
        """
        name = f"[127.0.0.1]:{self.port}"
        known = self.state / f"known_hosts_{(host_key or Path('own')).stem}"
        text = (host_key or self.state / "host_key.pub").read_text()
        known.write_text(f"{name} {text}" if text else "")
        return (
            f"  HostName 127.0.0.1\n  Port {self.port}\n  User {user}\n  IdentityFile {key or self.state / 'key'}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n"
        )


def enter(argv: Sequence[str | Path], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Run a program as root of namespaces of its own, in which aarch64 programs run; all of it dies with this process.

    The first process there waits for the end of its stdin, which comes at the latest when this process ends; the kernel then
    kills all others.

    In a user namespace the registration of the emulator is its own too (Linux 6.7): nothing of this machine changes.

    Args:
        argv: Program and arguments.
        log: Takes what it prints.
    """
    # Capabilities come with the second exec, once root there is mapped.
    process = subprocess.Popen(
        ["unshare", "--user", "--mount", "--pid", "--fork", "--propagation", "private",
         "bash", "-c", 'read -r _; "$@" </dev/null & read -r _', "enter", HERE / "emulate.sh", folder(), *argv],
        stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    assert process.stdin
    ours, its = (Path(f"/proc/{name}/ns/user") for name in ("self", process.pid))
    while its.readlink() == ours.readlink():
        time.sleep(0.005)
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{process.pid}/{kind}").write_text("0 0 65536")
    process.stdin.write(b"\n")
    process.stdin.flush()
    return process


def leave(process: subprocess.Popen[bytes]) -> None:
    """End what :func:`enter` has started: all its processes are killed."""
    assert process.stdin
    process.stdin.close()
    process.wait(30)


def main_process(process: subprocess.Popen[bytes]) -> int:
    """Process id, on this machine, of the program that :func:`enter` has started."""
    pid = process.pid
    for _ in range(2):  # unshare, and the first process of the namespaces
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


def pids_beside(pid: int, word: str) -> list[int]:
    """Process ids of ``pid`` and what it has started that have a word in their command line, in the order of their start."""
    found: list[tuple[int, int]] = []
    mine = Path(f"/proc/{pid}/ns/pid").readlink()
    first = int(_stat(pid)[1])  # waits; its command line has all words
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            other = int(entry.name)
            inside = (entry / "ns/pid").readlink() == mine and other != first
            if inside and word.encode() in (entry / "cmdline").read_bytes():
                found.append((int(_stat(other)[19]), other))  # numbers of processes begin again at some time
    return [other for _, other in sorted(found)]


def _stat(pid: int) -> list[str]:
    """Fields of a process's stat from its state on: its parent is number 1, its start, in ticks since boot, number 19."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(name: str) -> None:
    """Start a device until Ctrl-C, or make what all run on."""
    if reason := lacks():
        sys.exit(reason)
    build()
    if name == "build":
        return
    with tempfile.TemporaryDirectory() as state:
        pi = Pi(name, Path(state) / name)
        config = Path(state) / "config"
        config.write_text(f"Host {name}\n{pi.client()}")
        print(f"{shlex.join(['ssh', '-F', str(config), name])}\nCtrl-C switches it off.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        pi.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
