"""What of the way over SSH needs no board; tests/devices has the rest."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling.on_device import keeper
from edgekd.profiling.transports import openssh, ssh
from edgekd.profiling.transports.ssh import Ssh

WORDS = [
    "a b",
    "it's",
    'say "x"',
    "c\\d\\\\",
    "$HOME `id` $(id)",
    "; exit 3",
    "two\nlines",
    "",
    "-n",
    "*",
    "%s",
    "!x",
    "'\\''",
]


def board(**keys):
    return Device(edgekd=1, name="pi4", transport="ssh", description="a board", **keys)


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish"])
def test_a_shell_takes_words_apart_as_they_were(shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    line = openssh.quoted(["printf", "%s\\0", *WORDS])
    done = subprocess.run([shell, "-c", line], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == WORDS


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "pi@-oX", "a b", "x;y", "$(x)", "x\n", "", "`x`@y", "x|y"])
def test_a_host_that_openssh_or_a_shell_would_read_otherwise_is_refused(host):
    with pytest.raises(ValidationError, match="is no host"):
        board(host=host)


@pytest.mark.parametrize("host", ["pi@raspberrypi", "pi4", "pi@192.168.1.3", "fe80::1%eth0", "ssh://pi@x:22", "DOM\\me@x"])
def test_hosts_as_openssh_takes_them(host):
    assert openssh.command(board(host=host), "/tmp/x", master=True)[-2:] == ["--", host]


def test_only_the_file_has_a_port():
    assert "-p" not in openssh.command(board(host="pi4"), "/tmp/x", master=True)
    assert "-p 2222 --" in " ".join(openssh.command(board(host="pi4", port=2222), "/tmp/x", master=False))
    assert openssh.by_hand(board(host="pi4", port=2222)) == "ssh -p 2222 pi4"


def test_a_link_that_is_too_slow_is_told_with_the_limit_that_was_over(tmp_path, monkeypatch):
    (tmp_path / "ssh").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(ssh, "HELLO_S", 0.2)
    began = time.monotonic()
    with pytest.raises(DeviceError, match=r"pi4 \(pi4\) did not answer within 0.2 s") as caught, Ssh(board(host="pi4")):
        pass
    assert "round trips of up to 2 s" in caught.value.hint
    assert time.monotonic() - began < ssh.CLEAN_S / 2, "what has not begun is not waited for"


def test_lists_of_compiled_functions_go_with_the_session_and_others_stay(tmp_path):
    numbers = [os.getpid() + 10**8 + place for place in range(3)]  # no process has these
    ours, before, other = (Path(f"/tmp/perf-{number}.map") for number in numbers)
    (tmp_path / "keeper").touch()
    try:
        for number, path in zip(numbers, (ours, before, other), strict=True):
            path.touch()
            if path != other:
                (tmp_path / f"process-{number}").touch()
        os.utime(before, (1, 1))
        keeper.maps(tmp_path)
        assert [path.exists() for path in (ours, before, other)] == [False, True, True]
    finally:
        for path in (ours, before, other):
            path.unlink(missing_ok=True)
