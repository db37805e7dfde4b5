"""The measuring protocol."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from edgekd.recipe.base import Strict
from edgekd.resources import device_stem


class Profile(Strict):
    """The measuring protocol. Figures are never re-used from an earlier run."""

    devices: Annotated[tuple[str, ...], Field(min_length=1)] = ("host",)
    """Devices to measure on: names of files in devices/ beside the recipe or in the working folder, or of devices that ship
    with edgekd, or paths of files."""
    threads: PositiveInt = 1
    """Threads each runtime may use."""
    warmup_runs: PositiveInt = 20
    """Inferences before measuring; at least warmup_ms as well."""
    warmup_ms: NonNegativeInt = 300
    """Milliseconds of warm-up at the least."""
    blocks: Annotated[int, Field(ge=3)] = 7
    """Blocks per variant; the variants take turns, so that heat and load favour none."""
    block_ms: PositiveInt = 150
    """Milliseconds a block takes at the least."""
    block_runs: PositiveInt = 30
    """Inferences in a block at the least."""
    sustained_minutes: NonNegativeFloat = 0
    """Minutes that each artifact runs without a pause after the blocks, to see what heat does to it; 0: none."""
    accuracy: PositiveInt | None = None
    """Test images whose classes are found on each device, for the accuracy there; left out: none."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the devices in stages, gates and reports: the stems of their files."""
        return tuple(device_stem(device) for device in self.devices)

    @property
    def blocks_ms(self) -> int:
        """Milliseconds that the blocks of a variant take together at the least."""
        return self.blocks * self.block_ms
