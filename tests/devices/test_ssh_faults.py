"""Boards over a real OpenSSH server: what goes wrong, each with its message and with exit code 4."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.devices.conftest import device, need
from tests.devices.lab import Pi

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError, ExitCode, LostError
from edgekd.profiling.agents.python import PythonAgent, program
from edgekd.profiling.session import measure
from edgekd.profiling.transports import ssh
from edgekd.profiling.transports.ssh import Ssh
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile

CGROUP = Path("/sys/fs/cgroup")
QUICK = Profile(devices=("pi4",), blocks=3, block_runs=3, block_ms=10, warmup_runs=1, warmup_ms=0)


def refused(found: Device) -> DeviceError:
    """The error of a device that cannot be opened."""
    with pytest.raises(DeviceError) as caught, Ssh(found):
        pass
    assert caught.value.exit_code == ExitCode.DEVICE_FAILED
    return caught.value


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def left(pi: Pi) -> list[str]:
    """What sessions left on a device: folders, the lock."""
    folders = [path.name for path in (pi.root / "home").glob("*/.cache/*")]
    return folders + [path.name for path in (pi.root / "tmp").iterdir()]


@pytest.mark.parametrize(
    ("name", "lines", "message", "hint"),
    [
        ("unnamed", "HostName no-board.invalid", "ssh: Could not resolve hostname", "check the name"),
        ("closed", "HostName 127.0.0.1\n  Port 9", "ssh: connect to host 127.0.0.1 port 9", "has no SSH server"),
        ("silent", "HostName 127.0.0.1\n  Port {silent}", "timed out", "switched on"),
        ("broken", "ProxyCommand exit 1", "Connection closed by", "this must work without a question: ssh broken true"),
    ],
)
def test_an_unreachable_host(name: str, lines: str, message: str, hint: str, ssh_config: Callable[[str, str], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ssh_config(name, f"  {lines.format(silent=silent.getsockname()[1])}\n")
        error = refused(device("pi4", host=name))
    assert error.message.startswith(f"pi4 ({name}) cannot be reached: ")
    assert message in error.message
    assert hint in error.hint


def test_an_unreachable_device_leaves_the_others_their_results(
    nets: Path, ssh_config: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh_config("gone", "  HostName 127.0.0.1\n  Port 9\n")
    file = tmp_path / "pi4.yaml"
    file.write_text(yaml.safe_dump(device("pi4", host="gone").model_dump(mode="json", exclude_unset=True)))
    monkeypatch.chdir(tmp_path)
    words = ["profile", str(nets / "int8.onnx"), "--device", "host", "--device", str(file)]
    done = subprocess.run([sys.executable, "-m", "edgekd", *words], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.DEVICE_FAILED, done.stdout + done.stderr
    assert "pi4 (gone) cannot be reached: ssh: connect to host 127.0.0.1 port 9" in done.stdout + done.stderr
    (record,) = tmp_path.rglob("run.json")
    assert [row["device"] for row in json.loads(record.read_text())["profiles"]] == ["host"]


def test_keys_that_do_not_fit(pi4_board: Pi, ssh_config: Callable[[str, str], None], tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    (tmp_path / "none").write_text("")
    ssh_config("wrong", pi4_board.client(key=tmp_path / "other"))
    ssh_config("changed", pi4_board.client(host_key=tmp_path / "other.pub"))
    ssh_config("unknown", pi4_board.client(host_key=tmp_path / "none"))
    error = refused(device("pi4", host="wrong"))
    assert "does not accept your key: pi@127.0.0.1: Permission denied (publickey)" in error.message
    assert "ssh-copy-id wrong" in error.hint
    error = refused(device("pi4", host="changed"))
    assert "its host key is not the one in known_hosts" in error.message
    assert f'-R "[127.0.0.1]:{pi4_board.port}"' in error.hint
    error = refused(device("pi4", host="unknown", port=pi4_board.port))
    assert "its host key is not known here" in error.message
    assert f"connect once by hand, compare the fingerprint and answer yes: ssh -p {pi4_board.port} unknown" in error.hint


def test_no_python(pi4_board: Pi, ssh_config: Callable[[str, str], None]) -> None:
    ssh_config("bare", pi4_board.client("bare"))
    error = refused(device("pi4", host="bare", python=["/home/pi/venv/bin/python"]))
    assert error.message == "pi4 (bare) has no Python 3.8 or later: tried /home/pi/venv/bin/python, python3"
    assert "sudo apt install python3" in error.hint


def test_a_folder_that_cannot_be_made(pi4: Device) -> None:
    error = refused(device("pi4", folder="/usr/share"))
    assert "the session's folder cannot be made: /usr/share" in error.message
    assert "Permission denied" in error.message
    assert "pi4.yaml" in error.hint


def test_no_room(pi4_board: Pi, pi4: Device, tmp_path: Path) -> None:
    big, small = tmp_path / "big.onnx", tmp_path / "small.onnx"
    big.write_bytes(os.urandom(3 << 20))
    small.write_bytes(b"small")
    with Ssh(device("pi4", folder="/mnt/small")) as way:
        with pytest.raises(
            DeviceError, match=r"has no room for .*big.onnx: it needs 3.0 MiB, 2.0 MiB are free in"
        ) as caught:
            way.put(big)
        assert "folder:" in caught.value.hint
        assert way.run(["cat", way.put(small)], timeout=30).out == b"small", "the session goes on"
    assert list((pi4_board.root / "mnt/small").iterdir()) == []


def test_one_session_at_a_time_whoever_asks(
    pi4: Device, pi4_board: Pi, ssh_config: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh_config("anna", pi4_board.client("anna"))
    with Ssh(device("pi4", host="anna")):
        assert "pi4 (pi4) is in use by this edgekd, for another device's file" in refused(pi4).message
        monkeypatch.setattr(ssh, "this_process", lambda: "another")
        error = refused(pi4)
        assert "pi4 (pi4) is in use by " in error.message
        assert f"(process {os.getpid()}) since " in error.message
    with Ssh(pi4):
        pass
    assert left(pi4_board) == []


def test_the_connection_is_cut_in_the_middle_of_a_push(pi4: Device, pi4_board: Pi, tmp_path: Path) -> None:
    big = tmp_path / "big.onnx"
    with big.open("wb") as file:
        file.truncate(300 << 20)

    def cut() -> None:
        until(lambda: list((pi4_board.root / "home/pi/.cache").glob("*/*/big.onnx")))
        pi4_board.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(LostError, match=r"the connection to pi4 \(pi4\) ended") as caught, Ssh(pi4) as way:
        way.put(big)
    thread.join()
    assert caught.value.exit_code == ExitCode.DEVICE_FAILED
    until(lambda: left(pi4_board) == [])


def test_the_connection_is_cut_in_the_middle_of_a_run(pi4: Device, pi4_board: Pi) -> None:
    with Ssh(pi4) as way:
        agent = PythonAgent(way, ["python3", program(way)], "onnx on pi4")
        agent.ask("start", 120, runtime="reference", path="", threads=1)
        threading.Timer(1, pi4_board.cut).start()
        with pytest.raises(LostError, match=r"onnx on pi4: the connection to pi4 \(pi4\) ended.* while measuring") as caught:
            agent.ask("block", 60, runs=1, ms=30_000)
        agent.close()
        with pytest.raises(LostError, match=r"the connection to pi4 \(pi4\) ended"):
            way.run(["true"], timeout=30)
        with pytest.raises(LostError, match=r"another on pi4: the connection to pi4 \(pi4\) ended"):
            PythonAgent(way, ["python3", "agent.pyz"], "another on pi4")
    assert caught.value.exit_code == ExitCode.DEVICE_FAILED
    assert caught.value.hint == "run again when the device is back"
    until(lambda: not pi4_board.pids("agent.pyz") and left(pi4_board) == [])


def test_the_device_restarts_in_the_middle_of_a_run(pi5: Device, pi5_board: Pi, nets: Path, tmp_path: Path) -> None:
    def restart(what: str, done: int, total: int) -> None:
        if what == "block 2/3 onnx":
            pi5_board.stop()

    try:
        session = measure([Variant("onnx", "onnx", nets / "int8.onnx")], QUICK, device("pi5"), tmp_path, restart)
    finally:
        pi5_board.start()
    (failure,) = session.failures
    assert "the connection to pi5 (pi5) ended" in failure.reason
    assert [name for name in left(pi5_board) if name.startswith("edgekd-session-")], "it was switched off"
    with Ssh(pi5) as way:
        assert way.run(["echo", "back"], timeout=30).out == b"back\n"
    assert left(pi5_board) == []


def test_how_a_program_died_is_told(pi4: Device, pi4_board: Pi) -> None:
    """SIGILL and SIGSEGV as a runtime's crash, SIGKILL as the kernel's when memory is out, SIGSTOP as one that hangs."""
    told = {
        signal.SIGILL: "the runtime died with SIGILL while measuring\n  → this build of the runtime uses instructions",
        signal.SIGSEGV: "the runtime died with SIGSEGV while measuring\n  → the runtime crashed",
        signal.SIGKILL: "the runtime died with SIGKILL while measuring\n  → probably out of memory",
        signal.SIGSTOP: "no answer within 2 s while measuring; the agent was killed",
    }
    with Ssh(pi4) as way:
        path = program(way)
        agents = [PythonAgent(way, ["python3", path], "onnx on pi4") for _ in told]
        for agent, (end, words) in zip(agents, told.items(), strict=True):
            agent.ask("state", 60)
            os.kill(pi4_board.programs("agent.pyz")[0], end)
            with pytest.raises(DeviceError) as caught:
                agent.ask("block", 2 if end == signal.SIGSTOP else 60, runs=1, ms=0)
            assert f"onnx on pi4: {words}" in str(caught.value)
            assert caught.value.exit_code == ExitCode.DEVICE_FAILED
            agent.close()
        until(lambda: not pi4_board.pids("agent.pyz"))


@pytest.fixture
def little_memory() -> Iterator[Callable[[int], None]]:
    """Bound what a process takes from now on to 16 MiB, by a control group; its kernel ends it when it wants more."""
    name = f"edgekd-test-{os.getpid()}"
    parent, limit = next(
        (
            found
            for found in ((CGROUP / "memory", "memory.limit_in_bytes"), (CGROUP, "memory.max"))
            if (found[0] / "cgroup.procs").exists()
        ),
        (CGROUP, ""),
    )
    if not limit:
        need("this machine has no control groups for memory")
    group = parent / name
    group.mkdir()

    def bound(pid: int) -> None:
        (group / limit).write_text(str(16 << 20))
        (group / "cgroup.procs").write_text(str(pid))

    yield bound
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_a_device_whose_memory_is_full(pi4: Device, pi4_board: Pi, nets: Path, little_memory: Callable[[int], None]) -> None:
    with Ssh(pi4) as way:
        agent = PythonAgent(way, ["python3", program(way)], "onnx on pi4")
        agent.ask("state", 60)
        little_memory(pi4_board.programs("agent.pyz")[0])
        with pytest.raises(DeviceError) as caught:
            agent.ask("start", 120, runtime="onnx", path=way.put(nets / "float.onnx"), threads=1)
        assert "onnx on pi4: the runtime died with SIGKILL while loading" in str(caught.value)
        assert "probably out of memory" in caught.value.hint
        agent.close()


def test_a_real_illegal_instruction(pi4: Device) -> None:
    """ai-edge-litert's CompiledModel needs atomics that a Cortex-A72 does not have; whoever runs it must see that."""
    code = "from ai_edge_litert.compiled_model import CompiledModel; CompiledModel.from_buffer(b'')"
    with Ssh(pi4) as way:
        assert way.run(["python3", "-c", code], timeout=120).code == 128 + signal.SIGILL


def test_what_takes_too_long_is_ended_there_too(pi4: Device, pi4_board: Pi) -> None:
    with Ssh(pi4) as way:
        with pytest.raises(DeviceError, match=r"sh did not end within 1 s on pi4 \(pi4\); it was ended") as caught:
            way.run(["sh", "-c", "setsid sleep 1000 & kill -STOP $$"], timeout=1)
        assert caught.value.exit_code == ExitCode.DEVICE_FAILED
        assert not pi4_board.pids("sleep 1000".replace(" ", "\0"))
        with pytest.raises(DeviceError, match="nothing-like-it does not start on pi4"):
            way.run(["nothing-like-it"], timeout=10)


def test_a_session_is_ended_by_another_thread_in_the_middle_of_a_question(pi4: Device, pi4_board: Pi) -> None:
    with Ssh(pi4) as way:
        agent = PythonAgent(way, ["python3", program(way)], "onnx on pi4")
        agent.ask("start", 120, runtime="reference", path="", threads=1)
        began = time.monotonic()
        threading.Timer(0.5, way.local.stop).start()
        with pytest.raises(DeviceError):
            agent.ask("block", 60, runs=1, ms=30_000)
        agent.close()
        with pytest.raises(DeviceError):
            way.run(["true"], timeout=30)
    assert time.monotonic() - began < 10
    until(lambda: not pi4_board.pids("agent.pyz") and left(pi4_board) == [])


def test_nothing_remains_of_a_killed_edgekd(pi4: Device, pi4_board: Pi) -> None:
    code = (
        "import sys, tempfile, time\nfrom edgekd.devices.schema import Device\n"
        "from edgekd.profiling.transports.ssh import Ssh\n"
        "with Ssh(Device.model_validate_json(sys.argv[1])) as way:\n"
        "    way.spawn(['sh', '-c', 'setsid sleep 1000 & exec sleep 1000'], noise=tempfile.TemporaryFile())\n"
        "    print('ready', flush=True)\n    time.sleep(1000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, pi4.model_dump_json(exclude_unset=True)], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    assert left(pi4_board)
    process.kill()
    process.communicate()
    until(lambda: not pi4_board.pids("sleep") and left(pi4_board) == [])


def test_a_killed_keeper_is_cleaned_up_after(pi4: Device, pi4_board: Pi) -> None:
    with contextlib.ExitStack() as stack:
        noise = stack.enter_context(tempfile.TemporaryFile())
        with pytest.raises(DeviceError, match="helper program there (ended|was killed)"), Ssh(pi4) as way:
            process = way.spawn(["sleep", "1000"], noise=noise)
            for pid in pi4_board.pids("edgekd-keeper"):
                os.kill(pid, signal.SIGKILL)
            way.write("more", b"x")
        process.wait(10)
        process.communicate()
    with Ssh(pi4):
        assert not pi4_board.pids("sleep"), "the next session ends what the last one left"
    assert left(pi4_board) == []
