"""Wheels of third parties, made and installed by pip; a process that has their folder in PYTHONPATH finds them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e import warm
from tests.hurried import EDGEKD

HERE = Path(__file__).parent
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


@dataclass(frozen=True)
class Site:
    """A folder that wheels are installed in."""

    folder: Path

    def broken(self, folder: Path, *patches: tuple[str, str, str]) -> Site:
        """Copy it, with lines of its modules replaced.

        Args:
            folder: For the copy.
            patches: Path of a module, what stands in it once, and what stands there in the copy.
        """
        shutil.copytree(self.folder, folder)
        for name, before, after in patches:
            path = folder / name
            text = path.read_text("utf-8")
            assert text.count(before) == 1, f"{before!r} stands in {name} {text.count(before)} times"
            path.write_text(text.replace(before, after), "utf-8")
        return Site(folder)

    def python(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run Python, which finds the wheels there."""
        return subprocess.run(
            [sys.executable, *words], cwd=cwd, env=self._environment(), capture_output=True, text=True, check=False
        )

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, "PYTHONPATH": path, "COLUMNS": "150"}

    def edgekd(self, *words: str, cwd: Path, fresh: bool = False) -> str:
        """Run edgekd, see that it ends with 0, and return what it says.

        The process is a ``fresh`` Python, as a user's is, or one that has imported torch already.
        """
        done = self.python(*EDGEKD[1:], *words, cwd=cwd) if fresh else warm.ran(words, cwd, self._environment())
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Site]:
    """Build wheels of projects of this folder, and install them; edgekd and the libraries are those of this environment."""

    def install(*projects: str) -> Site:
        folder = tmp_path_factory.mktemp("wheels")
        paths = [str(HERE / name) for name in projects]
        offline = ["--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*PIP, "wheel", *offline, "--wheel-dir", str(folder), *paths], check=True)
        wheels = map(str, folder.glob("*.whl"))
        subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), *wheels], check=True)
        return Site(folder / "site")

    return install
