"""edgekd on a machine that other tests load: measured once, and not waited for until its times are steady.

No second attempt would be more trusted than the first. ``python tests/hurried.py ARGS`` is ``edgekd ARGS`` so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd.devices import schema
from edgekd.profiling import rounds

EDGEKD = (sys.executable, str(Path(__file__)))
"""The command."""


def hurry(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let sessions of this process be so; ``put`` sets an attribute."""
    load = schema.load

    def once(name: str, *folders: Path) -> schema.Device:
        device = load(name, *folders)
        return device.model_copy(update={"retries": 0}) if device.name == "host" else device

    put(schema, "load", once)
    put(rounds, "WARM_UP_S", 0.1)


if __name__ == "__main__":
    from edgekd.cli import main

    sys.path[0] = ""  # as for python -m edgekd
    hurry()
    main()
