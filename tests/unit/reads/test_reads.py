"""A finished stage is used again only while everything of the user's that its making read has the same bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.unit.reads.watching import begin_afresh

from edgekd import cache, reads
from edgekd.engine import plan, runner
from edgekd.errors import StageError, UsageError
from edgekd.loading import load
from edgekd.progress import Silent
from edgekd.reads import watch
from edgekd.registry import losses

NET = """\
import json
from pathlib import Path

import numpy as np
from blocks import block
from torch import nn

import mylib

WIDTH = json.loads(Path(__file__).with_name("cfg.json").read_text())["width"]
TABLE = np.memmap(Path(__file__).with_name("t.bin"), dtype=np.uint8)
try:
    WIDTH = json.loads(Path(__file__).with_name("local.json").read_text())["width"]
except FileNotFoundError:
    pass


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body, self.head = block(3, WIDTH), nn.Linear(WIDTH, num_classes)
        mylib.once()

    def forward(self, x):
        return self.head(mylib.scale(self.body(x)).mean((2, 3)))
"""

LOSS = """\
from typing import ClassVar, Literal

from pathlib import Path

from edgekd.recipe.loss import Loss
from half import HALF

HALF *= float(Path(__file__).with_name("half.txt").read_text())


class Half(Loss):
    needs_teacher: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = False
    kind: Literal["half"] = "half"

    def __call__(self, student, teacher, batch, adapter):
        return HALF * student.primary.square().mean()
"""

RECIPE = """\
edgekd: 1
data: {source: "imagefolder:images", image_size: 8}
student: {model: net.py:Net}
distill: {epochs: 1, batch_size: 16, losses: [{kind: task}, {kind: half}]}
reads: [native.bin, tables]
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project that has run once: own model, own loss, linked data, config files, and a library beside it."""
    with pytest.MonkeyPatch.context() as patch:
        begin_afresh(patch)
        root = tmp_path_factory.mktemp("reads")
        patch.setenv("EDGEKD_CACHE", str(root / "cache"))
        random = np.random.default_rng(0)
        for place in ("store/train/a", "store/train/b", "elsewhere/a", "images/test/b"):
            (root / "project" / place).mkdir(parents=True)
            for index in range(6):
                pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(root / "project" / place / f"{index}.png")
        project = root / "project"
        (project / "images" / "train").symlink_to("../store/train")
        (project / "images" / "test" / "a").symlink_to(project / "elsewhere" / "a")
        files = {
            "net.py": NET, "cfg.json": '{"width": 4}', "recipe.yaml": RECIPE, "native.bin": "1", "tables/a.txt": "1",
            "blocks.py": "from torch import nn\n\n\ndef block(a, b):\n    return nn.Conv2d(a, b, 3, 2, 1)\n",
            "t.bin": "4", "../lib/mylib/__init__.py": "from .core import once, scale\n",
            "../lib/mylib/core.py": "from pathlib import Path\nS = float((Path(__file__).parent / 's').read_text())\n"
            "def scale(x): return x * S\nfrom functools import lru_cache\n@lru_cache\n"
            "def once(): return (Path(__file__).parent / 'once').read_text()\n",
            "../lib/mylib/s": "2.0", "../lib/mylib/once": "1", "../site/halfloss.py": LOSS,
            "../site/half.py": "HALF = 0.5\n", "../site/half.txt": "1.0",
            "../site/halfloss-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: halfloss\nVersion: 1.0\n",
            "../site/halfloss-1.0.dist-info/entry_points.txt": "[edgekd.losses]\nhalf = halfloss:Half\n",
        }  # fmt: skip
        for name, text in files.items():
            (project / name).parent.mkdir(parents=True, exist_ok=True)
            (project / name).write_text(text)
        for name in ("lib", "site"):
            patch.syspath_prepend(str(root / name))
        for file in root.rglob("*"):  # settled: no test waits for the clock of the disk
            os.utime(file, ns=(10**18, 10**18))
        runner.run(load(project / "recipe.yaml"), runner.Options(root / "reports", Silent()))
        yield project
        for name in ("mylib", "mylib.core", "halfloss", "half"):
            sys.modules.pop(name, None)
        losses._entries.pop("half", None)


@pytest.fixture(autouse=True)
def _shared_cache(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, _own_cache: None) -> None:
    if "project" in request.fixturenames:
        monkeypatch.setenv("EDGEKD_CACHE", str(request.getfixturevalue("project").parent / "cache"))


def lock(project: Path) -> Path:
    return project.parent / "reports" / "recipe" / "latest" / "recipe.lock.yaml"


def statuses(project: Path) -> dict[str, str]:
    return {step.name: step.status for step in plan.make(load(project / "recipe.yaml"))}


LIBRARY = ("lib/mylib/__init__.py", "lib/mylib/core.py", "lib/mylib/once", "lib/mylib/s")
CODE = ("project/net.py", "project/blocks.py", "project/cfg.json", "project/t.bin", *LIBRARY)
PLUGIN = ("site/half.py", "site/half.txt", "site/halfloss.py")
ABSENT = ("project/local.json",)
DECLARED = ("project/native.bin", "project/tables/a.txt")
DATA = tuple(
    f"project/{place}/{index}.png"
    for place in ("store/train/a", "store/train/b", "elsewhere/a", "images/test/b")
    for index in range(6)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    item=st.sampled_from(CODE + PLUGIN + ABSENT + DECLARED + DATA), position=st.floats(0, 0.999), keeps_time=st.booleans()
)
def test_any_changed_byte_of_anything_that_was_read_is_a_miss(
    project: Path, item: str, position: float, keeps_time: bool
) -> None:
    """And the old bytes are a hit again. A stage that did not use the loss does not ask for it."""
    assert set(statuses(project).values()) == {"cached", "run"}
    assert statuses(project)["distill"] == statuses(project)["evaluate"] == "cached"
    file = project.parent / item
    content = None if item in ABSENT else file.read_bytes()
    times = file.stat() if content else None
    changed = bytearray(content or b"{}")
    changed[int(position * len(changed))] ^= 1
    try:
        file.write_bytes(changed)
        if keeps_time and times:
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        found = statuses(project)
        assert found["distill"] == found["evaluate"] == "run"
        if (
            item.startswith("project/") and content is not None
        ):  # a library is not locked: where it lies is another machine's own
            with pytest.raises(UsageError, match=r"recipe\.lock\.yaml was made with other bytes than there are now in "):
                plan.make(load(lock(project)))
        assert found["student_alone"] == ("cached" if item in PLUGIN else "run")
    finally:
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
    assert statuses(project)["distill"] == "cached"


@pytest.mark.parametrize("item", [*CODE[2:], *PLUGIN])
def test_a_missing_file_is_a_miss(project: Path, item: str) -> None:
    file = project.parent / item
    file.rename(file.with_suffix(".away"))
    try:
        assert statuses(project)["distill"] == "run"
    finally:
        file.with_suffix(".away").rename(file)
    assert statuses(project)["distill"] == "cached"


def test_links_that_point_elsewhere_are_other_data(project: Path) -> None:
    link = project / "images" / "train"
    shutil.copytree(project / "store", project / "other", dirs_exist_ok=True)
    (project / "other" / "train" / "a" / "0.png").unlink()
    link.unlink()
    link.symlink_to("../other/train")
    try:
        assert statuses(project)["distill"] == "run"
    finally:
        link.unlink()
        link.symlink_to("../store/train")
    assert statuses(project)["distill"] == "cached"


def test_plan_shows_what_is_watched_and_why_a_stage_runs(project: Path) -> None:
    steps = {step.name: step for step in plan.make(load(project / "recipe.yaml"))}
    watched = [Path(path).relative_to(project.parent).as_posix() for path in steps["distill"].watched]
    assert watched == sorted(["project/cfg.json", "project/t.bin", *LIBRARY, *PLUGIN])
    assert steps["evaluate"].watched == steps["distill"].watched
    assert not {*PLUGIN} & {Path(p).relative_to(project.parent).as_posix() for p in steps["student_alone"].watched}
    (project / "cfg.json").write_text('{"width": 5}')
    try:
        reasons = {step.name: step.reason for step in plan.make(load(project / "recipe.yaml"))}
        assert reasons["distill"] == f"{project}/cfg.json changed"
    finally:
        (project / "cfg.json").write_text('{"width": 4}')


def test_a_project_can_be_moved(project: Path, tmp_path: Path) -> None:
    """What lies beside the recipe counts where it lies now."""
    moved = tmp_path / "moved"
    shutil.copytree(project, moved, symlinks=True)
    assert statuses(moved)["distill"] == "cached"
    (moved / "cfg.json").write_text('{"width": 5}')
    assert statuses(moved)["distill"] == "run"
    assert statuses(project)["distill"] == "cached"


def test_a_lock_moves_with_its_project(project: Path, tmp_path: Path) -> None:
    """No path in it is of this place, and what the code reads is looked for beside the recipe that it was made from."""
    moved = tmp_path / "moved"
    shutil.copytree(project.parent, moved, symlinks=True, ignore=shutil.ignore_patterns("cache"))
    assert str(project.parent) not in lock(project).read_text()
    replayed = load(lock(moved / "project"))
    assert replayed.recipe == load(moved / "project" / "recipe.yaml").recipe
    assert {step.name: step.status for step in plan.make(replayed)} | {"package": "run"} == statuses(project)
    assert replayed.lock is not None
    names = {Path(name).name for name in replayed.lock.sha256}
    assert names == {"net.py", "blocks.py", "cfg.json", "images", "native.bin", "t.bin", "tables"}
    (moved / "project" / "cfg.json").write_text('{"width": 5}')
    with pytest.raises(UsageError, match=f"other bytes than there are now in {moved}/project/cfg.json") as caught:
        plan.make(replayed)
    assert caught.value.hint.endswith(f"edgekd run {moved}/project/recipe.yaml")
    (moved / "project" / "cfg.json").unlink()
    with pytest.raises(UsageError, match=r"cfg\.json"):
        plan.make(replayed)
    (moved / "project" / "cfg.json").write_text('{"width": 4}')
    assert plan.make(replayed)[0].status == "cached"
    other = load(lock(moved / "project"), ["student.model=edgekd:resnet8", "reads=[]"])
    (moved / "project" / "net.py").write_text("")
    assert plan.make(other)[0].status == "run"  # which no longer names what has changed


def test_a_lock_without_its_project_is_replayed_from_the_folder_of_its_recipe(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run folder was copied elsewhere, such as to a colleague who has the project in another place."""
    moved, sent = tmp_path / "a" / "copy", tmp_path / "sent" / "by" / "mail"
    shutil.copytree(project, moved, symlinks=True)
    shutil.copytree(lock(project).parent.resolve(), sent)
    with pytest.raises(UsageError, match="was made with files that are not there") as caught:
        plan.make(load(sent / "recipe.lock.yaml"))
    assert "from the folder of its recipe" in caught.value.hint
    monkeypatch.chdir(moved)
    replayed = load(sent / "recipe.lock.yaml")
    assert replayed.recipe == load(moved / "recipe.yaml").recipe
    assert replayed.folder == moved
    assert {step.name: step.status for step in plan.make(replayed)} | {"package": "run"} == statuses(project)
    (moved / "cfg.json").write_text('{"width": 5}')
    with pytest.raises(UsageError, match=f"other bytes than there are now in {moved}/cfg.json"):
        plan.make(replayed)


class Edits(Silent):
    """Changes a file when a line that begins with ``when`` is said."""

    def __init__(self, when: str, act: Callable[[], object]) -> None:
        self.when, self.act = when, act

    def say(self, text: str) -> None:
        if self.when in text:
            self.act()


@pytest.mark.parametrize("item", ["net.py", "cfg.json", "store/train/a/0.png"])
def test_what_changes_during_a_run_is_no_result_of_the_old_version(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: str
) -> None:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    file = project / item
    content = file.read_bytes()
    progress = Edits("] distill:", lambda: file.write_bytes(content + b"\n"))
    try:
        if item == "cfg.json":  # of no key: what is kept is not used for the old bytes
            runner.run(load(project / "recipe.yaml"), runner.Options(tmp_path, progress))
        else:
            with pytest.raises(StageError, match="changed during this run"):
                runner.run(load(project / "recipe.yaml"), runner.Options(tmp_path, progress))
    finally:
        file.write_bytes(content)
    assert statuses(project)["distill"] == "run"


def test_a_file_that_changes_after_it_was_read_never_matches(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("1")
    os.utime(file, ns=(10**18, 10**18))
    with watch.recording() as recorder:
        file.read_text()
        time.sleep(0.05)
        file.write_text("2")
    (read,) = recorder.reads(tmp_path)
    assert read.sha256 == hashlib.sha256(b"1").hexdigest()  # what was read before this process wrote it
    with watch.recording() as recorder:
        file.read_text()
        time.sleep(0.05)
        subprocess.run(["sh", "-c", f"printf 3 > {file}"], check=True)
    (read,) = recorder.reads(tmp_path)
    assert read.sha256 == ""
    assert reads.changed([read], tmp_path) == f"{file} changed"


def test_what_is_not_the_users_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("1")
    with watch.recording() as recorder:
        Path(os.__file__).read_bytes()
        Path(np.__file__).read_bytes()
        Path(reads.__file__).read_bytes()
        Path("/proc/self/stat").read_bytes()
        (tmp_path / "made.txt").write_text("made")
        (tmp_path / "made.txt").read_text()
        (tmp_path / "gone.txt").write_text("gone")
        (tmp_path / "gone.txt").unlink()
        with reads.in_key(tmp_path / "mine.txt"), reads.in_key(tmp_path / "other.txt"):
            (tmp_path / "mine.txt").read_text()
        descriptor = os.open(tmp_path, os.O_RDONLY)
        os.close(descriptor)
    assert recorder.reads(tmp_path) == ()
    with watch.recording() as recorder, reads.in_key(tmp_path / "other.txt"):  # it is no file of the key
        (tmp_path / "mine.txt").read_text()
    assert [read.relative for read in recorder.reads(tmp_path)] == ["mine.txt"]


def test_an_entry_of_an_older_edgekd_is_a_miss(tmp_path: Path) -> None:
    with cache.scratch() as folder:
        entry = cache.commit(folder, "ab" * 32, {}, 1.0)
    text = (entry.path / "key.json").read_text().replace('"reads": []', '"other": []')
    (entry.path / "key.json").write_text(text)
    assert cache.lookup("ab" * 32) == (None, "an older edgekd made it, which did not note what a stage reads")


def test_declared_folders_are_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a.txt").write_text("1")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "linked").symlink_to("../store")
    (tmp_path / "store" / "loop").symlink_to("..")
    before = reads.declared([str(tmp_path / "tables")])
    (tmp_path / "store" / "a.txt").write_text("2")
    assert reads.declared([str(tmp_path / "tables")]) != before


def test_declared_reads_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no.bin does not exist"):
        reads.declared([str(tmp_path / "no.bin")])


def test_declared_pipes_are_left_out_and_no_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a pipe waits for ever; and names of files are bytes, whatever they say."""
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "a.csv").write_text("1")
    before = reads.declared([str(folder)])
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(folder)  # a socket's path has to be short
        listening.bind("socket")
        assert reads.declared([str(folder)]) == before
    with pytest.raises(UsageError, match="pipe is a pipe, a socket or a device, not a file"):
        reads.declared([str(folder / "pipe")])
    odd = folder / os.fsdecode(b"\xff.csv")
    odd.write_text("2")
    assert reads.declared([str(folder)]) != before
    old = time.time() - 60
    os.utime(odd, (old, old))
    reads.state([odd])
