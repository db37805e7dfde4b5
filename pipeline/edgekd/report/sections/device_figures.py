"""Tables of one device: times, memory, evidence, states of the blocks, outputs beside the host's, accuracy, energy."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.errors import joined
from edgekd.report import facts
from edgekd.report.findings import differs
from edgekd.report.page import NOT_APPLICABLE, Cell, Column, Facts, Table, figure, filled
from edgekd.report.runtime import delegates, precision
from edgekd.report.sections.device_trust import asked_otherwise
from edgekd.report.words import NONE, count, known, mib, one_line, percent, sig, signed
from edgekd.results.profile import LoadTime, Outputs, ProfileRecord
from edgekd.results.run import RunResult

_LOOKED_FOR = {
    "Outputs": "outputs",
    "From the file to the answer": "path",
    "Operations": "operations",
    "Energy": "energy",
}
"""What a reader looks for on a device, by the field of its record."""


def times(where: str, labels: Sequence[str], rows: Sequence[ProfileRecord], failed: Sequence[tuple[str, str]] = ()) -> Table:
    """Latencies with their intervals, the first inference, loading and warm-up; and ``failed`` files with their reasons."""
    columns = ("p50", "p90", "p99", "Fastest", "Mean", "First inference", "Cold load", "Warm load", "Warm-up")
    body = []
    for label, row in zip(labels, rows, strict=True):
        doubt = row.trust.verdict == "untrusted"
        latency, load = row.latency_ms, row.load_ms
        interval = f"{sig(latency.ci[0])} to {sig(latency.ci[1])}"
        note = _tries(row, doubt) if row.attempts else "untrusted" if doubt else ""
        name = Cell(label, "warn" if doubt else "", note, mark=doubt)
        p90 = figure(known(latency.p90), f"{sig(latency.ci_p90[0])} to {sig(latency.ci_p90[1])}" if latency.ci_p90 else "")
        steady = [p90, *(figure(known(value)) for value in (latency.p99, latency.min, latency.mean))]
        once = [figure(known(row.first_ms)), _cold(load), *(figure(known(value)) for value in (load.warm, row.warmup_ms))]
        body.append((name, figure(sig(latency.p50), interval), *steady, *once, Cell(count(latency.n))))
    for label, reason in failed:
        body.append((Cell(label, note=reason), *[NOT_APPLICABLE] * len(columns), Cell("failed", "bad", mark=True)))
    note = "Below p50 and p90: their 95 % intervals (bootstrap over blocks). Cold load: the file was out of the page cache"
    warm = any(row.load_ms.is_cold is False for row in rows)
    note += (
        "; △: it was not, so that this is no cold load (a folder in memory, or another process holds it)." if warm else "."
    )
    heads = *(Column(head, "ms", "number") for head in columns), Column("Inferences", "", "number")
    return Table(f"Times on {where}", (Column("Artifact"), *heads), tuple(body), note)


def _cold(load: LoadTime) -> Cell:
    if load.cold is None or load.is_cold is not False:
        return figure(known(load.cold))
    return Cell(sig(load.cold), "warn", "not cold", mark=True)


def memory(result: RunResult, where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Table:
    """Memory by its definitions: there is more than one, and they differ."""
    trivial = any(row.memory.trivial is not None for row in rows)
    body = []
    for label, row in zip(labels, rows, strict=True):
        model = result.model(row.model)
        found = row.memory
        size = figure(mib(model.bytes) if model and model.bytes is not None else None)
        over = None if found.peak is None or found.trivial is None else found.peak - found.trivial
        figures = [found.runtime, found.model, *([over] if trivial else []), found.peak]
        body.append((Cell(label), size, *(figure(known(value)) for value in figures)))
    agents = dict.fromkeys(row.agent for row in rows)
    sources = [{"python": "VmHWM"}.get(agent, f"as {one_line(agent)} tells it") for agent in agents]
    note = (
        f"Peak: resident set of the measuring process ({' or '.join(sources)}). "
        "Runtime alone: the same process without a model. Added by the "
        "model: the difference."
    )
    heads = ["Runtime alone", "Added by the model", "Peak of the process"]
    if trivial:
        heads.insert(2, "Over a trivial model")
        note += (
            " Over a trivial model: the peak minus that of the same runtime with a model of one fully connected layer, 4×4."
        )
    of_file = Column("File", "MiB", "number", stays=True)
    columns = (Column("Artifact"), of_file, *(Column(head, "MiB", "number") for head in heads))
    return Table(f"Memory on {where}", columns, tuple(body), note)


def evidence(result: RunResult, where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Table:
    """Show the settings that the runtime used, and the steadiness of the session."""
    columns = (
        Column("Artifact"),
        Column("Verdict"),
        Column("Runtime"),
        Column("Precision"),
        Column("Delegate"),
        Column("Threads", "", "number"),
        Column("Drift", "%", "number"),
        Column("Spread", "%", "number"),
        Column("Load before", "", "number"),
        Column("Load after", "", "number"),
    )
    body = []
    for label, row in zip(labels, rows, strict=True):
        trust, used = row.trust, row.effective
        good = trust.verdict == "trusted" and not row.emulated
        verdict = "emulated" if row.emulated else trust.verdict
        otherwise = asked_otherwise(result, row)
        asked = f"{used.asked_threads} asked for" if "threads" in otherwise else ""
        model = result.model(row.model)
        narrowed = f"the file is {facts.precision(model)}" if model and "precision" in otherwise else ""
        body.append(
            (
                Cell(label),
                Cell(verdict, "good" if good else "warn", mark=True),
                Cell(one_line(used.runtime)),
                Cell(one_line(precision(used.operations)), "warn" if narrowed else "", narrowed, mark=bool(narrowed)),
                Cell(one_line(delegates(used)) or NONE),
                Cell(str(used.threads), "warn" if asked else "", asked, mark=bool(asked)),
                figure(signed(round(trust.drift * 100, 2))),
                figure(sig(trust.spread * 100)),
                figure(sig(trust.load_before)),
                figure(sig(trust.load_after)),
            )
        )
    note = (
        "Runtime, precision, delegate and threads are read back from the runtime. Drift: last block against the first. "
        "Spread: interquartile range of the block medians. Load: one-minute average."
    )
    return Table(f"Why to believe the figures on {where}", columns, tuple(body), note)


def states(where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Table | None:
    """The device after each block of each artifact, block by block; None where nothing of it can be read."""
    heads = ("Medians", "ms"), ("Temperature", "°C"), ("Clock", "MHz"), ("Other processes", "cores"), ("Throttling", "")
    columns = (Column("Artifact"), *(Column(head, unit) for head, unit in heads))
    body = []
    for label, row in zip(labels, rows, strict=True):
        if not row.states:
            continue
        hot = [str(index + 1) for index, state in enumerate(row.states) if state.throttled]
        body.append(
            (
                Cell(label),
                _course(row, row.blocks),
                _course(row, [state.celsius for state in row.states]),
                _course(row, [state.mhz for state in row.states]),
                _course(row, [state.others for state in row.states]),
                Cell(f"newly reported in block {joined(hot)}", "warn", mark=True) if hot else Cell("none new"),
            )
        )
    return (
        Table(f"Blocks on {where}", columns, tuple(body), "A figure for each block, in the order they ran.")
        if body
        else None
    )


def _course(row: ProfileRecord, values: Sequence[float | None]) -> Cell:
    if all(value is None for value in values):
        return figure(None)
    texts = [known(value) or "—" for value in values]
    text = f"{texts[0]} in each" if len(texts) > 1 and len(set(texts)) == 1 else " · ".join(texts)
    return Cell(text, stamp="EMULATED" if row.emulated else "")


def outputs(result: RunResult, where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Table | None:
    """Outputs on the device beside the host's and torch's; what no file has, such as classes, has no column."""
    found = [one for row in rows for one in row.outputs]
    body = [(Cell(label), *_outputs(one)) for label, row in zip(labels, rows, strict=True) for one in row.outputs]
    if not body:
        return None
    classes = any(one.agreement is not None for one in found)
    steps = any(one.p99_lsb is not None for one in found)
    same = facts.same_class(result.task)
    numbers = (
        ("Samples", ""), ("Largest error", ""), ("Cosine", ""), (f"Same {same}", "%"), ("p99 error", "LSB"),
        ("Max error", "LSB"), ("Flips", ""),
    )  # fmt: skip
    columns = (
        Column("Artifact"), Column("Against"), Column("Verdict"), *(Column(head, unit, "number") for head, unit in numbers),
        Column("Where it begins"),
    )  # fmt: skip
    limits = ["p99 within 2 steps (LSB) of an int8 output"] * steps
    limits += ["a thousandth of a float output's deviation"] + ["no flip"] * classes
    note = f"Same: no more than two correct programs differ by: {joined(limits)}. Cosine: the smallest."
    if classes:
        note += f" Flips: samples with another {same} although the reference's two best are more than two steps apart."
    return filled(Table(f"Outputs on {where}", columns, tuple(body), note))


def accuracy(result: RunResult, where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Table | None:
    """The metric of a part of the test split that was run there, beside the host's on the same samples."""
    known = [(label, row.accuracy) for label, row in zip(labels, rows, strict=True) if row.accuracy is not None]
    if not known:
        return None
    metric, noun = facts.metric_called(result, known[0][1].metric), facts.noun(result)
    body = tuple(
        (
            Cell(label),
            Cell(count(found.n)),
            figure(metric.value(found.value)),
            figure(None if found.host is None else metric.value(found.host)),
            NOT_APPLICABLE if found.host is None else figure(metric.change(found.value - found.host)),
        )
        for label, found in known
    )
    heads = (
        (f"Test {noun}s", ""), (metric.title, metric.unit), (f"{metric.title} on the host", metric.unit),
        ("Difference", metric.change_unit),
    )  # fmt: skip
    columns = Column("Artifact"), *(Column(head, unit, "number") for head, unit in heads)
    return Table(f"{metric.title} on {where}", columns, body, f"The host's figure is of the same {noun}s.")


def _outputs(found: Outputs) -> tuple[Cell, ...]:
    good = not found.differs
    return (
        Cell(found.reference),
        Cell("same" if good else "differs", "good" if good else "bad", one_line(differs(found)), mark=True),
        Cell(count(found.n)),
        figure(sig(found.max_error)),
        figure("1" if found.cosine == 1 else f"{found.cosine:.6f}"),
        NOT_APPLICABLE if found.agreement is None else figure(percent(found.agreement)),
        NOT_APPLICABLE if found.p99_lsb is None else figure(sig(found.p99_lsb)),
        NOT_APPLICABLE if found.max_lsb is None else figure(sig(found.max_lsb)),
        NOT_APPLICABLE if found.flips is None else figure(count(found.flips)),
        Cell(one_line(found.worst_layer) or "—"),
    )


def energy(where: str, labels: Sequence[str], rows: Sequence[ProfileRecord]) -> Table | None:
    """Energy of an inference, where there is a meter."""
    columns = (Column("Artifact"), Column("Energy", "mJ", "number"), Column("Meter"))
    body = tuple(
        (Cell(label), figure(sig(row.energy.mj)), Cell(one_line(row.energy.meter)))
        for label, row in zip(labels, rows, strict=True)
        if row.energy
    )
    note = "Of an inference, above what the device takes when it is idle."
    return Table(f"Energy on {where}", columns, body, note) if body else None


def missing(labels: Sequence[str], rows: Sequence[ProfileRecord], *, here: bool = False) -> Facts | None:
    """List figures that were not measured, by artifact; the notes have the reasons.

    Outputs of this machine (``here``) are what the others' are compared with, and miss nothing where torch's are not known.
    """
    pairs = []
    for what, name in _LOOKED_FOR.items():
        if here and name == "outputs":
            continue
        lacking = [(label, row) for label, row in zip(labels, rows, strict=True) if not getattr(row, name)]
        if lacking:
            names = "of all artifacts" if len(lacking) == len(rows) else f"of {joined([label for label, _ in lacking])}"
            pairs.append((what, names))
    return Facts(tuple(pairs), "Not measured") if pairs else None


def _tries(row: ProfileRecord, doubt: bool) -> str:
    """How often it was measured: a session is measured again as a whole where one of its files is not trusted."""
    trusted = [not attempt.reasons for attempt in row.attempts] + [not doubt]
    which = "all" if all(trusted) else "none" if not any(trusted) else "not all" if doubt else "the last one"
    return f"{len(trusted)} attempts, {which} trusted"
