"""A file is written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd import writes

FULL_DISK = """\
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.dont_write_bytecode = True
import edgekd.loading.upgrade, edgekd.engine.guard, edgekd.recipe
resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
from edgekd.cli import main
main(sys.argv[1:])
"""


def test_a_link_and_the_mode_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "target.yaml", tmp_path / "link.yaml"
    target.write_text("before")
    target.chmod(0o640)
    link.symlink_to(target.name)
    writes.write_text(link, "after\r\n")
    assert link.is_symlink()
    assert target.read_bytes() == b"after\r\n"
    assert target.stat().st_mode & 0o777 == 0o640
    assert {path.name for path in tmp_path.iterdir()} == {"target.yaml", "link.yaml"}


def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    writes.write_text(tmp_path / "new", "text")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_nothing_is_left_of_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        writes.write_text(path, "after")
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_upgrade_on_a_full_disk_leaves_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "my.yaml"
    text = "edgekd: 1\ndata: {source: fashion-mnist-mini}\nstudent: {model: edgekd:resnet10}\n"
    recipe.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "upgrade", str(recipe)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "→" in done.stderr
    assert "Traceback" not in done.stderr
    assert recipe.read_text() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["my.yaml"]
