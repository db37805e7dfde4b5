"""A section for each device: what it is, why to believe its figures, times, memory, outputs, parts and operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgekd.errors import joined
from edgekd.report import facts
from edgekd.report.charts.timing import Blocks, Course, Range, drift, ranges, sustained
from edgekd.report.page import Block, Bullets, Cell, Column, Facts, Fold, Section, Table, Tone, figure, stamped
from edgekd.report.sections import device_figures, operations
from edgekd.report.sections.device_trust import trust, untrusted
from edgekd.report.verdict import gate_table
from edgekd.report.words import count, known, one_line, plural, sig, signed
from edgekd.results.profile import DeviceRecord, ProfileRecord, Sustained
from edgekd.results.run import RunResult
from edgekd.runtimes import base

EMULATED = "EMULATED"


def sections(result: RunResult) -> tuple[Section, ...]:
    """Everything measured on every device, a section each; a device that gave nothing says why."""
    names = facts.devices(result)
    if not names:
        return (Section("device", "On the device", missing="No artifact was profiled on a device."),)
    return tuple(_section(result, name, "device" if index == 0 else f"device{index}") for index, name in enumerate(names))


def _section(result: RunResult, name: str, id: str) -> Section:
    rows = [record for record in result.profiles if record.device == name]
    record = facts.device(result, name)
    title = f"On {facts.device_label(result, name)}"
    about = _about(record) if record and record.answered else []  # the reason of one that did not answer is said once
    if not rows and name in facts.failed_devices(result):
        return Section(id, title, tuple(about), "No figures: the reason stands with the verdict.")
    if not rows:
        return Section(id, title, tuple(about), missing=facts.device_reason(result, name))
    view = _View(result, id, facts.device_label(result, name), tuple(rows), record)
    blocks = [stamped(block, EMULATED) if view.emulated else block for block in (*about, *_blocks(view))]
    return Section(id, title, tuple(blocks), "" if overview(result) else _protocol(result))


@dataclass(frozen=True)
class _View:
    """One device of a run; ``where`` is its name for a reader, ``id`` is unique in the page."""

    result: RunResult
    id: str
    where: str
    rows: tuple[ProfileRecord, ...]
    record: DeviceRecord | None

    @property
    def emulated(self) -> bool:
        return any(row.emulated for row in self.rows)

    @property
    def stamp(self) -> str:
        return EMULATED if self.emulated else ""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(facts.label_of(self.result, row.model) for row in self.rows)

    def pairs(self) -> Iterator[tuple[str, ProfileRecord]]:
        return zip(self.labels, self.rows, strict=True)


def _protocol(result: RunResult) -> str:
    asked = facts.section_of(result, "profile")
    try:
        return (
            f"{asked['blocks']} blocks for each artifact, taking turns so that heat and load favour none; at least "
            f"{asked['block_runs']} inferences and {asked['block_ms']} ms a block, after at least "
            f"{asked['warmup_runs']} inferences and {asked['warmup_ms']} ms of warm-up. Batch 1."
        )
    except KeyError:
        return ""


def _blocks(view: _View) -> Iterator[Block]:
    result, where, labels, rows = view.result, view.where, view.labels, view.rows
    about = where, labels, rows
    yield trust(where, labels, rows, view.record, facts.noun(result))
    gates = [gate for gate in result.gates if gate.device == rows[0].device]
    if gates:
        yield gate_table(result, gates, f"Gates on {where}")
    yield ranges(
        view.id, where, [_range(label, row) for label, row in view.pairs()],
        "Dot: p50, in the bar of its 95 % interval. Tick: p90. End: p99. △: not trusted.", view.stamp,
    )  # fmt: skip
    failed = [
        (facts.label_of(result, failure.model), one_line(failure.reason))
        for failure in result.failures
        if failure.device == rows[0].device
    ]
    yield device_figures.times(where, labels, rows, failed)
    yield device_figures.memory(result, where, labels, rows)
    steady = [
        Blocks(label, row.blocks, f"drift {signed(round(row.trust.drift * 100, 2))} %", _doubted(row))
        for label, row in view.pairs()
        if row.blocks
    ]
    if steady:
        caption = "Each dot is the median of a block, against the artifact's own median. A slope is heat or load."
        yield drift(view.id, where, steady, caption, view.stamp)
    yield device_figures.evidence(result, where, labels, rows)
    states = device_figures.states(where, labels, rows)
    if states:
        yield Fold("Temperature, clock and load block by block", (states,))
    looked = device_figures.outputs(result, *about), device_figures.accuracy(result, *about)
    yield from (found for found in looked if found)
    yield from operations.path(result.models, where, labels, rows)
    yield from operations.tables(where, labels, rows)
    courses = [Course(label, row.sustained.medians, _course(row.sustained)) for label, row in view.pairs() if row.sustained]
    if courses:
        caption = "Median of each ten seconds, against the artifact's first ten seconds. A rise is heat."
        yield sustained(view.id, where, courses, caption, view.stamp)
    here = view.record is not None and view.record.transport == "host"
    yield from (found for found in (device_figures.energy(*about), device_figures.missing(labels, rows, here=here)) if found)
    samples = tuple(f"{label}: {one_line(row.samples)}" for label, row in view.pairs() if row.samples)
    if samples:
        yield Fold("Raw samples", (Bullets(samples),))


def _doubted(row: ProfileRecord) -> bool:
    return row.trust.verdict == "untrusted"


def _range(label: str, row: ProfileRecord) -> Range:
    latency = row.latency_ms
    return Range(
        label, latency.p50, latency.p90, latency.p99, *latency.ci, sig(latency.p50), known(latency.p99) or "—",
        _doubted(row),
    )  # fmt: skip


def _course(course: Sustained) -> str:
    text = f"{sig(course.medians[0])} ms at first, {sig(course.medians[-1])} ms after {sig(course.minutes)} min"
    heat = f", {course.celsius[0]:.0f} to {max(course.celsius):.0f} °C" if course.celsius else ""
    return text + heat


def _about(record: DeviceRecord) -> list[Block]:
    """What the device says of itself, its runtimes, known faults and what stands in the way."""
    isa = f" ({', '.join(record.isa)})" if record.isa else ""
    pairs = [
        ("Board", record.model or record.description),
        ("System", ", ".join(part for part in (record.os, record.kernel) if part)),
        ("CPU", f"{record.arch}{isa}"),
        ("Cores", _cores(record.cores)),
        ("Governor", record.governor),
        ("Memory", _of(record.available_mib, record.memory_mib)),
        ("Disk", f"{sig(record.disk_mib)} MiB free" if record.disk_mib is not None else ""),
        ("Temperature before", f"{record.celsius:.0f} °C" if record.celsius is not None else ""),
        ("Throttling", joined([*record.throttled])),
        ("Python", f"{record.python}{f', numpy {record.numpy}' if record.numpy else ''}" if record.python else ""),
        ("Clock resolution", f"{sig(record.clock_ns)} ns" if record.clock_ns is not None else ""),
        ("Reached by", record.transport),
        *((name.capitalize(), value) for name, value in record.more.items()),
    ]
    shown = tuple((one_line(label), one_line(value)) for label, value in pairs if value)
    blocks: list[Block] = [Facts(shown)]
    if record.traps or record.problems or record.notes:
        tone: Tone = "warn" if record.traps or record.problems else ""
        kinds = (("Problem", record.problems), ("Worked round", record.traps), ("Note", record.notes))
        lines = [(label, text) for label, texts in kinds for text in texts]
        blocks.append(Facts(tuple((label, one_line(text)) for label, text in lines), "Known of this device", tone))
    if record.runtimes:
        blocks.append(_runtimes(record))
    return blocks


def _cores(mhz: Sequence[int]) -> str:
    """Write clusters of cores: ``4 at 1800 MHz``."""
    kinds = [(list(mhz).count(limit), limit) for limit in dict.fromkeys(mhz)]
    return joined([f"{number} at {limit} MHz" if limit else str(number) for number, limit in kinds])


def _of(free: float | None, whole: float | None) -> str:
    if whole is None:
        return ""
    return f"{sig(whole)} MiB" + (f", {sig(free)} MiB of it available" if free is not None else "")


def _runtimes(record: DeviceRecord) -> Table:
    columns = (Column("Runtime"), Column("Version"), Column("Format"), Column("Works"), Column("Problem"))
    body = tuple(
        (
            Cell(one_line(found.package), note=one_line(found.python)),
            Cell(one_line(found.version) or "—"),
            Cell(base.format_label(found.format)),
            Cell("yes" if found.python else "it ran", "good", mark=True) if found.works else Cell("no", "bad", mark=True),
            Cell(one_line("; ".join(text for text in (found.problem, found.fix) if text)) or "—"),
        )
        for found in record.runtimes
    )
    note = "Works: an inference of a small model gave the right output there, in a process of its own."
    if any(not found.python for found in record.runtimes):
        note += " benchmark_model: it ran; its outputs were not compared."
    return Table("Runtimes", columns, body, note)


def overview(result: RunResult) -> tuple[Section, ...]:
    """All devices in one table; nothing where there is one real device alone."""
    names = facts.devices(result)
    if len(names) < 2 and not any(row.emulated for row in result.profiles):
        return ()
    best = [record for name in names if (record := facts.fastest(result, name))]
    named = [model for record in best if (model := result.model(record.model))]
    head = "Fastest int8 file" if all(map(facts.is_int8, named)) else "Fastest file"
    columns = (
        Column("Device"), Column(head), Column("p50", "ms", "number"), Column("p90", "ms", "number"),
        Column("Peak memory", "MiB", "number"), Column("Artifacts", "", "number"), Column("State"),
    )  # fmt: skip
    rows = tuple(_overview(result, name) for name in names)
    note = "The fastest among those that fail no gate on the device."
    note += f" {EMULATED}: no figure of the real device." if any(row.emulated for row in result.profiles) else ""
    return (Section("devices", "Devices", (Table("Devices", columns, rows, note),), _protocol(result)),)


def _overview(result: RunResult, name: str) -> tuple[Cell, ...]:
    rows = [record for record in result.profiles if record.device == name]
    fastest = facts.fastest(result, name)
    label = facts.device_label(result, name)
    if not fastest:
        return (Cell(label), *[Cell("—", "muted")] * 4, Cell("0"), Cell("nothing measured", "bad", mark=True))
    stamp = EMULATED if fastest.emulated else ""
    latency, doubted = fastest.latency_ms, any(map(_doubted, rows))
    figures = (known(latency.p50), known(latency.p90), known(fastest.memory.peak))
    state = Cell("emulated", "warn", mark=True) if stamp else Cell("trusted", "good", mark=True)
    if doubted and not stamp:
        state = Cell(untrusted(rows), "warn", mark=True)
    if failed := sum(failure.device == name for failure in result.failures):
        state = Cell(f"{plural(failed, 'file')} failed", "bad", mark=True)
    interval = f"{sig(latency.ci[0])} to {sig(latency.ci[1])}"
    cells = (
        replace(figure(text, note), stamp=stamp if text else "")
        for text, note in zip(figures, (interval, "", ""), strict=True)
    )
    return (Cell(label), Cell(facts.label_of(result, fastest.model)), *cells, Cell(count(len(rows))), state)
