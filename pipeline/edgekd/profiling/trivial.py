"""Measurements beside the variants: the memory that a runtime takes for any model at all."""

from __future__ import annotations

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling.participants import ANSWER_S, START_S, Participants
from edgekd.profiling.transports.base import Transport
from edgekd.profiling.variant import Variant
from edgekd.runtimes import base

_RUNS = 3
"""Inferences of the trivial model: kernels and arenas are made by the first."""


def trivial_mib(participants: Participants, way: Transport, device: Device, threads: int) -> dict[str, float]:
    """Measure by how many MiB a model of one fully connected layer, 4×4, raises the peak of each runtime.

    Args:
        participants: The participants.
        way: The way to the device.
        device: Where.
        threads: Threads that the runtimes may use.

    Returns:
        MiB by format; a runtime that fails has none, and its variants say why.
    """
    found: dict[str, float] = {}
    for variant in {run.variant.runtime: run.variant for run in participants.live}.values():
        participants.tell(f"memory of {variant.runtime} with a trivial model")
        sent = base.of(variant.runtime).on_device
        if sent is None:
            continue
        path = sent.trivial[0]
        try:
            agent = participants.spare(Variant("trivial", variant.runtime, path))
            start = agent.ask("start", START_S, runtime=variant.runtime, path=way.put(path), threads=threads)
            agent.ask("warmup", ANSWER_S, runs=_RUNS, ms=0)
            found[variant.runtime] = agent.ask("memory", ANSWER_S)["peak_mib"] - start["bare_mib"]
        except DeviceError:
            continue
        agent.close(grace=2.0)
    return found
