"""One comparison of the study: a file against itself, and against one that has 10 % more to compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.devices import schema
from edgekd.profiling import compare
from edgekd.profiling.session import measure
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile
from edgekd.results.profile import Comparison, ProfileRecord

LAYERS, CHANNELS, SIDE = 11, 32, 28
"""3x3 convolutions of the file, and of what size. The slower file has one more of them: 1.10 times the multiplications."""


@dataclass(frozen=True)
class Row:
    """What was said of one session, and of it beside the session before.

    Attributes:
        number: Of the session, from 0.
        same: The file against itself, in the session: verdict, ratio, ends of the interval.
        slower: The slower file against it, in the session.
        same_over: The file against itself in the session before; empty for the first.
        slower_over: The slower file against the file in the session before.
        p50: Median in milliseconds of the file.
        reference: The same of the reference workload.
        others: Cores that other processes kept busy (mean over the blocks).
        untrusted: Whether edgekd trusted the figures.
        seconds: That the session took.
    """

    number: int
    same: list[Any]
    slower: list[Any]
    same_over: list[Any] = field(default_factory=list)
    slower_over: list[Any] = field(default_factory=list)
    p50: float = 0.0
    reference: float = 0.0
    others: float = 0.0
    untrusted: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Measured:
    """A session: its records by name, and its raw samples."""

    records: dict[str, ProfileRecord]
    raw: Path


def write_networks(folder: Path) -> tuple[Path, Path]:
    """Write both files into a folder: the file and the slower one."""
    paths = folder / "file.onnx", folder / "slower.onnx"
    for path, layers in zip(paths, (LAYERS, LAYERS + 1), strict=True):
        _write(path, layers)
    return paths


def multiplications(layers: int) -> int:
    """Multiplications of an inference."""
    return (3 + (layers - 1) * CHANNELS) * CHANNELS * 9 * SIDE * SIDE


def session(paths: tuple[Path, Path], folder: Path) -> Measured:
    """Measure the file twice and the slower one, each in a process of its own, in one session on this machine."""
    names = {"file": paths[0], "again": paths[0], "slower": paths[1]}
    variants = [Variant(name, "onnx", path) for name, path in names.items()]
    host = schema.load("host").model_copy(update={"retries": 0})
    found = measure(variants, compare.protocol(Profile()), host, folder)
    return Measured({record.model: record for record in found.profiles}, folder / "host.jsonl")


def row(number: int, now: Measured, before: Measured | None, seconds: float) -> Row:
    """Compare within a session, and with the session before."""
    file, again, slower = (now.records[name] for name in ("file", "again", "slower"))
    over: dict[str, list[Any]] = {}
    if before:
        old, raws = before.records["file"], (now.raw, before.raw)
        over = {
            "same_over": _said(compare.over_sessions(file, old, *raws)),
            "slower_over": _said(compare.over_sessions(slower, old, *raws)),
        }
    return Row(
        number,
        _said(compare.in_one_session(again, file, now.raw)),
        _said(compare.in_one_session(slower, file, now.raw)),
        **over,
        p50=round(file.latency_ms.p50, 4),
        reference=round(file.reference_ms or 0.0, 4),
        others=round(float(np.mean([state.others or 0.0 for state in file.states])), 2),
        untrusted=file.trust.verdict == "untrusted",
        seconds=round(seconds, 1),
    )


def _said(found: Comparison) -> list[Any]:
    if found.verdict == "refused":
        return ["refused", *(reason.code for reason in found.reasons)]
    return [found.verdict, *(round(value, 4) for value in (found.ratio, found.low, found.high) if value is not None)]


def _write(path: Path, layers: int) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number in range(layers):
        shape = (CHANNELS, CHANNELS if number else 3, 3, 3)
        weights.append(numpy_helper.from_array((0.05 * rng.normal(size=shape)).astype("float32"), f"w{number}"))
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [last := f"r{number}"]))
    nodes += [helper.make_node("GlobalAveragePool", [last], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, SIDE, SIDE))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, CHANNELS))
    model = helper.make_model(
        helper.make_graph(nodes, "net", [x], [y], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    onnx.save(model, path)
