from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd import cache
from edgekd.errors import StorageError

KEY = cache.key_of({"stage": "distill"})


def finished(content: str = "weights", key: str = KEY) -> cache.Entry:
    with cache.scratch() as folder:
        (folder / "deep").mkdir()
        (folder / "weights.bin").write_text(content)
        (folder / "deep" / "curve.json").write_text("[]")
        return cache.commit(folder, key, {"stage": "distill"}, 1.25)


def test_commit_and_lookup() -> None:
    assert cache.lookup(KEY) == (None, "")
    entry = finished()
    assert cache.lookup(KEY) == (entry, "")
    assert entry.seconds == 1.25
    assert (entry.path / "weights.bin").read_text() == "weights"
    assert (entry.path / "deep" / "curve.json").read_text() == "[]"
    assert cache.digests(entry.path) == {
        name: hashlib.sha256((entry.path / name).read_bytes()).hexdigest() for name in ("deep/curve.json", "weights.bin")
    }


def test_key_is_of_the_material_alone() -> None:
    assert cache.key_of({"a": 1, "b": [2]}) == cache.key_of({"b": [2], "a": 1})
    assert cache.key_of({"a": 1}) != cache.key_of({"a": 2})
    assert cache.key_of({"a": "1"}) != cache.key_of({"a": 1})


@pytest.mark.parametrize("file", ["weights.bin", "deep/curve.json"])
def test_a_damaged_file_is_a_miss_said_aloud(file: str) -> None:
    entry = finished()
    content = (entry.path / file).read_bytes()
    (entry.path / file).write_bytes(content[:-1] + b"?")
    assert cache.lookup(KEY) == (None, f"{entry.path}/{file} is damaged")
    (entry.path / file).unlink()
    assert cache.lookup(KEY) == (None, f"{entry.path}/{file} is missing")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"files": 3, "seconds": 1}', '{"files": {}, "seconds": null}'])
def test_a_damaged_key_file(content: str) -> None:
    path = finished().path / "key.json"
    path.write_text(content)
    assert cache.lookup(KEY) == (None, f"{path} is damaged")
    path.unlink()
    assert cache.lookup(KEY) == (None, f"{path} is missing")


def test_a_damaged_entry_is_replaced() -> None:
    entry = finished("old")
    (entry.path / "weights.bin").write_text("bad")
    finished("new")
    found, _ = cache.lookup(KEY)
    assert found is not None
    assert (found.path / "weights.bin").read_text() == "new"


def test_scratch_is_gone_whatever_happens() -> None:
    with pytest.raises(RuntimeError), cache.scratch() as folder:
        (folder / "half.bin").write_text("half")
        raise RuntimeError
    finished()
    assert list((cache.root() / "scratch").iterdir()) == []


def test_a_crash_before_the_rename_leaves_nothing(tmp_path: Path) -> None:
    """The process is killed when everything is written and only the rename is missing."""
    script = f"""
import os
from pathlib import Path
from edgekd import cache
Path.rename = lambda *_: os._exit(9)
with cache.scratch() as folder:
    (folder / "weights.bin").write_text("weights")
    cache.commit(folder, {KEY!r}, {{}}, 1.0)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert cache.lookup(KEY) == (None, "")
    finished()
    assert cache.lookup(KEY)[0] is not None


TWO = """
import sys, time
from pathlib import Path
from edgekd import cache
key, name, mark = sys.argv[1:]
with cache.locked(key):
    entry, _ = cache.lookup(key)
    if entry is None:
        Path(mark).touch()
        time.sleep(1)  # the other one comes now
        with cache.scratch() as folder:
            (folder / "made_by").write_text(name)
            entry = cache.commit(folder, key, {}, 1.0)
        print("made")
    else:
        print("found", (entry.path / "made_by").read_text())
"""


def test_a_second_run_waits_and_takes_the_first_ones_result(tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", TWO, KEY, name, str(tmp_path / "mark")]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    first = start("first")
    while not (tmp_path / "mark").exists():
        assert first.poll() is None
    second = start("second")
    assert first.communicate()[0] == "made\n"
    assert second.communicate()[0] == "found first\n"


def test_the_lock_ends_with_its_process() -> None:
    script = f"import os\nfrom edgekd import cache\nwith cache.locked({KEY!r}): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    with cache.locked(KEY):
        pass


def test_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("EDGEKD_CACHE", "here")
    assert cache.root() == tmp_path / "here"
    monkeypatch.setenv("EDGEKD_CACHE", "~/there")
    assert cache.root() == Path("/home/me/there")
    monkeypatch.delenv("EDGEKD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.root() == Path("/home/me/.cache/edgekd")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert cache.root() == Path("/var/cache/me/edgekd")


def test_what_was_last_made() -> None:
    assert cache.last("mobilenet", "distill") is None
    cache.remember("mobilenet", "distill", {"config": {"epochs": 8}})
    assert cache.last("mobilenet", "distill") == {"config": {"epochs": 8}}
    (cache.root() / "last" / "mobilenet" / "distill.json").write_text("{half")
    assert cache.last("mobilenet", "distill") is None


# --- storage that fails -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("only root can mount a small disk")
    monkeypatch.setenv("EDGEKD_CACHE", str(disk / "cache"))
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (disk / "full").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk(small_disk: Path) -> None:
    with cache.scratch() as folder:
        (folder / "weights.bin").write_text("weights")
        fill(small_disk)
        with pytest.raises(StorageError) as caught:
            cache.commit(folder, KEY, {}, 1.0)
    assert str(caught.value).startswith(f"the disk is full while writing {small_disk}/cache")
    assert str(caught.value).endswith("\n  → free some space and run the same command: finished stages are kept")
    assert cache.lookup(KEY) == (None, "")
    (small_disk / "full").unlink()
    finished()
    assert cache.lookup(KEY)[0] is not None


def test_a_copy_to_a_full_disk_is_told_by_its_target(small_disk: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "weights.bin", small_disk / "weights.bin"
    source.write_bytes(bytes(1 << 17))
    with pytest.raises(OSError, match="No space left") as caught:
        shutil.copyfile(source, target)
    told = cache.storage_error(caught.value, tmp_path)
    assert told.message == f"the disk is full while writing {target}"


def test_a_disk_that_is_read_only(small_disk: Path) -> None:
    entry = finished()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for act in (cache.scratch, lambda: cache.locked("other")):
        with pytest.raises(StorageError) as caught, act():
            pass
        assert "cannot be written: Read-only file system\n  → correct its permissions, or choose" in str(caught.value)
    with pytest.raises(StorageError):
        cache.remember("mobilenet", "distill", {})
    assert cache.lookup(KEY) == (entry, "")  # what is finished can still be used


def test_a_file_where_the_cache_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("mine")
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StorageError, match="cannot be written: Not a directory"), cache.scratch():
        pass
    with pytest.raises(StorageError, match="Not a directory"):
        cache.lookup(KEY)
    assert cache.last("mobilenet", "distill") is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "the disk is full while writing /out/a\n  → free some space and run the same command: finished "
                       "stages are kept"),
        (errno.EDQUOT, "the disk is full while writing /out/a\n  → free some space and run the same command: finished "
                       "stages are kept"),
        (errno.EACCES, "/out/a cannot be written: Permission denied\n  → correct its permissions, or choose another place "
                       "with --out (reports) or EDGEKD_CACHE (finished stages)"),
        (errno.EROFS, "/out/a cannot be written: Read-only file system\n  → correct its permissions, or choose another "
                      "place with --out (reports) or EDGEKD_CACHE (finished stages)"),
        (errno.EIO, "/out/a: Input/output error\n  → run the same command again: finished stages are kept"),
    ],
)  # fmt: skip
def test_words_for_storage_errors(number: int, text: str) -> None:
    assert str(cache.storage_error(OSError(number, os.strerror(number), "/out/a"), Path("/out"))) == text
    assert str(cache.storage_error(OSError(number, os.strerror(number)), Path("/out/a"))) == text
    assert str(cache.storage_error(OSError(number, os.strerror(number), "/in/a", None, "/out/a"), Path("/out"))) == text


def test_what_a_killed_process_left_is_removed_by_the_next() -> None:
    script = "import os\nfrom edgekd import cache\nwith cache.scratch() as folder:\n (folder / 'half').touch()\n os._exit(9)"
    subprocess.run([sys.executable, "-c", script], check=False)
    assert len(list((cache.root() / "scratch").iterdir())) == 2
    with cache.scratch() as first, cache.scratch() as second:
        assert first.is_dir()
        assert second.is_dir()
        assert len(list((cache.root() / "scratch").iterdir())) == 4
    assert list((cache.root() / "scratch").iterdir()) == []
