"""What is recorded while a stage runs, whoever opens it and whenever it was opened."""

from __future__ import annotations

import importlib
import json
import linecache
import os
import py_compile
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from tests.unit.reads.watching import begin_afresh

from edgekd import reads, registry
from edgekd.errors import UsageError
from edgekd.models import user_file
from edgekd.reads import Read, libraries, watch


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    begin_afresh(monkeypatch)


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if not libraries.is_library(getattr(sys.modules[name], "__file__", None) or "/usr/lib/"):
            del sys.modules[name]


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def recorded(act: Callable[[], object], folder: Path) -> tuple[Read, ...]:
    with watch.recording() as recorder:
        act()
    return recorder.reads(folder)


def built(path: Path) -> Callable[[], object]:
    return lambda: user_file.load(path, "build")()


def names(found: tuple[Read, ...], kind: str = "file") -> list[str]:
    return [Path(read.path).name for read in found if read.kind == kind]


def test_what_a_path_leads_to_through_a_linked_folder(tmp_path: Path) -> None:
    """``link/..`` is the folder above what the link points to."""
    code = "from pathlib import Path\ndef build(): return (Path(__file__).parent / '..' / 'w.json').read_text()\n"
    write(tmp_path, {"shared/lib/net.py": code, "shared/w.json": "4", "other/lib/net.py": code, "other/w.json": "8"})
    project = tmp_path / "project"
    write(project, {"w.json": "1", "recipe.yaml": ""})
    (project / "lib").symlink_to("../shared/lib")
    found = recorded(built(project / "lib" / "net.py"), project)
    assert reads.changed(found, project) == ""
    (project / "w.json").write_text("2")  # which the path only seems to name
    assert reads.changed(found, project) == ""
    (tmp_path / "shared" / "w.json").write_text("8")
    assert reads.changed(found, project) == f"{project}/lib/../w.json changed"
    (tmp_path / "shared" / "w.json").write_text("4")
    (project / "lib").unlink()
    (project / "lib").symlink_to("../other/lib")
    assert reads.changed(found, project) == f"{project}/lib/../w.json changed"


def test_dots_that_lead_nowhere_else_are_taken_out(tmp_path: Path) -> None:
    write(tmp_path, {"a/w.json": "4", "b/x": ""})
    (read,) = recorded(lambda: (tmp_path / "b" / ".." / "a" / "w.json").read_text(), tmp_path)
    assert read.relative == "a/w.json"


LIBRARY = {
    "kept.py": "from functools import lru_cache\nfrom pathlib import Path\n@lru_cache\ndef width():\n"
               "    return Path(__file__).with_name('kept.json').read_text()\n",
    "kept.json": "4",
    "lazy/__init__.py": "import importlib\ndef __getattr__(name):\n"
                        "    if name != 'core': raise AttributeError(name)\n"
                        "    return importlib.import_module('.core', __name__)\n",
    "lazy/core.py": "W = 4\n",
    "chosen.py": "from pathlib import Path\nW = Path(__file__).with_name('chosen.json').read_text()\n",
    "chosen.json": "4",
    "threaded.py": "from concurrent.futures import ThreadPoolExecutor\nfrom functools import lru_cache\n"
                   "from pathlib import Path\n@lru_cache\ndef width():\n    with ThreadPoolExecutor() as pool:\n"
                   "        return pool.submit(Path(__file__).with_name('threaded.json').read_text).result()\n",
    "threaded.json": "4",
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import kept\ndef build(): return kept.width()\n", ["kept.json", "kept.py"]),
        ("import lazy\ndef build(): return lazy.core.W\n", ["__init__.py", "core.py"]),
        ("import importlib\ndef build(): return importlib.import_module('chosen').W\n", ["chosen.json", "chosen.py"]),
        ("import threaded\ndef build(): return threaded.width()\n", ["threaded.json", "threaded.py"]),
    ],
)  # fmt: skip
def test_what_a_library_reads_once_is_a_read_of_every_later_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, expected: list[str]
) -> None:
    """Also if nothing was recorded when it was read, as when a run looks at its networks before it begins."""
    write(tmp_path / "lib", LIBRARY)
    write(tmp_path, {"a/net.py": code, "b/net.py": code, "c/net.py": "def build(): return 1\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    if "threaded" in code:
        assert names(recorded(built(tmp_path / "a" / "net.py"), tmp_path)) == expected
    else:
        built(tmp_path / "a" / "net.py")()
    for file in ("a/net.py", "b/net.py"):
        found = recorded(built(tmp_path / file), tmp_path)
        assert names(found) == expected
        assert reads.changed(found, tmp_path) == ""
    Path(found[0].path).write_text("W = 8\n")
    assert "changed" in reads.changed(recorded(built(tmp_path / "b" / "net.py"), tmp_path), tmp_path)


def test_one_files_configs_are_no_reads_of_another(tmp_path: Path) -> None:
    """A study trains many networks in one process."""
    code = "from pathlib import Path\ndef build(): return Path(__file__).with_name('w.json').read_text()\n"
    for name in "ab":
        write(tmp_path / name, {"net.py": code, "w.json": name})
        (read,) = recorded(built(tmp_path / name / "net.py"), tmp_path)
        assert read.relative == f"{name}/w.json"


def test_what_a_plugin_opens_to_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported when a recipe is read, before any stage; stages that do not use it do not depend on it."""
    write(tmp_path / "site", {
        "own_loss.py": "from pathlib import Path\nHALF = Path(__file__).with_name('half.json').read_text()\n"
                       "class Half: pass\n",
        "half.json": "0.5", "own-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: own\nVersion: 1.0\n",
        "own-1.0.dist-info/entry_points.txt": "[edgekd.losses]\nown = own_loss:Half\nbad = no_such:Half\n",
    })  # fmt: skip
    write(tmp_path, {"net.py": "def build(): return 1\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    losses: registry.Registry[type] = registry.Registry("loss", "edgekd.distill.losses", "builtins.object", "edgekd.losses")
    entry = losses.get("own")
    assert names(recorded(lambda: user_file.note_plugin(entry), tmp_path)) == ["half.json", "own_loss.py"]
    assert recorded(built(tmp_path / "net.py"), tmp_path) == ()
    with pytest.raises(UsageError, match="cannot be imported"):
        losses.get("bad")


def test_a_file_that_is_open_for_both_is_read(tmp_path: Path) -> None:
    table, text = tmp_path / "t.bin", tmp_path / "t.txt"
    table.write_bytes(b"\x04")
    text.write_text("4")

    def read() -> None:
        assert np.memmap(table, dtype=np.uint8)[0] == 4
        with text.open("r+") as file:
            assert file.read() == "4"
        with (tmp_path / "made").open("w+") as file:
            file.write("1")

    found = recorded(read, tmp_path)
    assert names(found) == ["t.bin", "t.txt"]
    assert reads.changed(found, tmp_path) == ""
    table.write_bytes(b"\x08")
    assert reads.changed(found, tmp_path) == f"{table} changed"


@pytest.mark.parametrize("how", ["r+", "w", "replace"])
def test_what_is_read_and_then_written_counts_as_it_was_read(tmp_path: Path, how: str) -> None:
    config = tmp_path / "cfg.json"
    config.write_text('{"w": 4}')

    def count() -> None:
        content = json.loads(config.read_text()) | {"uses": 1}
        if how == "replace":
            (tmp_path / "aside").write_text(json.dumps(content))
            (tmp_path / "aside").replace(config)
        else:
            with config.open(how) as file:
                json.dump(content, file)

    found = recorded(count, tmp_path)
    assert reads.changed(found, tmp_path) == f"{config} changed"
    config.write_text('{"w": 4}')
    assert reads.changed(found, tmp_path) == ""
    count()
    found = recorded(count, tmp_path)  # which writes what was there
    assert reads.changed(found, tmp_path) == ""


def test_a_file_that_was_asked_for_and_was_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the user's code; what a library looks for while it is imported says nothing."""
    write(tmp_path, {"net.py": "import json, probing\nfrom pathlib import Path\ndef build():\n"
                               "    for name in ('local.json', 'made.txt'):\n        path = Path(__file__).with_name(name)\n"
                               "        try: json.load(path.open())\n        except FileNotFoundError: pass\n"
                               "    path.write_text('1')\n",
                     "lib/probing.py": f"try: open('{tmp_path}/rc')\nexcept FileNotFoundError: pass\n"})  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    own = libraries.is_library
    monkeypatch.setattr(watch, "is_library", lambda path: own(path) or "/lib/" in str(path))
    found = recorded(built(tmp_path / "net.py"), tmp_path)
    assert names(found, "absent") == ["local.json", "made.txt"]
    assert reads.changed(found, tmp_path) == f"{tmp_path}/made.txt was not there"
    (tmp_path / "made.txt").unlink()
    assert reads.changed(found, tmp_path) == ""
    (tmp_path / "local.json").write_text("8")
    assert reads.changed(found, tmp_path) == f"{tmp_path}/local.json was not there"
    (tmp_path / "moved").mkdir()
    assert reads.changed(found, tmp_path / "moved") == f"{tmp_path}/local.json was not there"


def test_places_of_the_users() -> None:
    """A project whose virtual environment is the project's folder; a memory stick; memory as a disk."""
    for path in (f"{sys.prefix}/net.py", "/run/media/me/USB/net.py", "/run/user/1000/gvfs/net.py", "/dev/shm/w.json"):
        assert not libraries.is_library(path), path
    for path in ("/dev/urandom", "/run/lock/x", "/proc/self/maps", np.__file__, os.__file__, watch.__file__):
        assert libraries.is_library(path), path


def test_a_copied_project_whose_code_has_an_absolute_path(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, {"cfg.json": "4"})
    write(two, {"cfg.json": "4"})
    found = recorded((one / "cfg.json").read_text, one)
    assert reads.changed(found, two) == ""
    (one / "cfg.json").write_text("8")
    assert reads.changed(found, two) == f"{one}/cfg.json changed"
    (one / "cfg.json").unlink()  # it was moved
    assert reads.changed(found, two) == ""
    (two / "cfg.json").write_text("8")
    assert reads.changed(found, two) == f"{two}/cfg.json changed"


def test_a_path_from_the_working_folder_counts_from_where_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"cfg.json": "4", "sub/cfg.json": "8", "same/cfg.json": "4", "none/x": ""})
    monkeypatch.chdir(tmp_path)
    found = recorded(lambda: Path("cfg.json").read_text(), tmp_path)
    for folder, reason in (("sub", "changed"), ("same", ""), ("none", "is missing"), (".", "")):
        monkeypatch.chdir(tmp_path / folder)
        assert reads.changed(found, tmp_path) == (f"{tmp_path / folder}/cfg.json {reason}" if reason else "")


def test_versions_of_the_packages_that_the_users_files_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"net.py": "import blocks, json\n\ndef build(): return blocks\n", "blocks.py": "import yaml\n"})
    for _ in range(2):
        found = recorded(built(tmp_path / "net.py"), tmp_path)
        assert names(found, "package") == ["PyYAML"]
    assert reads.changed(found, tmp_path) == ""
    monkeypatch.setattr(reads, "version", lambda _: "0.1")
    assert reads.changed(found, tmp_path) == f"PyYAML {found[0].sha256} → 0.1"


def test_a_module_without_source_and_compiled_ones(tmp_path: Path) -> None:
    write(tmp_path, {"net.py": "import blocks\ndef build(): return blocks.W\n", "blocks.py": "W = 4\n", "cw.so": "1"})
    py_compile.compile(str(tmp_path / "blocks.py"), str(tmp_path / "blocks.pyc"))
    (tmp_path / "blocks.py").unlink()
    for _ in range(2):
        assert names(recorded(built(tmp_path / "net.py"), tmp_path)) == ["blocks.pyc"]
    for event in (("import", "cw", str(tmp_path / "cw.so"), None, None, None), ("ctypes.dlopen", str(tmp_path / "cw.so"))):
        assert names(recorded(lambda event=event: sys.audit(*event), tmp_path)) == ["cw.so"]  # type: ignore[misc]


def test_source_that_is_read_as_text(tmp_path: Path) -> None:
    """And not to show a line of it in a warning."""
    write(tmp_path, {"cfg.py": "W = 4\n", "shown.py": "W = 4\n"})

    def read() -> None:
        with tokenize.open(tmp_path / "cfg.py") as file:
            file.read()
        linecache.getline(str(tmp_path / "shown.py"), 1)

    assert names(recorded(read, tmp_path)) == ["cfg.py"]


def test_the_users_modules_are_never_run_from_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of the same size within the same second, or a copy that keeps the time."""
    files = {"a/net.py": "import blocks, lib\ndef build(): return blocks.W, lib.W\n"}
    write(tmp_path, {**files, "a/blocks.py": "W = 4\n", "l/lib.py": "W = 4\n"})
    monkeypatch.syspath_prepend(str(tmp_path / "l"))
    for name in ("a/net.py", "a/blocks.py", "l/lib.py"):
        os.utime(tmp_path / name, (10**9, 10**9))
        py_compile.compile(str(tmp_path / name))
    for name in ("a/blocks.py", "l/lib.py"):
        (tmp_path / name).write_text("W = 8\n")
        os.utime(tmp_path / name, (10**9, 10**9))
    assert built(tmp_path / "a" / "net.py")() == (8, 8)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(tmp_path, {"b/net.py": files["a/net.py"], "b/blocks.py": "W = 8\n", "b/other.py": ""})
    assert built(tmp_path / "b" / "net.py")() == (8, 8)
    assert not (tmp_path / "b" / "__pycache__").exists()


def test_a_plugin_elsewhere_is_not_run_from_bytecode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"own_exporter.py": "W = 4\n",
                     "own-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: own\nVersion: 1.0\n",
                     "own-1.0.dist-info/entry_points.txt": "[edgekd.exporters]\nown = own_exporter:W\n"})  # fmt: skip
    os.utime(tmp_path / "own_exporter.py", (10**9, 10**9))
    py_compile.compile(str(tmp_path / "own_exporter.py"))
    (tmp_path / "own_exporter.py").write_text("W = 8\n")
    os.utime(tmp_path / "own_exporter.py", (10**9, 10**9))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert (
        registry.Registry[int]("exporter", "edgekd.exporting.formats", "typing.SupportsInt", "edgekd.exporters").get("own")
        == 8
    )


def test_files_of_the_key_have_its_bytes_when_they_are_read(tmp_path: Path) -> None:
    """Also if they have them again at the end, and if no Python code opens them."""
    file = tmp_path / "net.py"

    def changed(during: str, after: str, *, opens: bool = True) -> str:
        file.write_text("4")
        with reads.hashing() as files:
            reads.file_sha256(file)
        file.write_text(during)
        with watch.recording(files) as recorder:
            if opens:
                with reads.in_key(file):
                    file.read_text()
            file.write_text(after)
        return recorder.changed()

    assert changed("4", "4") == changed("4", "8") == changed("8", "4", opens=False) == ""
    assert changed("8", "4") == changed("8", "8") == changed("4", "8", opens=False) == str(file)


def test_what_another_process_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several that train together."""
    write(tmp_path, {"net.py": "import yaml\ndef build(): return open('cfg.json').read()\n", "cfg.json": "4"})
    script = (
        "import json, sys\nfrom pathlib import Path\nfrom edgekd.models import user_file\nfrom edgekd.reads import watch\n"
        "with watch.recording({str(Path('net.py').absolute()): 'other', str(Path('x').absolute()): '1'}) as recorder:\n"
        "    user_file.load(Path('net.py'), 'build')()\n"
        "print(json.dumps(recorder.told()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    with watch.recording() as recorder:
        watch.take_over(json.loads(done.stdout))
    monkeypatch.chdir(tmp_path)
    assert recorder.changed() == str(tmp_path / "net.py")
    found = recorder.reads(tmp_path)
    assert [(read.kind, read.relative, read.typed) for read in found] == [
        ("file", "cfg.json", "cfg.json"), ("package", "", ""),
    ]  # fmt: skip
    assert reads.changed(found, tmp_path) == ""
