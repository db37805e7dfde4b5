"""The page of ``edgekd profile``: model files on devices, without a recipe, gates or a test split."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.errors import joined
from edgekd.report import facts
from edgekd.report import missing as words
from edgekd.report.page import NOT_APPLICABLE, Block, Cell, Code, Column, Facts, Page, Section, Table, Verdict, figure
from edgekd.report.sections import comparison, device, device_trust, evidence
from edgekd.report.words import count, exact, mib, one_line, plain, plural, sig
from edgekd.results.findings import UNFIT, missing
from edgekd.results.profile import ProfileRecord
from edgekd.results.run import RunResult


def page(result: RunResult) -> Page:
    """Make the page of a result of ``edgekd profile``."""
    verdict = _verdict(result)
    sections = (
        _figures(result),
        *device.overview(result),
        *comparison.sections(result),
        *device.sections(result),
        evidence.findings(result, "Nothing needs an explanation."),
        _files(result),
        _provenance(result),
    )
    where = joined([facts.device_label(result, name) for name in facts.devices(result)])
    return Page(
        name=_what(result),
        story=f"Measured on {where}.",
        meta=(("Run", one_line(result.run)), ("Made", one_line(result.created)), ("edgekd", one_line(result.edgekd))),
        verdict=verdict,
        subject="",
        numbers=(),
        sections=(*sections, evidence.omissions(result, sections, verdict.failures)),
    )


def _figures(result: RunResult) -> Section:
    blocks: tuple[Block, ...] = (table(result), *device_trust.why(result)) if result.profiles else ()
    return Section("models", "Figures", blocks, "" if result.profiles else "None: the reasons stand with the verdict.")


def table(result: RunResult) -> Table:
    """Every file on every device: latency, memory, and whether its outputs are right there."""
    columns = (
        Column("File"), Column("Device"), Column("p50", "ms", "number"), Column("p90", "ms", "number"),
        Column("Cold load", "ms", "number"), Column("Peak memory", "MiB", "number"), Column("Outputs"),
        Column("Trust"), Column("Size", "MiB", "number"),
    )  # fmt: skip
    rows = tuple(_row(result, record) for record in result.profiles)
    return Table("Figures", columns, rows, "p50 and p90 of single inferences after the warm-up")


def _row(result: RunResult, record: ProfileRecord) -> tuple[Cell, ...]:
    stamp = "EMULATED" if record.emulated else ""

    def number(value: float | None) -> Cell:
        return figure(None) if value is None else Cell(sig(value), stamp=stamp)

    model, trusted = result.model(record.model), record.trust.verdict == "trusted"
    latency, load = record.latency_ms, record.load_ms
    return (
        Cell(facts.label_of(result, record.model)),
        Cell(one_line(record.device)),
        number(latency.p50),
        number(latency.p90),
        number(load.cold if load else None),
        number(record.memory.peak),
        _outputs(record),
        Cell(record.trust.verdict, "" if trusted else "warn", mark=not trusted),
        figure(None) if model is None or model.bytes is None else Cell(mib(model.bytes)),
    )


def _outputs(record: ProfileRecord) -> Cell:
    """How far they are from the host's, else from torch's."""
    if not record.outputs:
        return Cell("not compared", "muted")
    row = record.outputs[0]
    against = "the host's" if row.reference == "host" else "torch's"
    if row.p99_lsb is not None:
        far = f", p99 {exact(row.p99_lsb)} LSB"
    else:
        far = f", off by {sig(row.max_error)}" if row.max_error else ""
    bad = bool(row.differs)
    text = f"{'differs' if bad else '✓ same'}{far}"
    note = f"against {against}, {plural(row.n, 'sample')}"
    note += f"; begins in {one_line(row.worst_layer)}" if row.worst_layer else ""
    return Cell(text, "bad" if bad else "", note, bad)


def _what(result: RunResult) -> str:
    files = [facts.label(model) for model in result.models]
    return joined(files) if len(files) <= 3 else f"{joined(files[:2])} and {count(len(files) - 2)} more files"


def _verdict(result: RunResult) -> Verdict:
    devices = facts.devices(result)
    unfit = sum(figure.reason.code == UNFIT for figure in result.not_measured)
    asked = len(result.models) * len(devices) - unfit
    lost = tuple(_lost(result))
    doubted = sum(record.trust.verdict == "untrusted" for record in result.profiles)
    sentence = f"{plural(len(result.models), 'file')} on {plural(len(devices), 'device')}: "
    sentence += f"{count(len(result.profiles))} of {plural(asked, 'measurement')} made"
    sentence += f", {count(unfit)} not applicable" if unfit else ""
    sentence += f"; the times of {count(doubted)} are untrusted." if doubted else "."
    word = "Measured" if not lost else "Failed" if not result.profiles else "In part"
    return Verdict("bad" if lost else "warn" if doubted else "good", word, sentence, lost, None)


def _lost(result: RunResult) -> Iterator[str]:
    """The devices and the files on devices that failed, with the reason; the result lists these first."""
    silent = facts.failed_devices(result)
    for name in silent:
        reason = facts.device_reason(result, name)
        yield reason if reason.startswith(f"{name} ") else f"{one_line(name)}: {reason}"
    measured = {(record.model, record.device) for record in result.profiles}
    measured -= {(failure.model, failure.device) for failure in result.failures}  # the device was lost later
    for name in facts.devices(result):
        for model in result.models if name not in silent else ():
            if (model.name, name) not in measured:
                why = [lack for lack in result.not_measured if (lack.model, lack.device) == (model.name, name)]
                figure = next(iter(why), missing("", "not measured", model.name, name))
                if figure.reason.code != UNFIT:
                    yield one_line(words.sentence(figure))


def _files(result: RunResult) -> Section:
    rows = tuple(
        (
            Cell(facts.label(model)),
            Cell(one_line(model.path or "")),
            NOT_APPLICABLE if model.bytes is None else Cell(count(model.bytes)),
            Cell(model.sha256 or ""),
        )
        for model in result.models
    )
    columns = (Column("File"), Column("Path", "", "code"), Column("Size", "bytes", "number"), Column("SHA-256", "", "code"))
    return Section("artifacts", "Files", (Table("Files", columns, rows),))


def _provenance(result: RunResult) -> Section:
    machine = tuple((one_line(name), one_line(text)) for name, text in evidence.flatten(result.environment))
    inputs = Facts((("Inputs", one_line(result.data.source)), *machine))
    return Section("provenance", "Provenance", (Code("Measure again", plain(result.command), "sh"), inputs))
