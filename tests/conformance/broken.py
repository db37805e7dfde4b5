"""Run a suite over broken entries, in a process of its own: their names are not for other tests."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.e2e import warm


def failures(folder: Path, text: str, group: str = "", path: str = "") -> dict[str, set[str]]:
    """Write a test module, run it, and return the names of the checks that fail or have an error, by test class.

    Args:
        folder: For the module.
        text: Of the module; what it calls ``suite("NAME"…)`` with is found by entry point.
        group: Of those entry points.
        path: Folders in front of the modules' path.
    """
    folder.mkdir(exist_ok=True)
    module = folder / "test_broken.py"
    module.write_text(text, encoding="utf-8")
    described = folder / "broken-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    names = [f"{name} = test_broken:{name}" for name in re.findall(r'^suite\("(\w+)"', text, re.M)]
    (described / "entry_points.txt").write_text("\n".join([f"[{group}]", *names]) + "\n" if group else "")
    searched = os.pathsep.join(filter(None, [str(folder), path, os.environ.get("PYTHONPATH", "")]))
    options = [
        "-q",
        "-rfE",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:anyio",
        "--rootdir",
        str(folder),
        "-c",
        os.devnull,
    ]
    environment = {**os.environ, "PYTHONPATH": searched, "COLUMNS": "300"}
    done = warm.ran([*options, str(module)], folder, environment, "pytest")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, set[str]] = {}
    for name, check in re.findall(r"^(?:FAILED|ERROR) \S+::(\w+)::test_([\w\[\]-]+)", done.stdout, re.M):
        found.setdefault(name, set()).add(check)
    return found
