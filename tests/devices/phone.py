"""Test phones: the device side of adb over an aarch64 userland (emulated), for the real adb client.

``python tests/devices/phone.py`` starts one and says how to reach it. Its times are the emulator's: never quote them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.devices import lab  # also started as a program

HERE = Path(__file__).parent
DEBS = (
    "adb", "android-libbase", "android-libboringssl", "android-libcutils", "android-liblog", "libusb-1.0-0", "libbsd0",
    "libmd0",
)  # fmt: skip


class Client:
    """The real adb client, with a server and keys of its own.

    Args:
        folder: For its keys and its starter, ``adb``, which knows the server's port.
    """

    def __init__(self, folder: Path) -> None:
        self.program, self._port = folder / "adb", lab.free_port()
        (folder / "home").mkdir(parents=True)
        real, libraries = shutil.which("adb") or "", ""
        if not real:
            tools = _unpacked()
            real = str(tools / "usr/lib/android-sdk/platform-tools/adb")
            libraries = ":".join(
                str(tools / part) for part in ("usr/lib/x86_64-linux-gnu/android", "usr/lib/x86_64-linux-gnu")
            )
        self.program.write_text(
            f"#!/bin/sh\nexport LD_LIBRARY_PATH='{libraries}' HOME='{folder}/home' ANDROID_ADB_SERVER_PORT={self._port}\n"
            f"exec '{real}' \"$@\"\n"
        )
        self.program.chmod(0o755)

    def ask(self, *words: str) -> str:
        """Run the client and return what it prints."""
        done = subprocess.run([self.program, *words], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr


class Phone:
    """One phone.

    Args:
        client: The client that is to see it.
        state: Folder whose files decide how it behaves; see ``adbd.py``. ``thermal``: Android's thermal status.
    """

    def __init__(self, client: Client, state: Path) -> None:
        self._client, self.state, self._port = client, state, lab.free_port()
        self.serial = f"127.0.0.1:{self._port}"
        state.mkdir(parents=True)

    def start(self, *, connect: bool = True) -> None:
        """Switch it on, and plug it in."""
        (self.state / "ready").unlink(missing_ok=True)
        with (self.state / "log").open("wb") as log:
            self._process = lab.enter([HERE / "phone.sh", lab.folder(), self.state, str(self._port)], log)
        for _ in range(400):
            if (self.state / "ready").exists():
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"the phone does not start: {(self.state / 'log').read_text()}")
        if connect:
            self._client.ask("connect", self.serial)

    def stop(self) -> None:
        """Switch it off."""
        lab.leave(self._process)

    def unplug(self) -> None:
        """Cut all its connections; the client plugs it in again by itself."""
        os.kill(lab.main_process(self._process), signal.SIGUSR1)

    def forget(self) -> None:
        """Switch it off and let the client forget it."""
        self.stop()
        self._client.ask("disconnect", self.serial)

    @property
    def root(self) -> Path:
        """Its root folder, to look into while it runs."""
        return Path(f"/proc/{lab.main_process(self._process)}/root")

    def running(self, word: str) -> bool:
        """Tell whether one of its processes has a word in its command line."""
        return bool(lab.pids_beside(lab.main_process(self._process), word))


def _unpacked() -> Path:
    """The client of Debian, unpacked into the lab's folder: nothing is installed on this machine."""
    tools = lab.folder() / "adb"
    if not tools.is_dir():
        made = Path(tempfile.mkdtemp(prefix="adb_", dir=lab.folder()))
        debs = made / "debs"
        debs.mkdir()
        fetch = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *DEBS]
        if subprocess.run(fetch, cwd=debs, check=False).returncode:
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(fetch, cwd=debs, check=True)
        for deb in debs.glob("*.deb"):
            subprocess.run(["dpkg", "-x", deb, made], check=True)
        with contextlib.suppress(OSError):  # another worker was faster
            made.rename(tools)
    return tools


def main() -> None:
    """Start a phone until Ctrl-C."""
    if reason := lab.lacks():
        sys.exit(reason)
    lab.build()
    with tempfile.TemporaryDirectory() as folder:
        client = Client(Path(folder) / "client")
        phone = Phone(client, Path(folder) / "phone")
        phone.start()
        print(f"ADB={client.program}  serial: {phone.serial}\nCtrl-C switches it off.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        phone.stop()
        client.ask("kill-server")


if __name__ == "__main__":
    main()
