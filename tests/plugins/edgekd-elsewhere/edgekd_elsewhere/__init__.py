"""A transport for edgekd: another folder of this machine stands for a device."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edgekd.errors import DeviceError
from edgekd.profiling.on_device import keeper
from edgekd.profiling.transports.base import MEASURING, Completed
from edgekd.profiling.transports.local import Local


class Options(BaseModel):
    """Options of a device's file."""

    model_config = ConfigDict(extra="forbid")

    root: Path
    """Folder that stands for the device."""


class Elsewhere:
    """Files are copied into the folder, and processes run in it."""

    local: Local
    keys = MEASURING
    options = Options
    reached = True

    def __init__(self, device):
        self.root = Options.model_validate(device.options).root
        self.local = Local()

    def __enter__(self):
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.lock = (self.root / "lock").open("w")
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise DeviceError(f"{self.root} is in use by another session", "wait until it ends") from None
        except OSError as error:
            raise DeviceError(f"{self.root} cannot be used: {error.strerror}", "correct options: {root: FOLDER}") from error
        self.folder = Path(tempfile.mkdtemp(prefix="session-", dir=self.root))
        self.sent = {}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # It ends what the session leaves and removes the folder, also when edgekd is killed.
        self.guard = Local().start(
            subprocess.Popen, [sys.executable, "-I", "-S", keeper.__file__, str(self.folder)], **pipes
        )
        return self

    def __exit__(self, kind, error, trace):
        self.guard.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()

    def put(self, path):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        place = self.folder / digest[:16]
        if digest not in self.sent:
            place.mkdir()
            beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
            for one in (path, *beside):
                shutil.copyfile(one, place / f"model{one.suffix}")
            self.sent[digest] = str(place / f"model{path.suffix}")
        return self.sent[digest]

    def write(self, name, data):
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def get(self, remote, path):
        try:
            shutil.copyfile(remote, path)
        except OSError as error:
            raise DeviceError(f"{remote} cannot be copied: {error.strerror}") from error

    def run(self, argv, *, timeout, env=None, stdin=b""):
        try:
            done = self.local.run(argv, timeout=timeout, stdin=stdin, env=self.environment(env))
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{argv[0]} did not end within {timeout:.0f} s") from None
        except OSError as error:
            raise DeviceError(f"{argv[0]} does not start: {error.strerror}") from error
        return Completed(done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout, done.stderr)

    def spawn(self, argv, *, noise, env=None):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": noise}
        try:
            return self.local.start(subprocess.Popen, argv, **pipes, env=self.environment(env), cwd=self.folder)
        except OSError as error:
            raise DeviceError(f"{argv[0]} does not start: {error.strerror}") from error

    def lost(self, code, noise):
        return None

    def environment(self, more):
        return {**os.environ, **(more or {}), keeper.MARK: f"{self.folder.name}.", "TMPDIR": str(self.folder)}
