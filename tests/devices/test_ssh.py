"""Boards over a real OpenSSH server: what works."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.devices.conftest import device, need
from tests.devices.lab import Pi

from edgekd.devices.schema import Device
from edgekd.profiling.transports.ssh import Ssh

HOSTILE = [
    "a b",
    "it's",
    'say "x"',
    "c\\d",
    "$HOME `id` $(id)",
    "; exit 3",
    "two\nlines",
    "",
    "-n",
    "*",
    "é",
    "\\n",
    "~",
    "&|<>!#",
]


@pytest.fixture(scope="module")
def way(pi4: Device) -> Iterator[Ssh]:
    """An open way to the Pi 4."""
    with Ssh(pi4) as opened:
        yield opened


def test_words_arrive_as_they_are(way: Ssh) -> None:
    done = way.run(["printf", "%s\\0", *HOSTILE], timeout=30, env={"EDGEKD_TEST": HOSTILE[6]})
    assert done.out.decode().split("\0")[:-1] == HOSTILE
    done = way.run(["printenv", "EDGEKD_TEST"], timeout=30, env={"EDGEKD_TEST": HOSTILE[6]})
    assert done.out.decode() == HOSTILE[6] + "\n"


@pytest.mark.parametrize("user", ["anna", "fish"])
def test_any_login_shell_will_do_even_one_that_prints(
    user: str, pi5_board: Pi, ssh_config: Callable[[str, str], None]
) -> None:
    ssh_config(f"pi5-{user}", pi5_board.client(user))
    config = pi5_board.root / f"home/{user}/.config/fish/config.fish"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("echo Welcome\n")
    with Ssh(device("pi5", host=f"pi5-{user}")) as opened:
        assert opened.run(["printf", "%s\\0", *HOSTILE], timeout=30).out.decode().split("\0")[:-1] == HOSTILE
        assert opened.run(["cat"], timeout=30, stdin=b"\0in\n").out == b"\0in\n"


@pytest.mark.parametrize("end", ["exit 7", "exit 255", "kill -ILL $$", "kill -SEGV $$", "kill -KILL $$"])
def test_a_signal_comes_back_as_128_and_its_number(way: Ssh, end: str) -> None:
    words = end.split()
    expected = int(words[1]) if words[0] == "exit" else 128 + signal.Signals[f"SIG{words[1][1:]}"]
    assert way.run(["sh", "-c", end], timeout=30).code == expected


@pytest.mark.parametrize(
    "name", ["a b.onnx", 'it\'s "x".onnx', "x;reboot.onnx", "two\nlines.onnx", os.fsdecode(b"caf\xe9.onnx"), "-rf.onnx"]
)
def test_a_file_of_any_name_arrives_and_comes_back(way: Ssh, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(name.encode(errors="surrogateescape") + os.urandom(200_000))
    there = way.put(path)
    assert way.put(path) == there
    assert there.isascii()
    assert "\n" not in there
    way.get(there, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_the_parts_of_an_openvino_file_arrive_side_by_side(way: Ssh, nets: Path) -> None:
    there = way.put(nets / "float.xml")
    assert way.run(["ls", str(Path(there).parent)], timeout=30).out.split() == [b"float.bin", b"float.xml"]


def test_more_programs_than_one_connection_may_have(way: Ssh) -> None:
    with tempfile.TemporaryFile() as noise:
        running = [way.spawn(["cat"], noise=noise) for _ in range(12)]
        answers = [process.communicate(b"here", 30)[0] for process in running]
    assert answers == [b"here"] * 12


def test_the_way_leads_over_another_host(pi4_board: Pi, pi5_board: Pi, ssh_config: Callable[[str, str], None]) -> None:
    ssh_config("jump", pi4_board.client())
    ssh_config("pi5-behind", pi5_board.client() + "  ProxyJump jump\n")
    with Ssh(device("pi5", host="pi5-behind")) as opened:
        assert opened.run(["echo", "hello"], timeout=30).out == b"hello\n"


def test_nothing_is_left_behind(pi5: Device, pi5_board: Pi, tmp_path: Path) -> None:
    with Ssh(pi5) as opened, tempfile.TemporaryFile() as noise:
        folder = pi5_board.root / Path(opened.write("here", b"x")).parent.relative_to("/")
        assert folder.is_dir()
        process = opened.spawn(["sh", "-c", "setsid sleep 1000 & exec sleep 1000"], noise=noise)
    process.communicate()
    assert not pi5_board.pids("sleep")
    assert not (pi5_board.root / "home/pi/.cache").exists(), "it was not there before"
    assert list((pi5_board.root / "tmp").iterdir()) == []


def test_without_test_devices_tests_are_skipped_and_fail_on_a_build_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    need("")
    with pytest.raises(pytest.skip.Exception, match="no root"):
        need("no root")
    monkeypatch.setenv("CI", "true")
    need("")
    with pytest.raises(pytest.fail.Exception, match="no root; CI=true: test devices must be there"):
        need("no root")
