"""The agent protocol: what a session needs of the program that measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from edgekd.profiling.variant import Variant


class Agent(Protocol):
    """One variant under measurement: one question, one answer, never a hang."""

    label: str
    """What it is for, in messages, such as ``tflite on pi4``."""

    def ask(self, command: str, timeout: float, **arguments: Any) -> Mapping[str, Any]:
        """Send a command and wait for its answer.

        Args:
            command: ``start``, ``warmup``, ``block``, ``state``, ``memory``, ``effective``; see ``on_device/commands.py``.
            timeout: Seconds to wait; after that the agent is ended.
            arguments: Of the command.

        Raises:
            DeviceError: The runtime refused, died or did not answer in time, or the device is gone; the message says which.
        """
        ...

    def close(self, *, grace: float = 0.0) -> None:
        """End it; ``grace`` is the seconds it gets to end by itself. May be called twice."""
        ...


class Agents(Protocol):
    """Starts agents on one device."""

    name: str
    """What measures: ``python`` or ``benchmark_model``."""

    def start(self, variant: Variant, label: str) -> Agent:
        """Start an agent for one model file.

        Args:
            variant: The file and its inputs on this machine; ``start`` says where they are on the device.
            label: What it is for, in messages.

        Raises:
            DeviceError: The device does not answer.
        """
        ...
