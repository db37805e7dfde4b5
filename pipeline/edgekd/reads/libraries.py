"""Find out which files are libraries: Python's, installed packages', edgekd's and the system's."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/etc", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share")
_USERS = ("/dev/shm/", "/run/media/", "/run/user/")  # places of the system where users keep files of their own


def is_library(path: str | Path) -> bool:
    """Tell whether a file belongs to Python, to an installed package, to edgekd or to the system."""
    text = os.path.realpath(path) if ".." in Path(path).parts else str(path)
    if Path(text).parent.suffix in (".dist-info", ".egg-info"):
        return True
    return text.startswith(_folders()) and not text.startswith(_USERS)


@cache
def _folders() -> tuple[str, ...]:
    """Where libraries lie. A virtual environment's own folder is not one: a project may be in it."""
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages(), str(PACKAGE), str(Path(__file__).parents[1]), *_SYSTEM}
    folders |= {folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")}  # of a .pth file
    folders |= {os.path.realpath(folder) for folder in folders}
    return tuple(f"{folder}{os.sep}" for folder in sorted(folders))
