"""The user's own files: each one with the neighbours of its own folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.reads.watching import begin_afresh

import edgekd
from edgekd.models import user_file
from edgekd.models.torchvision import import_torchvision
from edgekd.reads import watch

import_torchvision()


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    begin_afresh(monkeypatch)


NET = """
import blocks
from parts.sizes import SIZE
import importlib

def build(**_):
    import late
    return blocks.NAME, SIZE, late.NAME, importlib.import_module("chosen").NAME, forward

def forward():
    import later, blocks
    return later.NAME, blocks.NAME
"""


def project(folder: Path, name: str) -> Path:
    (folder / "parts").mkdir(parents=True)
    for file in ("blocks", "late", "chosen"):
        (folder / f"{file}.py").write_text(f"NAME = {name!r}\n")
    (folder / "later.py").write_text(f"import blocks\nNAME = {name!r}\n")
    (folder / "parts" / "sizes.py").write_text(f"SIZE = {name!r}\n")
    (folder / "net.py").write_text(NET)
    return folder / "net.py"


def test_each_file_sees_the_modules_of_its_own_folder(tmp_path: Path) -> None:
    """At once, in the builder, and when the network runs, whichever was imported last."""
    before = {*sys.modules}, [*sys.path], [*sys.meta_path]  # torchvision is imported already
    a, b = (user_file.load(project(tmp_path / name, name), "build") for name in "ab")
    (*of_a, run_a), (*of_b, run_b) = a(), b()
    assert (of_a, of_b) == (["a"] * 4, ["b"] * 4)
    assert (run_a(), run_b(), run_a()) == (("a", "a"), ("b", "b"), ("a", "a"))
    assert {*sys.modules} - before[0] <= {"edgekd_user_net"}
    assert ([*sys.path], [*sys.meta_path]) == before[1:]


def test_a_package_without_init_is_the_folders_own(tmp_path: Path) -> None:
    """With and without ``__init__.py``, and modules in it that import each other."""
    for name in "ab":
        project(tmp_path / name, name)
        (tmp_path / name / "parts" / "more.py").write_text("from . import sizes\nfrom parts.sizes import SIZE\n")
        (tmp_path / name / "net.py").write_text("from parts import more\ndef build(): return more.SIZE, more.sizes.SIZE\n")
    (tmp_path / "b" / "parts" / "__init__.py").write_text("")
    for name in "abab":
        assert user_file.load(tmp_path / name / "net.py", "build")() == (name, name)


def test_a_scripts_modules_stay_the_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that calls edgekd and has a ``blocks`` of its own."""
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "blocks.py").write_text("NAME = 'script'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "script"))
    import blocks  # type: ignore[import-not-found]

    try:
        assert user_file.load(project(tmp_path / "a", "a"), "build")()[0] == "a"
        assert sys.modules["blocks"] is blocks
    finally:
        del sys.modules["blocks"]


def test_a_library_is_not_hidden_by_a_folder_of_its_name(tmp_path: Path) -> None:
    path = project(tmp_path / "a", "a")
    (path.parent / "torch").mkdir()
    (path.parent / "data").mkdir()
    path.write_text("import torch\ndef build(): return torch.nn.Identity\n")
    import torch

    assert user_file.load(path, "build")() is torch.nn.Identity


def test_an_edit_is_seen_by_the_same_process(tmp_path: Path) -> None:
    path = project(tmp_path / "a", "a")
    assert user_file.load(path, "build")()[0] == "a"
    (path.parent / "blocks.py").write_text("NAME = 'edited'\n")
    assert user_file.load(path, "build")()[0] == "edited"


def test_a_linked_file_has_the_neighbours_of_the_link(tmp_path: Path) -> None:
    """And a project behind a linked folder reads nothing that is not in its key."""
    for name in "ab":
        project(tmp_path / name, name)
    (tmp_path / "b" / "net.py").unlink()
    (tmp_path / "b" / "net.py").symlink_to("../a/net.py")
    assert user_file.load(tmp_path / "b" / "net.py", "build")()[0] == "b"
    (tmp_path / "linked").symlink_to("a")
    with watch.recording() as recorder:
        assert user_file.load(tmp_path / "linked" / "net.py", "build")()[0] == "a"
    assert [Path(read.path).name for read in recorder.reads(tmp_path)] == ["chosen.py"]  # by name alone, in no import


def test_edgekd_beside_the_file_stays_edgekd(tmp_path: Path) -> None:
    """Of a checkout, whose folder has the file too."""
    shutil.copytree(Path(edgekd.__file__).parent, tmp_path / "edgekd", ignore=shutil.ignore_patterns("assets"))
    (tmp_path / "net.py").write_text("import edgekd\ndef build(): return edgekd\n")
    script = (
        "import edgekd, sys\nfrom pathlib import Path\nfrom edgekd.models import user_file\n"
        "assert Path(edgekd.__file__).parents[1] == Path(sys.argv[1]), edgekd.__file__\n"
        "assert user_file.load(Path(sys.argv[1]) / 'net.py', 'build')() is edgekd\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)


def names(recorder: watch.Recorder, folder: Path) -> list[str]:
    return [Path(read.path).relative_to(folder).as_posix() for read in recorder.reads(folder)]


def test_what_it_reads_besides_its_modules_is_recorded_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config file, and a library on PYTHONPATH with what that imports and reads, though Python imports that once."""
    lib = tmp_path / "lib" / "mylib"
    lib.mkdir(parents=True)
    (lib / "table.csv").write_text("1\n")
    (lib / "__init__.py").write_text("from .core import X\n")
    (lib / "core.py").write_text("from pathlib import Path\nX = Path(__file__).with_name('table.csv').read_text()\n")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    path = project(tmp_path / "a", "a")
    (path.parent / "cfg.json").write_text("{}")
    path.write_text(
        "from pathlib import Path\nimport mylib\nopen(Path(__file__).with_name('cfg.json')).close()\n"
        "def build():\n    open(Path(__file__).with_name('blocks.py')).close()\n"
    )
    try:
        for _ in range(2):
            with watch.recording() as recorder:
                user_file.load(path, "build")()
            expected = ["a/cfg.json", "lib/mylib/__init__.py", "lib/mylib/core.py", "lib/mylib/table.csv"]
            assert names(recorder, tmp_path) == ["a/blocks.py", *expected]
    finally:
        for name in ("mylib", "mylib.core"):
            sys.modules.pop(name, None)
