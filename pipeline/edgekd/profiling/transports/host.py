"""The machine edgekd runs on, as a device: agents are local processes."""

from __future__ import annotations

import sys
from pathlib import Path

from edgekd.profiling.agents import python
from edgekd.profiling.transports.base import Agent


class Host:
    """Transport to this machine."""

    def put(self, path: Path) -> str:
        """The file is already here."""
        return str(path.resolve())

    def spawn(self, label: str) -> Agent:
        """Start an agent with the Python that runs edgekd."""
        # -P: the agent's folder, full of modules with common names, must not shadow anybody's imports.
        return Agent([sys.executable, "-P", python.__file__], label)
