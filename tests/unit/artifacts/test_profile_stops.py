"""``edgekd profile`` that is interrupted, or in which edgekd makes a mistake: what was finished is kept."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.unit.artifacts.test_profile_files import INFO, QUICK, conv, save, two_devices
from tests.words import lacking

from edgekd.artifacts import pack
from edgekd.artifacts.profile import Settings, profile
from edgekd.errors import ExitCode
from edgekd.evaluation import device_checks
from edgekd.profiling import heat
from edgekd.profiling.transports.host import Host
from edgekd.profiling.variant import Variant
from edgekd.progress import Silent, Task
from edgekd.results.run import read_run


def endless(folder: Path) -> Path:
    """A file whose first inference does not end."""
    count, true = numpy_helper.from_array(np.array(2**62), "n"), numpy_helper.from_array(np.array(True), "t")
    inner = [helper.make_node("Identity", ["on"], ["going"]), helper.make_node("Identity", ["before"], ["after"])]
    values = [INFO("i", TensorProto.INT64, []), INFO("on", TensorProto.BOOL, []), INFO("before", TensorProto.FLOAT, [1])]
    results = [INFO("going", TensorProto.BOOL, []), INFO("after", TensorProto.FLOAT, [1])]
    body = helper.make_graph(inner, "body", values, results)
    nodes = [helper.make_node("Loop", ["n", "t", "x"], ["y"], body=body)]
    x, y = (INFO(name, TensorProto.FLOAT, [1]) for name in "xy")
    return save(folder / "endless.onnx", nodes, [x], [y], count, true)


class Presses(Silent):
    """Interrupts this process, twice, when a step begins."""

    def __init__(self, step: str) -> None:
        self.step, self.lines = step, list[str]()

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Task]:
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.step and note.startswith(self.step):
            self.step = ""
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def pressed() -> Iterator[None]:
    """SIGUSR1 is Ctrl-C, which a test's process may ignore."""
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("pressed")
def test_an_interruption_ends_an_agent_in_a_question_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        profile([endless(tmp_path)], Settings(out=tmp_path / "out", protocol=QUICK, progress=Presses("load")))
    assert time.monotonic() - began < 60, "an answer may take 300 s"
    assert list((tmp_path / "tmp").iterdir()) == []


def remote(folder: Path, over_ssh: Callable[..., None]) -> str:
    """A board that is this machine."""
    over_ssh(lambda device: Host())
    (folder / "board.yaml").write_text(f"edgekd: 1\ntransport: ssh\nhost: board\npython: [{sys.executable}]\n")
    return str(folder / "board.yaml")


@pytest.mark.usefixtures("pressed")
def test_an_interruption_after_the_last_device_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_ssh: Callable[..., None]
) -> None:
    progress = Presses("endless")  # the host, which is asked for outputs to compare with

    def later(variants: Any, threads: int, progress: Any) -> Any:
        return on_host([Variant("endless", "onnx", endless(tmp_path))], threads, progress)

    on_host = device_checks.on_host
    monkeypatch.setattr(device_checks, "on_host", later)
    settings = Settings(devices=(remote(tmp_path, over_ssh),), out=tmp_path / "out", protocol=QUICK, progress=progress)
    done = profile([conv(tmp_path)], settings)
    assert done.exit_code == ExitCode.INTERRUPTED
    assert [(record.device, record.model) for record in done.result.profiles] == [("board", "conv")]
    told = "outputs on board: not compared with those of this machine: interrupted"
    assert told in lacking(done.result)
    assert read_run(done.folder) == done.result


def test_a_file_that_does_not_end_on_this_machine_is_said_and_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_checks, "HOST_S", 0.5)
    progress = Presses("")
    pack.pack([endless(tmp_path)], Settings(protocol=QUICK, progress=progress), tmp_path / "pack")
    (line,) = progress.lines
    assert line.startswith("  endless: no outputs on this machine to compare with: onnx on host: no answer within")


def test_outputs_that_this_machine_does_not_have_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_ssh: Callable[..., None]
) -> None:
    monkeypatch.setattr(device_checks, "HOST_S", 0.0)
    settings = Settings(devices=(remote(tmp_path, over_ssh),), out=tmp_path / "out", protocol=QUICK)
    done = profile([conv(tmp_path)], settings)
    assert "outputs of conv on board: not compared with those of this machine: the file did not run here" in lacking(
        done.result
    )


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (FileNotFoundError(2, "No such file or directory", "/elsewhere"), "FileNotFoundError"),
    ],
)
def test_a_mistake_of_edgekd_on_one_device_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def begin(participants: Any, device: Any) -> str:
        if device.name == "second":
            return ""
        raise error

    monkeypatch.setattr(heat, "begin", begin)
    progress = Presses("")
    settings = Settings(devices=two_devices(tmp_path), out=tmp_path / "out", protocol=QUICK, progress=progress, debug=True)
    done = profile([conv(tmp_path)], settings)
    assert done.exit_code == ExitCode.DEVICE_FAILED
    assert [(record.device, record.model) for record in done.result.profiles] == [("second", "conv")]
    (failure,) = done.failures
    assert failure.startswith(f"first: unexpected error (a bug in edgekd): {told}")
    assert failure.endswith("\n  → run again with --debug and report what it prints")
    assert "in begin" in progress.lines[0]
