"""Sections about quality: the models side by side, Pareto, where accuracy went, parity."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import compress

from edgekd.errors import joined
from edgekd.report import facts
from edgekd.report.charts.quality import Budget, Panel, Point, Step, metric_steps, pareto, shapes
from edgekd.report.difference import NOT_SHOWN, between
from edgekd.report.metric import MetricWords, capitalized
from edgekd.report.page import NOT_APPLICABLE, Block, Bullets, Cell, Column, Section, Table, Tone, figure, filled
from edgekd.report.runtime import in_float, took, without_hint
from edgekd.report.sections import device_trust
from edgekd.report.words import count, exact, known, mib, one_line, percent, plural, sig
from edgekd.results.fidelity import Figure
from edgekd.results.gates import GateRecord, Verdict
from edgekd.results.models import ModelRecord, OutputParity
from edgekd.results.run import RunResult
from edgekd.results.runtime import number

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
    metric, of = facts.metric(result), facts.judge(result)
    both = facts.labelled(result) and any(model.measured("teacher") for model in result.models)
    float_name, compressed = _float_name(result), any(model.fidelity for model in result.models)
    columns = (
        Column("Model"),
        Column(metric.title if of == "teacher" else f"{metric.title}, test", metric.unit, "number"),
        Column(facts.metric(result, "teacher").title, metric.unit, "number"),
        Column(f"Against {float_name}", metric.change_unit, "number"),
        Column(f"Same {facts.same_class(result.task)} as {float_name}", "%", "number"),
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
    known, classes = of is not None, any(model.fidelity and model.fidelity.agreement for model in result.models)
    asked = [
        True,
        known,
        both,
        known,
        compressed and classes,
        compressed,
        compressed and classes and not known,
        *[facts.profiled(result)] * 3,
        *[True] * 4,
    ]
    note = "— does not apply: networks in torch are trained and evaluated here; only files run on a device."
    if compressed:
        output = facts.output_of(result.task)
        whose = f"{output} of {float_name}"
        note += f" [low, high]: 95 % interval. SQNR: variance of the {whose} to the mean square of the error."
    if any(gate.model not in held for gate in result.gates):
        note += " Gates: a float file beside int8 files is for comparison; it has only the parity gate."
    title = "From teacher to artifact" if facts.section_of(result, "teacher") else "From network to artifact"
    table = Table(title, tuple(compress(columns, asked)), tuple(tuple(compress(row, asked)) for row in rows), note)
    blocks: tuple[Block, ...] = (table, *device_trust.why(result)) if rows else ()
    return Section("models", title, blocks, missing="" if rows else "No model was made.")


def _gates(gate: GateRecord) -> Cell:
    """The verdict of the gate that decides about a file."""
    cell = VERDICTS[gate.verdict]
    if gate.blocks:
        return replace(cell, tone="bad")
    return cell if gate.verdict != "fail" else replace(cell, text=f"{cell.text}, only warns", tone="warn")


def _model_row(result: RunResult, model: ModelRecord, device: str | None, held: Collection[str]) -> tuple[Cell, ...]:
    is_file = model.role == "artifact"
    metric, reference = facts.metric(result), result.student()
    score, agreement, base = (facts.score(result, *of) for of in ((model,), (model, "teacher"), (reference,)))
    delta = metric.change(score - base) if score is not None and base is not None else None
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
    drop = close.drops.get(metric.facts.name) if close else None
    if drop and delta is not None:
        change = figure(facts.with_interval(delta, drop, -metric.gain(1, 0) * metric.factor))
    return (
        Cell(facts.label(model), note=kind),
        NOT_APPLICABLE
        if score is None and (lost or model.name == "teacher")
        else figure(metric.value(score) if score is not None else None),
        NOT_APPLICABLE if agreement is None else figure(metric.value(agreement)),
        change,
        _share(close.agreement, percent) if close else NOT_APPLICABLE,
        NOT_APPLICABLE if close is None else figure(sig(close.sqnr_db.value)),
        _share(close.expected_drop, lambda value: sig(100 * value)) if close else NOT_APPLICABLE,
        *timing,
        figure(mib(model.bytes)) if model.bytes is not None else unknown,
        *(figure(sig(n / 1e6)) if n is not None else NOT_APPLICABLE for n in (model.params, model.macs)),
        gates,
    )


def _share(found: Figure | None, words: Callable[[float], str]) -> Cell:
    return NOT_APPLICABLE if found is None else figure(facts.with_interval(words(found.value), found, 100))


def _float_name(result: RunResult) -> str:
    return "distilled" if result.model("distilled") else "float"


def tradeoff(result: RunResult) -> Section:
    """The metric against latency on every real device, with the gates as budget lines; emulated times are left out."""
    metric = facts.metric(result)
    title = f"{capitalized(metric.name)} against latency"
    real = [name for name in facts.devices(result) if not facts.emulated(result, name)]
    panels = [Panel(one_line(name), points, _budgets(result, name)) for name in real if (points := _points(result, name))]
    if not panels:
        reason = "only emulated devices were profiled" if result.profiles else "no artifact was profiled"
        return Section("pareto", title, missing=f"No chart: {reason}.")
    where = f"Measured on {joined([panel.device for panel in panels])}"
    where += ", each with a latency axis of its own. " if len(panels) > 1 else ". "
    caption = (
        f"{where}Filled: int8; hollow: float. Whiskers: 95 % interval of the median. "
        f"Thin line: artifacts that no other one beats in both. Shaded: outside a budget. The {metric.name} axis is cut off."
    )
    if any(point.doubt for panel in panels for point in panel.points):
        caption += " △: the latency is not trusted; see the device's trust block."
    left_out = [one_line(name) for name in facts.devices(result) if facts.emulated(result, name)]
    if left_out:
        caption += f" Left out, as emulated: {joined(left_out)}."
    return Section("pareto", title, (pareto(panels, caption, metric),))


def _points(result: RunResult, device: str) -> tuple[Point, ...]:
    found, of_format = [], shapes(model.format for model in facts.artifacts(result))
    for model in facts.artifacts(result):
        profile, score = facts.profile_of(result, model.name, device), facts.score(result, model)
        if profile is None or score is None:
            continue
        latency = profile.latency_ms
        shape = of_format[model.format]
        doubt = profile.trust.verdict == "untrusted"
        value = score * facts.metric(result).factor
        found.append(Point(facts.label(model), shape, facts.is_int8(model), latency.p50, *latency.ci, value, doubt))
    return tuple(found)


def _budgets(result: RunResult, device: str) -> tuple[Budget, ...]:
    metric, base = facts.metric(result), facts.score(result, result.student())
    lines: dict[tuple[str, float], Budget] = {}
    for gate in result.gates:
        limit = gate.limit
        if limit is None:
            continue
        sign = facts.SIGNS[limit.op]
        if gate.name == "latency_p50_ms" and limit.op == "<=" and gate.device in (None, device):
            line = Budget("x", limit.value, f"p50 {sign} {exact(limit.value)} ms")
        elif metric.facts.name in (gate.name, gate.metric if gate.name == "metric" else None):
            value = limit.value * metric.factor
            line = Budget("y", value, f"{metric.name} {sign} {exact(value)} {metric.unit}".rstrip())
        elif _drops(gate, metric) and limit.op == "<=" and base is not None:
            value = (base - metric.gain(limit.value, 0)) * metric.factor
            line = Budget("y", value, f"drop {sign} {exact(limit.value * metric.factor)} {metric.change_unit}".rstrip())
        else:
            continue
        lines.setdefault((line.axis, line.value), line)
    return tuple(lines.values())


def _drops(gate: GateRecord, metric: MetricWords) -> bool:
    """Tell whether a gate is about what the metric loses."""
    return gate.name in ("accuracy_drop", "agreement_drop") or (gate.name == "drop" and gate.metric == metric.facts.name)


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
    metric = facts.metric(result)
    title, steps = f"Where {metric.name} went", []
    for model in result.models:
        score = facts.score(result, model, metric.of)
        if score is None:
            continue
        before = _BEFORE.get(model.name, (f"{model.name}.teacher",) if model.role == "teacher" else ())
        if model.role == "artifact":
            floats = ("distilled", "student", "student_alone")
            before = ("qat", "ptq", *floats) if facts.is_int8(model) else floats
        known = ((other, found) for name in before if (other := result.model(name))
                 and (found := between(result, model, other, metric)))  # fmt: skip
        reference, change = next(known, (None, None))
        steps.append(
            Step(facts.label(model), score * metric.factor, metric.value(score), change,
                 facts.label(reference) if reference else "")
        )  # fmt: skip
    if not steps:
        return Section("accuracy", title, missing="No model was evaluated on the test split.")
    caption = (
        f"{metric.title} on the test split. Each bar goes from what a model is compared with (tick) to its own "
        f"{metric.name} (dot); grey: {NOT_SHOWN}, for its 95 % interval [low, high] holds 0. "
        "The axis does not start at 0."
    )
    chart, copied = metric_steps(steps, caption, metric), _copied(result)
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
        Column("Copied, but not by the student alone", "images", "number"),
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
        "On the test split. By chance: a network that confuses classes as often as this one, independent of the "
        "teacher. p: exact McNemar test of the two columns before it."
    )
    return Table("Mistakes taken over from the teacher", columns, rows, note)


def _story(result: RunResult) -> str:
    alone, distilled, qat, ptq = (result.model(name) for name in ("student_alone", "distilled", "qat", "ptq"))
    metric = facts.metric(result)
    int8, how = (ptq, "int8 without training") if facts.score(result, qat) is None else (qat, "int8 training")
    told = []
    for step, own, reference, worse in (
        ("distillation", distilled, alone, "lost"), (how, int8, result.student(), "cost"),
    ):  # fmt: skip
        change = between(result, own, reference, metric) if own and reference else None
        if change is not None:
            verb = "gained" if change.gain > 0 else worse
            told.append(f"{step} {verb} {change.size}{change.interval}" if change.shown else f"{step}: {change.open}")
    base = facts.score(result, int8)
    scores = (facts.score(result, model) for model in facts.artifacts(result) if facts.is_int8(model))
    files = [score for score in scores if score is not None]
    if files and base is not None:
        told.append(f"the int8 files differ from it by {metric.size(max(abs(score - base) for score in files))} at most")
    text = "; ".join(told)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def parity(result: RunResult) -> Section:
    """Show the error of each file against the network in torch, and what is left in float."""
    title = "Parity: is the file still the model?"
    rows = [row for model in facts.artifacts(result) if model.path is not None for row in _parity_rows(model)]
    if not any(model.parity for model in facts.artifacts(result)):
        return Section("parity", title, missing="No artifact was compared with the network in torch.")
    columns = (
        Column("Artifact"),
        Column("Reference"),
        Column(f"{facts.noun(result).capitalize()}s", "", "number"),
        Column(f"{capitalized(facts.same_class(result.task))} agreement", "%", "number"),
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
        f"Each file is run by its own runtime on the same test {facts.noun(result)}s. LSB: one step of the output's "
        "int8 scale. Float operations: left in float by the int8 rules. In float by the runtime: int8 in the file, but "
        "float in the graph that the runtime makes of it on this machine."
    )
    left = [
        f"{facts.label(model)}: {one_line(text)}"
        for model in facts.artifacts(result)
        for text in _left_in_float(model)
        if facts.is_int8(model)
    ]
    table = filled(Table("Each file against torch", columns, tuple(rows), note))
    hints = tuple(
        f"{facts.label(model)}: {without_hint(model.default_precision, facts.noun(result))}."
        for model in facts.artifacts(result) if model.default_precision
    )  # fmt: skip
    cut = tuple(
        f"{facts.label(model)}: {took(graph.delegates)}; the rest: {', '.join(graph.undelegated)}"
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
    yield from map(str, model.float_ops)
    yield from (f"float tensor {name}" for name in model.float_tensors or ())
    yield from in_float(model)


def _parity_rows(model: ModelRecord) -> Iterator[tuple[Cell, ...]]:
    """One row an output; its name stands there where a file has several."""
    int8 = facts.is_int8(model)
    tensors: Cell = NOT_APPLICABLE
    if int8 and model.format == "tflite":
        tensors = figure(None if model.float_tensors is None else count(len(model.float_tensors)))
    ops = figure(count(len(model.float_ops)), tone="warn" if model.float_ops else "") if int8 else NOT_APPLICABLE
    run: Cell = NOT_APPLICABLE
    if int8:
        floats = None if model.runtime_graph is None else number(model.runtime_graph.unexpected())
        run = figure(None if floats is None else count(floats), tone="warn" if floats else "")
    if model.parity is None:
        yield (Cell(facts.label(model)), *[figure(None)] * 8, tensors, ops, run)
        return
    reference, n = Cell(one_line(model.parity.reference)), Cell(count(model.parity.n))
    for name, found in model.parity.outputs.items():
        label = facts.label(model) + (f" · {one_line(name)}" if len(model.parity.outputs) > 1 else "")
        yield (Cell(label), reference, n, *_parity_of(found, int8=int8), tensors, ops, run)


def _parity_of(found: OutputParity, *, int8: bool) -> tuple[Cell, ...]:
    ties = f"{plural(found.ties, 'tie')} of torch counted as the same" if found.ties else ""
    steps = [
        NOT_APPLICABLE if value is None and not int8 else figure(None if value is None else sig(value))
        for value in (found.mean_lsb, found.p99_lsb, found.max_lsb)
    ]
    return (
        NOT_APPLICABLE if found.agreement is None else Cell(percent(found.agreement), note=ties),
        Cell(sig(found.max_abs_error)),
        figure(None if found.error is None else sig(100 * found.error)),
        *steps,
    )
