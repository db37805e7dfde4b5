from __future__ import annotations

import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd import cache
from edgekd.assembly.background import Background
from edgekd.engine import runner
from edgekd.engine.beside import Beside
from edgekd.errors import EdgekdError, LayerError, StageError, TrainingError, UsageError
from edgekd.loading import load
from edgekd.progress import Silent


def double(value: int) -> int:
    return 2 * value


def fail() -> None:
    raise TrainingError("the loss is nan", "lower the learning rate")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_half_way(*_: object) -> None:
    with cache.scratch() as folder:
        (folder / "half").write_text("")
        die()


def linger(folder: Path) -> None:
    (folder / "half").write_text("")
    try:
        time.sleep(600)
    finally:
        (folder / "half").unlink()


def raises(error: EdgekdError) -> None:
    raise error


def test_it_gives_the_result() -> None:
    with Background(double, 21) as work:
        assert work.result() == 42


def test_an_error_keeps_its_words() -> None:
    with Background(fail) as work, pytest.raises(StageError, match="the loss is nan") as caught:
        work.result()
    assert caught.value.hint == "lower the learning rate"


@pytest.mark.parametrize("error", [UsageError("no such file", "name another"), LayerError("no layer", "see --layers")])
def test_an_error_keeps_its_class_and_exit_code(error: EdgekdError) -> None:
    with Background(raises, error) as work, pytest.raises(type(error), match=error.message) as caught:
        work.result()
    assert (type(caught.value), caught.value.hint) == (type(error), error.hint)
    assert caught.value.exit_code == error.exit_code


def test_a_process_that_dies_is_an_error() -> None:
    with Background(die) as work, pytest.raises(StageError, match=r"killed \(SIGKILL\)"):
        work.result()


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_what_became_of_it_is_said_while_another_stage_is_under_way() -> None:
    """Once, and what is under way goes on."""
    said = Said()
    with Background(die) as work, Beside(said, work, "student_alone").task("distill", 9) as task:
        deadline = time.monotonic() + 60
        while not said.lines and time.monotonic() < deadline:
            time.sleep(0.05)
            task.advance()
        task.advance()
    assert said.lines == [
        "  FAILED: student_alone: the process that trains beside the others was killed (SIGKILL), as systems do when the "
        "memory is full; this run stops when the stage that is under way is done"
    ]


def test_one_that_ends_well_has_no_failure() -> None:
    with Background(double, 21) as work:
        while work._process.is_alive():
            assert work.failure() is None
        assert work.failure() is None
        assert work.result() == work.result() == 42


RECIPE = """\
edgekd: 1
data: {source: "SOURCE", image_size: 16}
teacher: {model: "edgekd:resnet10", args: {width: 4}, train: {epochs: 1, batch_size: 32}}
student: {model: "edgekd:resnet10", args: {width: 4}}
distill: {epochs: 1, batch_size: 32, losses: [{kind: task}, {kind: kd}]}
seeds: 2
"""


def test_a_run_stops_at_the_next_stage_and_leaves_nothing_half_made(
    tmp_path: Path, npz: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE.replace("SOURCE", npz()))
    monkeypatch.setattr(runner, "_two_lanes", lambda _: True)
    monkeypatch.setattr(runner, "_stages", die_half_way)
    said = Said()

    def trains(self: Any, step: Any) -> None:
        said.lines.append(step.name)
        while not said.lines[-1].startswith("  FAILED"):
            with self.options.progress.task("training", 1) as task:
                task.advance()
            time.sleep(0.05)

    monkeypatch.setattr(runner._Work, "do", trains)
    with pytest.raises(StageError, match=r"the process that trains beside the others was killed \(SIGKILL\)"):
        runner.run(load(tmp_path / "r.yaml"), runner.Options(tmp_path / "out", said, threads=2))
    assert [line for line in said.lines if line in ("teacher", "distill", "distill.seed1", "evaluate")] == ["teacher"]
    assert list((cache.root() / "scratch").iterdir()) == []


def test_leaving_ends_it_and_it_cleans_up(tmp_path: Path) -> None:
    with Background(linger, tmp_path):
        while not (tmp_path / "half").exists():
            time.sleep(0.05)
    assert not (tmp_path / "half").exists()


def parent_of_linger(folder: Path) -> None:
    with Background(linger, folder) as work:
        work.result()


def test_it_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("spawn").Process(target=parent_of_linger, args=(tmp_path,))
    parent.start()
    while not (tmp_path / "half").exists():
        time.sleep(0.05)
    parent.kill()
    parent.join()
    for _ in range(200):
        if not (tmp_path / "half").exists():
            return
        time.sleep(0.05)
    pytest.fail("the process went on without its parent, and left a half-made file")


def test_a_module_in_the_working_folder_is_not_pythons(tmp_path: Path) -> None:
    """A ``signal.py`` or ``types.py`` beside somebody's recipe."""
    for name in ("signal", "types", "selectors"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working folder was run')\n")
    script = tmp_path / "script"
    script.mkdir()
    (script / "run.py").write_text(
        "from edgekd.assembly.background import Background\nimport operator\n"
        "if __name__ == '__main__':\n    with Background(operator.add, 40, 2) as work:\n        print(work.result())\n"
    )
    for command in ([str(script / "run.py")], ["-m", "edgekd", "--version"]):
        if "-m" in command:
            (tmp_path / "types.py").unlink()  # Python's own -m imports it before anything of edgekd
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.parametrize("safe", [None, "1"])
def test_the_environment_is_as_before(safe: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that the caller starts afterwards find their modules as before."""
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if safe:
        monkeypatch.setenv("PYTHONSAFEPATH", safe)
    before = dict(os.environ)
    with Background(operator.add, 40, 2) as work:
        assert work.result() == 42
    assert dict(os.environ) == before


@pytest.mark.parametrize("safe", ["", "1"])
def test_a_package_in_the_working_folder_is_found_where_pythonpath_names_it(tmp_path: Path, safe: str) -> None:
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgekd.losses]\nmine = mine:Mine\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": safe}
    command = [sys.executable, "-m", "edgekd", "list", "losses"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "mine:Mine of mine 1.0" in done.stderr  # it was found; there is no such module
