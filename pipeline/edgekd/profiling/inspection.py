"""Inspections besides times: outputs, single operations, the whole path, the test split.

Each artifact is looked at after the measurement, by an agent of its own, so that nothing of it weighs in there. What cannot
be looked at is a note; a device that is lost meanwhile is a failure. The measurement stands in either case.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekd.data.preprocessing import Preprocessing
from edgekd.errors import DeviceError, LostError, unexpected
from edgekd.profiling.agents.base import Agent
from edgekd.profiling.transports.base import Transport
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile
from edgekd.results.findings import Finding, Missing, missing
from edgekd.results.profile import Operation, Operations, Part, ProfileRecord

LOOK_S = 300.0
"""Seconds that one look may take: all feeds once, an operation's time, the path."""
IMAGE_S = 10.0
"""Seconds an image of the test split may take beyond that."""

T = TypeVar("T")


@dataclass(frozen=True)
class Wants:
    """Inspections besides times.

    Attributes:
        outputs: The outputs for the inputs that are timed.
        operations: Times of single operations.
        preprocessing: Of images; without it there is neither a path nor an accuracy.
        encoded: Image files of the network's size, for the whole path.
        images: An .npy file, uint8 N×C×H×W, whose classes are found on the device.
    """

    outputs: bool = True
    operations: bool = True
    preprocessing: Preprocessing | None = None
    encoded: tuple[Path, ...] = ()
    images: Path | None = None


@dataclass(frozen=True)
class Given:
    """All outputs of a model: by name an array with a row for each feed; ``kinds`` as the model gives them.

    ``others`` are the names of outputs that are no real numbers, such as strings and sequences; ``varying`` of those that
    differ when the model runs again on the same machine.
    """

    arrays: Mapping[str, NDArray[Any]]
    kinds: Mapping[str, str]
    others: tuple[str, ...] = ()
    varying: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """Findings for one artifact on one device; ``notes`` have reasons for missing ones; ``lost``: the device was lost."""

    outputs: Given | None = None
    operations: Operations | None = None
    path: tuple[Part, ...] = ()
    classes: tuple[int, ...] | None = None
    notes: tuple[Missing, ...] = ()
    lost: LostError | None = None

    def into(self, record: ProfileRecord) -> ProfileRecord:
        """The record of its measurement, with what was found."""
        costs = self.operations
        if costs is not None and record.latency_ms.p50 > 0:
            costs = replace(costs, overhead=costs.p50 / record.latency_ms.p50 - 1)
        return replace(record, operations=costs, path=self.path)


@dataclass
class _Notes:
    """Collects what was not measured of a model on a device."""

    model: str
    device: str
    found: list[Missing] = field(default_factory=list)
    lost: LostError | None = None
    missing: list[str] = field(default_factory=list)

    def tried(self, what: str, work: Callable[[], T | str], otherwise: T) -> T:
        """Do ``work``; its text, or its error, is the reason why there is nothing. A lost device is not asked again."""
        try:
            if self.lost:
                raise self.lost
            found = work()
        except LostError as error:
            self.lost = error
            self.missing.append(what)
            return otherwise
        except DeviceError as error:
            found = error.message.removeprefix(f"{self.model} on {self.device}: ")
        except Exception as error:
            found = unexpected(error)[0]
        if not isinstance(found, str):
            return found
        self.found.append(missing(what, found, self.model, self.device))
        return otherwise

    def failure(self) -> LostError | None:
        """The error of a lost device, with what is missing."""
        return self.lost and LostError(f"{self.lost.message}; not measured: {', '.join(self.missing)}", self.lost.hint)


def inspect(
    variant: Variant, begin: Callable[[], Agent], way: Transport, wants: Wants, device: str, protocol: Profile
) -> Inspection:
    """Look at one artifact on a device.

    Args:
        variant: The artifact.
        begin: Starts an agent with the model loaded.
        way: The open way to the device.
        wants: What to look at.
        device: Name of the device.
        protocol: The measuring protocol; the whole path is not timed for longer than the network was.
    """
    notes = _Notes(variant.model, device)
    agents: list[Agent] = []

    def agent() -> Agent:
        """The agent; a new one where a look has ended it."""
        if not agents:
            agents.append(begin())
        return agents[-1]

    def asked(work: Callable[[Agent], T]) -> Callable[[], T]:
        def ask() -> T:
            try:
                return work(agent())
            except Exception:
                if agents:
                    agents.pop().close()
                raise

        return ask

    seen: Given | None = None
    costs: Operations | None = None
    path: tuple[Part, ...] = ()
    classes: tuple[int, ...] | None = None
    try:
        if wants.outputs:
            seen = notes.tried("outputs", asked(lambda agent: outputs(agent, way)), None)
            notes.found += [not_compared(name, variant.model, device) for name in seen.others] if seen else []
        if wants.preprocessing and variant.layout and wants.encoded:
            path = notes.tried("the whole path", asked(lambda agent: _path(agent, way, variant, wants, protocol)), ())
        if wants.preprocessing and variant.layout and wants.images:
            classes = notes.tried("accuracy", asked(lambda agent: _classes(agent, way, variant, wants)), None)
        if wants.operations:  # last: it loads the model anew, to record
            costs = notes.tried("single operations", asked(_operations), None)
    finally:
        if agents:
            agents[-1].close(grace=2.0)
    return Inspection(seen, costs, path, classes, tuple(notes.found), notes.failure())


_numbers = itertools.count()


def outputs(agent: Agent, way: Transport, limit_s: float = LOOK_S) -> Given:
    """All outputs of a model that an agent has loaded, for the inputs it was started with, within ``limit_s`` seconds.

    Raises:
        DeviceError: It cannot run, or the outputs cannot be brought here.
    """
    told = agent.ask("outputs", limit_s, into=f"outputs{next(_numbers)}.npz")
    if "values" in told:  # of an agent that reads them on this machine
        return Given(told["values"], dict(zip(told["values"], told["kinds"], strict=True)))
    with TemporaryDirectory(prefix="edgekd-") as folder:
        file = Path(folder) / "outputs.npz"
        way.get(told["path"], file)
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[key] for name, key in zip(told["names"], told["arrays"], strict=True)}
    return Given(arrays, dict(zip(told["names"], told["kinds"], strict=True)), tuple(told.get("others", ())))


def not_compared(name: str, model: str, device: str) -> Missing:
    """Return that an output of a model on a device is no real numbers."""
    return Missing(Finding("no_numbers"), f"output {name}", model, device)


def _operations(agent: Agent) -> Operations | str:
    return operations_of(agent.ask("operations", LOOK_S))


def operations_of(told: Mapping[str, Any]) -> Operations | str:
    """Times of single operations from an agent's answer, or why there are none."""
    if "why" in told:
        return str(told["why"])
    times = told["times"]
    rows = tuple(Operation(**row) for row in told["operations"])
    spent = sum(row.ms for row in rows)
    return Operations(rows, told["source"], float(np.median(times)), spent / float(np.mean(times)), 0.0)


def _given(variant: Variant, wants: Wants) -> dict[str, Any]:
    rule = wants.preprocessing
    assert rule  # is asked for only of images
    return {"mean": list(rule.mean), "std": list(rule.std), "channels": rule.channels, "layout": variant.layout}


def _path(agent: Agent, way: Transport, variant: Variant, wants: Wants, protocol: Profile) -> tuple[Part, ...] | str:
    files = [way.put(path) for path in wants.encoded]
    return path_of(agent.ask("whole", LOOK_S, files=files, given=_given(variant, wants), ms=protocol.blocks_ms))


def path_of(told: Mapping[str, Any]) -> tuple[Part, ...] | str:
    """The parts of the whole path from an agent's answer, or why there are none."""
    if "why" in told:
        return str(told["why"])
    return tuple(Part(name, ms) for name, ms in told["parts"].items())


def _classes(agent: Agent, way: Transport, variant: Variant, wants: Wants) -> tuple[int, ...]:
    assert wants.images  # is asked for only where they are given
    count = len(np.load(wants.images, mmap_mode="r"))
    limit = LOOK_S + IMAGE_S * count
    found = agent.ask("answers", limit, images=way.put(wants.images), given=_given(variant, wants))
    return tuple(found["classes"])


def encoded(images: Sequence[NDArray[np.uint8]], folder: Path) -> Iterator[Path]:
    """Write images (uint8, C×H×W) as a camera or a user would have them: colour as JPEG, grey as PNG."""
    from PIL import Image

    for number, image in enumerate(images):
        colour = len(image) == 3
        path = folder / f"image{number}.{'jpg' if colour else 'png'}"
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0) if colour else image[0])
        Image.fromarray(pixels).save(path, quality=95)  # PNG has none
        yield path
