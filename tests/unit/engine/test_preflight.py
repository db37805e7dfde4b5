"""What a recipe names and is not there: all of it at once, each at its line, and nothing is run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from edgekd.engine import plan, preflight
from edgekd.errors import Problem
from edgekd.loading import load

NET = """\
from torch import nn as layers
raise RuntimeError("this file is not run")
class Big: pass
def small(): pass
"""

RECIPE = """\
edgekd: 1
data: {source: "imagefolder:images"}
teacher:
  ensemble:
    - {model: "net.py:Big", weights: best.pt}
    - {model: "onnx:other.onnx", data: {source: "imagefolder:images"}}
student: {model: "net.py:small"}
distill: {epochs: 1, losses: [{kind: kd}]}
export: [onnx]
profile: {devices: [host]}
reads: [table.csv]
"""


@pytest.fixture
def problems(tmp_path: Path) -> Callable[..., list[Problem]]:
    (tmp_path / "net.py").write_text(NET)
    for name in ("best.pt", "other.onnx", "table.csv"):
        (tmp_path / name).write_bytes(b"")
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "images" / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / place / "0.png")

    def found(*changes: tuple[str, str], overrides: tuple[str, ...] = ()) -> list[Problem]:
        text = RECIPE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "r.yaml").write_text(text)
        return preflight.problems(load(tmp_path / "r.yaml", overrides))

    return found


def test_a_recipe_whose_files_are_all_there(problems: Callable[..., list[Problem]]) -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("old", "new", "key", "message", "hint"),
    [
        ("imagefolder:images", "imagefolder:image", "data.source", "image does not exist", "did you mean images?"),
        ("net.py:Big", "net.py:Bigg", "teacher.ensemble[0].model", "net.py has no Bigg", "did you mean Big?"),
        ("net.py:small", "nets.py:small", "student.model", "nets.py does not exist", "did you mean net.py?"),
        ("best.pt", "bst.pt", "teacher.ensemble[0].weights", "bst.pt does not exist", "did you mean best.pt?"),
        ("best.pt", "no/best.pt", "teacher.ensemble[0].weights", "no/best.pt does not exist", "there is no folder"),
        ("best.pt", "https://host/best.pt", "teacher.ensemble[0].weights", "is a URL", "download it"),
        ("other.onnx", "no.onnx", "teacher.ensemble[1].model", "no.onnx does not exist", "did you mean"),
        ("[host]", "[host, pi9]", "profile.devices[1]", "no device called 'pi9'", "allowed: "),
        ("table.csv", "no.csv", "reads", "no.csv does not exist", "correct the path"),
    ],
)
def test_what_is_not_there_is_found_at_its_place(
    problems: Callable[..., list[Problem]], old: str, new: str, key: str, message: str, hint: str
) -> None:
    found = problems((old, new))[0]
    assert (found.key, message in found.message) == (key, True)
    assert hint in found.hint
    assert found.snippet


def test_all_at_once_and_also_of_set(problems: Callable[..., list[Problem]]) -> None:
    found = problems(("best.pt", "no1.pt"), ("[host]", "[pi9]"), overrides=("student.weights=no2.pt",))
    assert [problem.key for problem in found] == ["teacher.ensemble[0].weights", "profile.devices[0]", "student.weights"]
    assert found[-1].where == "--set student.weights=no2.pt"


def test_names_that_only_running_the_file_would_tell_are_not_refused(
    problems: Callable[..., list[Problem]], tmp_path: Path
) -> None:
    for text in ("from blocks import *\n", "globals()['small'] = 1\n", "if True:\n    small = Big = 1\n", "def broken(:\n"):
        problems()
        (tmp_path / "net.py").write_text(text)
        assert preflight.problems(load(tmp_path / "r.yaml")) == []


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user may look into, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.setenv("EDGEKD_CACHE", str(folder / "cache"))
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o700)
    shutil.rmtree(folder)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be someone who may not read everything, as root may."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("images", "data.source"),
        ("images/train", "data.source"),
        ("images/train/a", "data.source"),
        ("images/test/b/0.png", "data.source"),
        ("net.py", "student.model"),
        ("blocks.py", "student.model"),
        ("best.pt", "student.weights"),
        ("table.csv", "reads"),
        ("tables", "reads"),
    ],
)
def test_what_may_not_be_read_is_told_by_check_and_by_plan(shared: Path, place: str, key: str) -> None:
    (shared / "net.py").write_text("import blocks\ndef small(): pass\n")
    for name in ("best.pt", "table.csv", "blocks.py"):
        (shared / name).write_bytes(b"")
    for folder in ("images/train/a", "images/train/b", "images/test/a", "images/test/b", "tables"):
        (shared / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(shared / folder / "0.png")
    (shared / "r.yaml").write_text(
        "edgekd: 1\ndata: {source: 'imagefolder:images'}\nstudent: {model: 'net.py:small', weights: best.pt}\n"
        "quantize: {method: ptq}\nexport: [onnx]\nreads: [table.csv, tables]\n"
    )
    loaded = load(shared / "r.yaml")
    assert preflight.problems(loaded) == []
    assert not any(step.problem for step in plan.make(loaded))
    (shared / place).chmod(0)
    with unprivileged():  # who may not read Python either: all that is imported has been by now
        (problem,) = preflight.problems(loaded)
        (blocked,) = [step for step in plan.make(loaded) if step.problem]
    assert problem.key == key
    assert "cannot be read" in problem.message
    assert place in problem.message
    assert "permissions" in problem.hint
    assert f"{place} cannot be read" in str(blocked.problem) or f"{place}/train cannot be read" in str(blocked.problem)


def test_images_that_are_links_to_nothing(problems: Callable[..., list[Problem]], tmp_path: Path) -> None:
    problems()
    for number in (1, 2):
        (tmp_path / "images" / "train" / "a" / f"{number}.png").symlink_to("no.png")
    told = f"{tmp_path}/images/train/a/1.png is a link to nothing, and 1 more files"
    assert [problem.message for problem in problems()] == [told]


@pytest.mark.parametrize(
    ("place", "key"), [("net.py", "student.model"), ("best.pt", "teacher.ensemble[0].weights"), ("table.csv", "reads")]
)
def test_a_pipe_is_no_file(problems: Callable[..., list[Problem]], tmp_path: Path, place: str, key: str) -> None:
    """Opening one waits for ever."""
    problems()
    (tmp_path / place).unlink()
    os.mkfifo(tmp_path / place)
    found = preflight.problems(load(tmp_path / "r.yaml"))
    assert key in [problem.key for problem in found]
    assert {problem.message for problem in found} == {f"{tmp_path}/{place} is a pipe, a socket or a device, not a file"}
