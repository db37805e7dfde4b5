"""Time of an inference on a device: the parts of the whole path, and the operations of the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgekd.profiling import twins
from edgekd.report import speed
from edgekd.report.page import Block, Bullets, Cell, Column, Fold, Table, figure
from edgekd.report.words import count, known, one_line, sig, signed
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Operation, Operations, ProfileRecord

MOVES = "moves values"
"""Of operations without a type that they compute in."""
DELEGATE = "in a delegate"
"""Of a part of the graph that a delegate runs in one piece: in what type it computes is not told."""
TOP = 10
"""Operations that are listed, the slowest first."""


def path(models: Sequence[ModelRecord], where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Iterator[Block]:
    """The parts from the file of an image to the answer, and what int8 changes of the whole."""
    named = [part.name for row in rows for part in row.path]
    parts = list(dict.fromkeys(named))
    if not parts:
        return
    body = []
    for label, row in zip(labels, rows, strict=True):
        found = {part.name: part.ms for part in row.path}
        whole = sum(found.values()) if found else None
        body.append((Cell(label), *(figure(known(found.get(name))) for name in parts), figure(known(whole))))
    columns = (Column("Artifact"), *(Column(one_line(name).capitalize(), "ms", "number") for name in parts))
    note = "Medians of single images, one after another; whole is their sum."
    yield Table(f"From the file to the answer on {where}", (*columns, Column("Whole", "ms", "number")), tuple(body), note)
    if told := speed.whole_path(rows, models, rows[0].device):
        yield Bullets(told)


def tables(where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Iterator[Block]:
    """A row of sums for each artifact, and the slowest operations of each behind a fold."""
    found = [(label, row.operations) for label, row in zip(labels, rows, strict=True) if row.operations]
    if not found:
        return
    kinds = list(dict.fromkeys(_computes(op) for _, one in found for op in one.operations))
    columns = (
        Column("Artifact"), Column("Operations", "", "number"),
        *(Column(one_line(kind), "ms", "number") for kind in kinds),
        Column("Unattributed", "%", "number"), Column("Recording costs", "%", "number"), Column("Source"),
    )  # fmt: skip
    body = tuple(
        (
            Cell(label, "warn" if (why := _unusable(one)) else "", f"not usable: {why}" if why else "", mark=bool(why)),
            Cell(count(len(one.operations))),
            *(figure(sig(_of(one, kind)), f"{100 * _of(one, kind) / one.mean:.0f} %" if one.mean else "") for kind in kinds),
            figure(str(round(100 * (1 - one.attributed))).replace("-", "−")),
            figure(signed(round(100 * one.overhead, 1) + 0.0)),
            Cell(one_line(one.source)),
        )
        for label, one in found
    )
    note = (
        "From a run of its own: mean time of the operations by the type they compute in, and its share of that run's mean "
        "inference. Unattributed: the rest, in no operation. Recording costs: that run's p50 over the measurement's."
    )
    yield Table(f"Operations on {where}", columns, body, note)
    for label, one in found:
        yield Fold(f"{label}: the slowest operations", (_slowest(label, where, one),), f"of {count(len(one.operations))}")


def _unusable(found: Operations) -> str:
    """Say why nothing can be concluded from times of single operations; empty where something can."""
    if twins.overlapping(found):
        return f"{100 * found.attributed:.0f} % of the time is in operations"
    return f"recording costs {100 * found.overhead:.0f} %" if twins.unusable(found) else ""


def _computes(op: Operation) -> str:
    """The type that an operation computes in, or what it does instead."""
    return op.precision or (DELEGATE if twins.delegated(op) else MOVES)


def slowest(found: Operations) -> tuple[Operation, ...]:
    """Return the operations that are listed."""
    return tuple(sorted(found.operations, key=lambda op: -op.ms)[:TOP])


def _of(found: Operations, kind: str) -> float:
    return sum(op.ms for op in found.operations if _computes(op) == kind)


def _slowest(label: str, where: str, found: Operations) -> Table:
    columns = (
        Column("Operation", "", "code"), Column("Kind"), Column("Computes in"), Column("Runs on"),
        Column("Time", "ms", "number"), Column("Share", "%", "number"),
    )  # fmt: skip
    total = sum(op.ms for op in found.operations)
    body = tuple(
        (
            Cell(one_line(op.name) or "—"),
            Cell(one_line(op.kind)),
            Cell(one_line(_computes(op))),
            Cell(one_line(op.where) or "—"),
            figure(sig(op.ms)),
            figure(f"{100 * op.ms / total:.1f}" if total else None),
        )
        for op in slowest(found)
    )
    return Table(f"Slowest operations of {label} on {where}", columns, body, "Share: of the time of all operations.")
