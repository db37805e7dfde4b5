"""What tests do to a pack before it measures."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from edgekd.profiling.agents.python import packed
from edgekd.profiling.on_device import keeper


def with_lock(lock: Path) -> bytes:
    """Return the program with a lock of its own: tests beside this one measure on this machine, too."""
    data = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed())) as old, zipfile.ZipFile(data, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(bytes(keeper.LOCK), bytes(lock)))
    return data.getvalue()
