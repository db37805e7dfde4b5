"""Sections about quality: the models side by side, Pareto, where accuracy went, parity."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import compress

from edgekd.report import facts
from edgekd.report.charts.quality import SHAPES, Budget, Panel, Point, Step, accuracy_steps, pareto
from edgekd.report.page import NOT_APPLICABLE, Block, Bullets, Cell, Column, Section, Table, Tone, figure
from edgekd.report.sections import device_trust
from edgekd.report.words import count, exact, known, listing, mib, one_line, percent, plural, points, sig
from edgekd.results.gates import GateRecord, Verdict
from edgekd.results.models import ModelRecord, Parity
from edgekd.results.run import RunResult
from edgekd.results.runtime import in_float, number, without_hint

VERDICTS: dict[Verdict, Cell] = {
    "pass": Cell("pass", "good", mark=True),
    "fail": Cell("fail", "bad", mark=True),
    "undecided": Cell("undecided", "warn", mark=True),
    "untrusted": Cell("untrusted", "warn", mark=True),
    "emulated": Cell("emulated", "warn", mark=True),
    "not_measured": Cell("not measured", "warn", mark=True),
}


def models(result: RunResult) -> Section:
    """Every network and file of the run in one table, the ones that were not written included."""
    device = facts.main_device(result)
    where = f" on {one_line(device)}" if device else ""
    measure, both = facts.measure(result), facts.labelled(result) and any(m.metric("agreement") for m in result.models)
    float_name, compressed = _float_name(result), any(model.fidelity for model in result.models)
    columns = (
        Column("Model"),
        Column("Top-1, test" if measure != "agreement" else facts.measured(measure), "%", "number"),
        Column(facts.measured("agreement"), "%", "number"),
        Column(f"Against {float_name}", "points", "number"),
        Column(f"Same top-1 as {float_name}", "%", "number"),
        Column(f"SQNR to {float_name}", "dB", "number"),
        Column("Expected drop", "points", "number"),
        Column(f"p50{where}", "ms", "number"),
        Column(f"p90{where}", "ms", "number"),
        Column("Peak memory", "MiB", "number"),
        Column("Size", "MiB", "number"),
        Column("Parameters", "M", "number"),
        Column("MACs", "M", "number"),
        Column("Gates"),
    )
    held = facts.held(result.gates)
    rows = [_model_row(result, model, device, held) for model in result.models]
    for name, reason in facts.not_written(result):
        rows.append((Cell(name, note=reason), *[NOT_APPLICABLE] * (len(columns) - 2), Cell("failed", "bad", mark=True)))
    known = measure is not None
    asked = [
        True,
        known,
        both,
        known,
        *[compressed] * 2,
        compressed and not known,
        *[facts.profiled(result)] * 3,
        *[True] * 4,
    ]
    note = "— does not apply: networks in torch are trained and evaluated here; only files run on a device."
    if compressed:
        note += f" [low, high]: 95 % interval. SQNR: variance of the logits of {float_name} to the mean square of the error."
    if any(gate.model not in held for gate in result.gates):
        note += " Gates: a float file beside int8 ones is there to compare with; parity alone holds it."
    title = "From teacher to artifact" if facts.section_of(result, "teacher") else "From network to artifact"
    table = Table(title, tuple(compress(columns, asked)), tuple(tuple(compress(row, asked)) for row in rows), note)
    blocks: tuple[Block, ...] = (table, *device_trust.why(result)) if rows else ()
    return Section("models", title, blocks, missing="" if rows else "No model was made.")


def _gates(gate: GateRecord) -> Cell:
    """The verdict of the gate that decides about a file."""
    return replace(VERDICTS[gate.verdict], tone="bad") if gate.blocks else VERDICTS[gate.verdict]


def _model_row(result: RunResult, model: ModelRecord, device: str | None, held: Collection[str]) -> tuple[Cell, ...]:
    is_file = model.role == "artifact"
    top1, agreement, reference = model.top1(), model.metric("agreement"), result.student()
    base = reference.top1() if reference else None
    delta = points(top1 - base) if top1 is not None and base is not None else None
    profile = facts.profile_of(result, model.name, device)
    lost = is_file and model.path is None
    unknown = NOT_APPLICABLE if lost or not is_file else figure(None)
    timing = [unknown] * 3
    if profile:
        doubted = profile.trust.verdict == "untrusted"
        tone: Tone = "warn" if doubted else ""
        times = profile.latency_ms.p50, profile.latency_ms.p90
        timing = [figure(known(time), "△ untrusted" if doubted else "", tone) for time in times]
        timing.append(figure(known(profile.memory.peak)))
    gate = facts.decisive([gate for gate in result.gates if gate.model == model.name and model.name in held])
    gates = _gates(gate) if gate else NOT_APPLICABLE
    if lost:
        gates = Cell("failed", "bad", mark=True)
    why = facts.lost_because(result, f"export.{model.name}") if lost else ""
    kind = one_line(" · ".join(part for part in (model.source, facts.precision(model), why) if part))
    close = model.fidelity
    change = NOT_APPLICABLE if delta is None or model is reference else figure(delta)
    if close and close.drop and delta is not None:
        change = figure(facts.with_interval(delta, close.drop, -100))
    return (
        Cell(facts.label(model), note=kind),
        NOT_APPLICABLE
        if top1 is None and (lost or model.name == "teacher")
        else figure(percent(top1) if top1 is not None else None),
        NOT_APPLICABLE if agreement is None else figure(percent(agreement.top1)),
        change,
        NOT_APPLICABLE
        if close is None
        else figure(facts.with_interval(percent(close.agreement.value), close.agreement, 100)),
        NOT_APPLICABLE if close is None else figure(sig(close.sqnr_db.value)),
        NOT_APPLICABLE
        if close is None
        else figure(facts.with_interval(sig(100 * close.expected_drop.value), close.expected_drop, 100)),
        *timing,
        figure(mib(model.bytes)) if model.bytes is not None else unknown,
        *(figure(sig(n / 1e6)) if n is not None else NOT_APPLICABLE for n in (model.params, model.macs)),
        gates,
    )


def _float_name(result: RunResult) -> str:
    return "distilled" if result.model("distilled") else "float"


def tradeoff(result: RunResult) -> Section:
    """Accuracy against latency on every real device, with the gates as budget lines; emulated times have no place in it."""
    measure = facts.measure(result) or "accuracy"
    title = f"{measure.capitalize()} against latency"
    real = [name for name in facts.devices(result) if not facts.emulated(result, name)]
    panels = [Panel(one_line(name), points, _budgets(result, name)) for name in real if (points := _points(result, name))]
    if not panels:
        reason = "only emulated devices were profiled" if result.profiles else "no artifact was profiled"
        return Section("pareto", title, missing=f"No chart: {reason}.")
    where = f"Measured on {listing([panel.device for panel in panels])}"
    where += ", each with a latency axis of its own. " if len(panels) > 1 else ". "
    caption = (
        f"{where}Filled: int8; hollow: float. Whiskers: 95 % interval of the median. "
        f"Thin line: what no other artifact beats in both. Shaded: outside a budget. The {measure} axis is cut off."
    )
    if any(point.doubt for panel in panels for point in panel.points):
        caption += " △: the latency is not trusted; see the device's trust block."
    left_out = [one_line(name) for name in facts.devices(result) if facts.emulated(result, name)]
    if left_out:
        caption += f" Left out, as emulated: {listing(left_out)}."
    return Section("pareto", title, (pareto(panels, caption, measure),))


def _points(result: RunResult, device: str) -> tuple[Point, ...]:
    found = []
    for model in facts.artifacts(result):
        profile, top1 = facts.profile_of(result, model.name, device), model.top1()
        if profile is None or top1 is None:
            continue
        latency = profile.latency_ms
        shape = SHAPES.get(model.format, "triangle")
        doubt = profile.trust.verdict == "untrusted"
        found.append(Point(facts.label(model), shape, facts.is_int8(model), latency.p50, *latency.ci, top1 * 100, doubt))
    return tuple(found)


def _budgets(result: RunResult, device: str) -> tuple[Budget, ...]:
    student = result.student()
    base = student.top1() if student else None
    lines: dict[tuple[str, float], Budget] = {}
    for gate in result.gates:
        limit = gate.limit
        if limit is None:
            continue
        sign = facts.SIGNS[limit.op]
        if gate.name == "latency_p50_ms" and limit.op == "<=" and gate.device in (None, device):
            line = Budget("x", limit.value, f"p50 {sign} {exact(limit.value)} ms")
        elif gate.name == "top1" and limit.op == ">=":
            line = Budget("y", limit.value * 100, f"top-1 {sign} {exact(limit.value * 100)} %")
        elif gate.name in ("accuracy_drop", "agreement_drop") and limit.op == "<=" and base is not None:
            line = Budget("y", (base - limit.value) * 100, f"drop {sign} {exact(limit.value * 100)} points")
        else:
            continue
        lines.setdefault((line.axis, line.value), line)
    return tuple(lines.values())


_BEFORE = {
    "student_alone": ("teacher",),
    "kd": ("student_alone", "teacher"),
    "tuned_kd": ("kd", "student_alone", "teacher"),
    "distilled": ("student_alone", "teacher"),
    "qat": ("distilled", "student"),
    "ptq": ("distilled", "student"),
}


def accuracy(result: RunResult) -> Section:
    """Show the gain or loss of each step on the test split."""
    measure = facts.measure(result) or "accuracy"
    title, steps = f"Where {measure} went", []
    for model in result.models:
        found = model.metric(measure)
        if found is None:
            continue
        top1 = found.top1
        before = _BEFORE.get(model.name, (f"{model.name}.teacher",) if model.role == "teacher" else ())
        if model.role == "artifact":
            floats = ("distilled", "student", "student_alone")
            before = ("qat", "ptq", *floats) if facts.is_int8(model) else floats
        known = [(name, value) for name in before if (value := _top1(result, name)) is not None]
        name, reference = known[0] if known else ("", None)
        steps.append(
            Step(
                facts.label(model),
                top1 * 100,
                None if reference is None else reference * 100,
                percent(top1),
                "" if reference is None else points(top1 - reference),
                facts.label_of(result, name) if name else "",
            )
        )
    if not steps:
        return Section("accuracy", title, missing="No model was evaluated on the test split.")
    caption = (
        f"{facts.measured(measure)} on the test split. Each bar goes from what a model is compared with (tick) to its own "
        f"{measure} (dot). "
        "The axis does not start at 0."
    )
    chart, copied = accuracy_steps(steps, caption, measure), _copied(result)
    return Section("accuracy", title, (chart, *([copied] if copied else [])), _story(result))


def _copied(result: RunResult) -> Table | None:
    """The teacher's mistakes that the students make, too."""
    if not result.copied:
        return None
    columns = (
        Column("Network"),
        Column("The teacher's mistakes", "images", "number"),
        Column("The same wrong class", "images", "number"),
        Column("Of the teacher's mistakes", "%", "number"),
        Column("By chance", "images", "number"),
        Column("Copied, and not by the student alone", "images", "number"),
        Column("Only by the student alone", "images", "number"),
        Column("p against the student alone", "", "number"),
    )
    rows = tuple(
        (
            Cell(facts.label_of(result, found.model)),
            Cell(count(found.mistakes)),
            Cell(count(found.copied)),
            Cell(percent(found.share)),
            Cell(sig(found.chance)),
            *(NOT_APPLICABLE if n is None else Cell(count(n)) for n in (found.more, found.fewer)),
            NOT_APPLICABLE if found.p is None else Cell(sig(found.p, 2)),
        )
        for found in result.copied
    )
    note = (
        "On the test split. By chance: a network that takes one class for another as often as this one, whatever the "
        "teacher says. p: exact McNemar test of the two columns before it."
    )
    return Table("Mistakes taken over from the teacher", columns, rows, note)


def _top1(result: RunResult, name: str) -> float | None:
    model = result.model(name)
    return model.top1() if model else None


def _story(result: RunResult) -> str:
    alone, distilled, qat, ptq = (_top1(result, name) for name in ("student_alone", "distilled", "qat", "ptq"))
    int8, how = (ptq, "int8 without training") if qat is None else (qat, "int8 training")
    told = []
    if alone is not None and distilled is not None:
        verb = "changed" if distilled == alone else "gained" if distilled > alone else "lost"
        told.append(f"distillation {verb} {points(abs(distilled - alone)).lstrip('+')} points")
    student = result.student()
    base = student.top1() if student else None
    if base is not None and int8 is not None:
        verb = "changed" if int8 == base else "gained" if int8 > base else "cost"
        told.append(f"{how} {verb} {points(abs(int8 - base)).lstrip('+')}")
    files = [top1 for model in facts.artifacts(result) if facts.is_int8(model) and (top1 := model.top1()) is not None]
    if files and int8 is not None:
        told.append(
            f"the int8 files differ from it by {points(max(abs(top1 - int8) for top1 in files)).lstrip('+')} at most"
        )
    text = listing(told)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def parity(result: RunResult) -> Section:
    """Show the error of each file against the network in torch, and what is left in float."""
    title = "Parity: is the file still the model?"
    rows = [_parity_row(model, model.parity) for model in facts.artifacts(result) if model.path is not None]
    if not any(model.parity for model in facts.artifacts(result)):
        return Section("parity", title, missing="No artifact was compared with the network in torch.")
    columns = (
        Column("Artifact"),
        Column("Reference"),
        Column("Images", "", "number"),
        Column("Top-1 agreement", "%", "number"),
        Column("Largest error", "output units", "number"),
        Column("RMS error", "% of deviation", "number"),
        Column("Mean error", "LSB", "number"),
        Column("p99 error", "LSB", "number"),
        Column("Largest error", "LSB", "number"),
        Column("Float tensors", "", "number"),
        Column("Float operations", "", "number"),
        Column("In float by the runtime", "", "number"),
    )
    note = (
        "Each file is run by its own runtime on the same test images. LSB: one step of the output's int8 scale. "
        "Float operations: left in float by the int8 rules. In float by the runtime: int8 in the file, but float in the "
        "graph that the runtime makes of it on this machine."
    )
    left = [
        f"{facts.label(model)}: {one_line(text)}"
        for model in facts.artifacts(result)
        for text in _left_in_float(model)
        if facts.is_int8(model)
    ]
    table = Table("Each file against torch", columns, tuple(rows), note)
    hints = tuple(
        f"{facts.label(model)}: {without_hint(model.default_precision)}."
        for model in facts.artifacts(result) if model.default_precision
    )  # fmt: skip
    cut = tuple(
        f"{facts.label(model)}: {graph.delegate}; the rest: {', '.join(graph.undelegated)}"
        for model in facts.artifacts(result)
        if (graph := model.runtime_graph) and graph.undelegated
    )
    lists = {
        "Left in float, and why": tuple(left),
        "Int8, but outside of the delegate": cut,
        "Why the precision hint matters": hints,
    }
    return Section("parity", title, (table, *(Bullets(items, heading) for heading, items in lists.items() if items)))


def _left_in_float(model: ModelRecord) -> Iterator[str]:
    """What of an int8 file is in float: by the rules, in the file, and by the runtime's doing alone."""
    yield from model.float_ops
    yield from (f"float tensor {name}" for name in model.float_tensors or ())
    if model.runtime_graph:
        yield from in_float(model.format, model.runtime_graph)


def _parity_row(model: ModelRecord, found: Parity | None) -> tuple[Cell, ...]:
    int8 = facts.is_int8(model)
    tensors: Cell = NOT_APPLICABLE
    if int8 and model.format == "tflite":
        tensors = figure(None if model.float_tensors is None else count(len(model.float_tensors)))
    ops = figure(count(len(model.float_ops)), tone="warn" if model.float_ops else "") if int8 else NOT_APPLICABLE
    run: Cell = NOT_APPLICABLE
    if int8:
        floats = None if model.runtime_graph is None else number(model.runtime_graph.unexpected())
        run = figure(None if floats is None else count(floats), tone="warn" if floats else "")
    if found is None:
        return (Cell(facts.label(model)), *[figure(None)] * 8, tensors, ops, run)
    ties = f"{plural(found.ties, 'tie')} of torch counted as the same" if found.ties else ""
    steps = [
        NOT_APPLICABLE if value is None and not int8 else figure(None if value is None else sig(value))
        for value in (found.mean_lsb, found.p99_lsb, found.max_lsb)
    ]
    return (
        Cell(facts.label(model)),
        Cell(one_line(found.reference)),
        Cell(count(found.n)),
        Cell(
            percent(found.top1_agreement),
            note=ties,
        ),
        Cell(sig(found.max_abs_error)),
        figure(None if found.error is None else sig(100 * found.error)),
        *steps,
        tensors,
        ops,
        run,
    )
