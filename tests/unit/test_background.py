from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.background import Background
from edgekd.errors import StageError, TrainingError


def double(value: int) -> int:
    return 2 * value


def fail() -> None:
    raise TrainingError("the loss is nan", "lower the learning rate")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def linger(folder: Path) -> None:
    (folder / "half").write_text("")
    try:
        time.sleep(600)
    finally:
        (folder / "half").unlink()


def test_it_gives_the_result() -> None:
    with Background(double, 21) as work:
        assert work.result() == 42


def test_an_error_keeps_its_words() -> None:
    with Background(fail) as work, pytest.raises(StageError, match="the loss is nan") as caught:
        work.result()
    assert caught.value.hint == "lower the learning rate"


def test_a_process_that_dies_is_an_error() -> None:
    with Background(die) as work, pytest.raises(StageError, match=r"killed \(SIGKILL\)"):
        work.result()


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
        "from edgekd.background import Background\nimport operator\n"
        "if __name__ == '__main__':\n    with Background(operator.add, 40, 2) as work:\n        print(work.result())\n"
    )
    for command in ([str(script / "run.py")], ["-m", "edgekd", "--version"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
