"""The verdict of a run in words: what passed, what did not, which layers did it, and what to type."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from edgekd.errors import joined
from edgekd.report import facts, settings
from edgekd.report.difference import NOT_SHOWN, between
from edgekd.report.findings import sentence
from edgekd.report.page import NOT_APPLICABLE, Cell, Column, Table, Tone, Verdict
from edgekd.report.words import NONE, count, one_line, plural, sig
from edgekd.results.gates import QUALITY, SEVERITY, GateRecord
from edgekd.results.gates import Verdict as Word
from edgekd.results.layers import LayerRecord
from edgekd.results.models import ModelRecord, TaskFacts
from edgekd.results.run import RunResult
from edgekd.runtimes import base
from edgekd.statistics import wilson

CHANCE = "chance"
"""Code of the doubt about given weights that are no better than chance."""
PARITY = ("parity_top1", "parity_lsb_p99", "parity_error")
WORDS: dict[Word, str] = {
    "fail": "failed",
    "not_measured": "not measured",
    "undecided": "undecided",
    "untrusted": "could not be trusted",
    "emulated": "measured on an emulated device",
}
"""In the order they are listed, which is that of ``facts.ORDER``."""
TONES: dict[Word, Tone] = {"pass": "good", "not_applicable": "muted"}
NAMED = 3
"""Layers that are named as the cause, at most."""
HALF = 0.5
"""Of the noise: what single layers explain at least where they are the cause."""
TIES = 0.005
"""Share of a layer's values that two correct programs round to different steps, at most; see docs/int8.md, section 5."""
FLOAT_SHARE = 0.25
"""Of the weights' bytes, from which on it is said how many are float32."""
SHARED = ("add", "cat")
"""Operators whose inputs share one scale."""
LEAST_SHARE = 0.05
"""Of the noise at the output; a layer with less is no cause."""


def verdict(result: RunResult) -> Verdict:
    """Say the verdict: its word, a sentence, every gate that did not pass, where int8 loses, what to type, and all gates."""
    counted = [gate for gate in result.gates if gate.level == "error" and gate.verdict != "not_applicable"]
    parts = {word: [gate for gate in result.gates if gate.verdict == word] for word in SEVERITY}
    # What was not delivered is said once, with its reason.
    delivered = {model.name for model in facts.artifacts(result) if model.path is not None}
    said = [gate for word in WORDS for gate in parts[word] if gate.model in delivered]
    lost = [f"{name} was {reason}" for name, reason in facts.lost(result)]
    silent = facts.failed_devices(result)
    lost += [f"{one_line(name)} gave no figures: {facts.device_reason(result, name)}" for name in silent]
    lost += [
        f"{facts.label_of(result, failure.model)} failed on {one_line(failure.device)}: {one_line(failure.reason)}"
        for failure in result.failures
    ]
    lines = [*lost, *(_line(result, gate) for gate in said if gate.blocks), *causes(result), *arithmetic(result)]
    warned = (_line(result, gate) for gate in said if not gate.blocks and gate.level != "off")
    cautions = [*_knows(result), *warned, *_doubts(result)]
    stops = any(gate.blocks for gate in result.gates) or result.verdict == "fail"
    tone: Tone = "bad" if stops else "good" if result.verdict == "pass" else "warn"
    table = _table(result) if result.gates else None
    first = facts.decisive(result.gates)
    named = first is not None and first.blocks and result.verdict != "fail"
    word = (first.verdict if first is not None and named else result.verdict).replace("_", " ").capitalize()
    return Verdict(tone, word, _sentence(result, counted), tuple(lines), table, tuple(cautions))


def _sentence(result: RunResult, counted: list[GateRecord]) -> str:
    if not result.gates:
        return "No gate was set, so nothing was decided."
    parts = {word: sum(gate.verdict == word for gate in counted) for word in WORDS}
    told = [f"{count(parts[word])} {words}" for word, words in WORDS.items() if parts[word]]
    if not counted:
        sentence = "No gate was set at level error, so nothing was decided."
    elif told:
        sentence = f"Of {plural(len(counted), 'gate')}, {joined(told)}."
    else:
        sentence = "The gate passed." if len(counted) == 1 else f"All {count(len(counted))} gates passed."
    warned = sum(gate.level == "warn" and gate.verdict in WORDS for gate in result.gates)
    blocking = sum(gate.blocks for gate in counted)
    if 0 < blocking < sum(parts.values()):
        sentence += f" Exit code 1 because of {count(blocking)} of them."
    off = len({gate.name for gate in result.gates if gate.level == "off"})
    warned += len([*_knows(result), *_doubts(result)])
    more = [f"{plural(warned, 'caution')}"] if warned else []
    more += [f"{plural(off, 'gate')} switched off"] if off else []
    sentence += f" {joined(more).capitalize()}." if more else ""
    failed = facts.failed_devices(result)
    sentence += f" {plural(len(failed), 'device')} failed." if failed else ""
    sentence += f" {plural(len(result.failures), 'file')} failed on a device." if result.failures else ""
    doubted = [gate for gate in counted if gate.verdict in ("undecided", "untrusted") and not gate.blocks]
    if doubted and not any(gate.blocks for gate in result.gates):
        within = all(_meets(gate, gate.measured) or gate.limit is None for gate in doubted)
        sentence += f" Exit code 0: every figure in doubt {'is within its limit' if within else 'only warns'}."
    return sentence


def _line(result: RunResult, gate: GateRecord) -> str:
    """One gate that did not pass: what was measured, on what, against what, the limit, and why it is not decided."""
    measured, unit = facts.gate_measured(gate, result.task), facts.gate_words(gate, result.task).unit
    label = facts.gate_label(gate, result.task) + facts.gate_of_value(gate, result)
    name = f"{facts.label_of(result, gate.model)}: {label}"
    limit = f"{facts.gate_limit(gate, result.task)} {unit}".strip()
    if measured is None:
        return f"{name} is not measured (limit {limit}){_formats(result, gate)}"
    interval, images = facts.gate_interval(gate, result.task), f" on {plural(gate.n, facts.noun(result))}" if gate.n else ""
    against = f" against {facts.label_of(result, gate.reference)}" if gate.reference and gate.n else ""
    why = {
        "untrusted": f": {place(gate)}",
        "emulated": f": {_emulated(gate)}",
        "undecided": f": {_undecided(gate, facts.noun(result))}",
    }.get(gate.verdict, "")
    stamp = " EMULATED" if gate.verdict == "emulated" else ""
    return f"{name} is {measured}{interval} {unit}".rstrip() + f"{stamp}{against}{images} (limit {limit}){why}"


def place(gate: GateRecord) -> str:
    """Say on which side of its limit a figure lies whose time is not trusted, and whether the run ends because of it.

    Beyond it is a figure, too, whose interval reaches beyond.
    """
    ends = [end for end in (gate.measured, gate.low, gate.high) if end is not None]
    within = all(_meets(gate, end) for end in ends) if gate.limit is not None else not gate.blocks
    return f"{'within' if within else 'beyond'} its limit, untrusted{'; exit code 1' if gate.blocks else ''}"


_LEARN = "raise epochs, or change lr: the training's curve shows whether it has learnt anything"
_WORST = {
    "worst_sqnr_db": "is lost in int8: its changes are smaller than the steps of {output}",
    "worst_agreement": "is another value in int8 than in float: int8 loses the differences that decide it",
}
"""What int8 does to the value that it harms most, by gate."""
_AS_TRAINED = "see that image size, mean and std, the order of classes and the weights are those of its training"


def _doubts(result: RunResult) -> Iterator[str]:
    """Yield cautions that no gate gives, beside those of a network that knows nothing."""
    yield from (*_random(result), *_distillation(result), *_float_weights(result))


def _random(result: RunResult) -> Iterator[str]:
    """Say that no gate holds a file against the float model where all inputs are random."""
    coarse = [model for model in facts.artifacts(result) if model.path is not None and model.precision != "float32"]
    if result.data.source == "random" and coarse:
        names = joined([facts.label(model) for model in coarse])
        yield (
            f"no gate says how close {names} {'is' if len(coarse) == 1 else 'are'} to the float network on samples of "
            "yours: all inputs are random. What to do: give the samples (--data, or data: in a recipe)"
        )


def _distillation(result: RunResult) -> Iterator[str]:
    """Say it where the distilled student is worse than the student that was trained without a teacher."""
    metric, of = facts.metric(result), facts.judge(result)
    name = metric.facts.name
    alone, distilled = result.model("student_alone"), result.model("distilled")
    change = between(result, distilled, alone, metric) if of and alone and distilled else None
    own, other = (model.figure(name, of) if model and of else None for model in (distilled, alone))
    if change is None or own is None or other is None or metric.gain(change.change, 0) >= 0:
        return
    lost = f"distillation lost {change.size} against the student alone"
    if not change.shown:
        lost = f"{NOT_SHOWN} between the distilled student and the student alone"
    beside = f"; difference{change.interval} {metric.change_unit}".rstrip() if change.interval else ""
    yield (
        f"{lost}: {metric.told(own.value)} against {metric.told(other.value)} on "
        f"{plural(own.n, f'test {facts.noun(result)}')}{beside}. What to do: "
        "raise distill.epochs; seeds: 3 separates the method from the seed"
    )


def _knows(result: RunResult) -> Iterator[str]:
    """Say that a network may not be what it was in its training, or knows nothing: then no other figure means much."""
    yield from (one_line(sentence(doubt)) for doubt in result.doubts)
    classes, n = len(result.data.classes), result.data.test
    for model in result.models:
        metric = model.figure("top1", "labels")
        is_float = (model.precision or "").startswith("float")
        if model.role not in ("teacher", "student") or not is_float or metric is None or not n:
            continue
        low, high = wilson(metric.value, n)
        told = any((doubt.code, doubt.where) == (CHANCE, model.name) for doubt in result.doubts)
        if low <= 1 / classes and not told:
            advice = _LEARN if any(curve.model == model.name for curve in result.curves) else _AS_TRAINED
            yield (
                f"{model.name} is no better than chance: top-1 {100 * metric.value:.1f} % "
                f"[{100 * low:.1f}, {100 * high:.1f}] on {n:,} test images of {classes} classes. What to do: {advice}"
            )


def _float_weights(result: RunResult) -> Iterator[str]:
    """Say how much of the weights is float32 where int8 is hardly worth it: the files are 2.3 times smaller at most."""
    weights = result.float_weights
    if weights is None or weights.share < FLOAT_SHARE:
        return
    names = [f"{one_line(name)} ({sig(size / 1024)} KiB)" for name, size in weights.holders[:NAMED]]
    names += [f"{len(weights.holders) - NAMED} more"] if len(weights.holders) > NAMED else []
    text = f"{100 * weights.share:.0f} % of the weights' bytes in the int8 files are float32"
    if weights.kept > weights.float32 / 2:
        yield f"{text}, as keep_float has it: {joined(names)}"
        return
    yield (
        f"{text}, because there is no int8 rule: {joined(names)}. What to do: use convolutions or linear layers; or "
        "--set 'export=[{format: tflite, precision: dynamic}]', whose weights have 8 bits; or ship the float32 file"
    )


def _formats(result: RunResult, gate: GateRecord) -> str:
    """Say what to write where a device measured files of other formats alone, as a phone does."""
    formats = {profile.model: model.format for profile in result.profiles if (model := result.model(profile.model))}
    there = {formats[p.model] for p in result.profiles if p.device == gate.device and p.model in formats}
    own = result.model(gate.model)
    if not there or own is None or own.format in there:
        return ""
    ran = joined([base.format_label(name) for name in sorted(there)])
    return (
        f": {one_line(gate.device or '')} measured only {ran}; if that is intended, write formats: "
        f"[{', '.join(sorted(there))}] in the gate"
    )


def _emulated(gate: GateRecord) -> str:
    after = "; it counts as failed" if gate.blocks else ""
    return (
        f"a figure of an emulated device decides no gate{after}. What to do: measure on the device itself, or write "
        f"gates: {{{gate.name}: off}}, which only records it, or {{level: warn}}, a caution with exit code 0"
    )


def _undecided(gate: GateRecord, noun: str) -> str:
    few = "the limit lies inside the 95 % interval" if gate.low is not None else f"so few {noun}s give no interval"
    after = "; it counts as failed, because the figure itself is beyond the limit" if gate.blocks else ""
    return f"{few}, test on more {noun}s to decide{_how_many(gate)}{after}"


def _how_many(gate: GateRecord) -> str:
    """Say on how many samples the interval would not reach the limit, if the figure stays: its width falls by their root.

    Empty where that is more than a hundred times as many, as of a figure that lies on its limit.
    """
    if gate.limit is None or gate.measured is None or gate.low is None or gate.high is None or not gate.n:
        return ""
    reach = gate.high - gate.measured if gate.measured < gate.limit.value else gate.measured - gate.low
    room = abs(gate.limit.value - gate.measured)
    if reach <= 0 or room * 10 < reach:
        return ""
    needed = gate.n * (reach / room) ** 2
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return f" (about {count(step * math.ceil(needed / step))}, if the figure stays)"


def causes(result: RunResult) -> Iterator[str]:
    """Say where int8 loses quality and what to type, where a gate against the float model has a figure beyond its limit.

    A file that loses what the int8 network in torch does not lose is another program, and no layer of int8 is to blame.
    """
    int8 = {model.name for model in facts.artifacts(result) if facts.is_int8(model)}
    lost = [
        gate
        for gate in result.gates
        if gate.name in (*QUALITY, "agreement_drop")
        and gate.verdict in ("fail", "undecided")
        and not _meets(gate, gate.measured)  # a figure in doubt that is within its limit needs images, not another int8
        and gate.level != "off"
        and gate.model in int8
    ]
    harmed = {name: [gate for gate in lost if gate.name == name] for name in _WORST}
    everything = tuple(dict.fromkeys(output for gates in harmed.values() for output in _harmed(result, gates)))
    for name, harm in _WORST.items():
        if gates := harmed[name]:
            value = min(gates, key=lambda gate: gate.measured or 0.0).value or ""
            outputs = _harmed(result, gates)
            others = [one_line(output) for output in outputs if output != _output(value)]
            listed = [*others[: facts.LISTED], *([f"{len(others) - facts.LISTED} more"] if others[facts.LISTED :] else ())]
            too = f" So {'is a value' if len(others) == 1 else 'are values'} of {joined(listed)}." if others else ""
            said = harm.format(output=one_line(_output(value)))
            yield f"{one_line(value)} {said}.{too} What to do: {_in_float(result, everything)}"
    lost = [gate for gate in lost if gate.name not in _WORST]
    torch = result.model("ptq") or result.model("qat")
    own = [gate for gate in lost if torch is None or not _within(gate, torch)]
    for model in dict.fromkeys(gate.model for gate in lost if gate not in own):
        yield (
            f"{facts.label_of(result, model)} loses it in the file: the int8 network in torch is within the limit; see its "
            "parity below"
        )
    if not own:
        return
    named = blamed(result)
    if named:
        parts = [f"{_layer(layer)} {100 * share:.0f} %" for layer, share in named]
        output = facts.output_of(result.task)
        where = f"Where int8 loses it, by each layer's share of the noise at the {output}: {joined(parts)}"
        yield where + _together(result, torch)
    yield f"What to do: {'; or '.join(_remedies(result))}"


def _output(value: str) -> str:
    return value.partition("[")[0]


def _harmed(result: RunResult, gates: Sequence[GateRecord]) -> tuple[str, ...]:
    """Return the outputs that have a value beyond the limit of such gates, the worst first."""
    found = {_output(gate.value): gate.measured or 0.0 for gate in gates if gate.value}
    for gate in gates:
        model = result.model(gate.model)
        fidelity = model.fidelity if model else None
        worst = (fidelity.worst if gate.name == "worst_sqnr_db" else fidelity.worst_agreement) if fidelity else None
        for output, least in (worst.outputs if worst else {}).items():
            if not _meets(gate, least):
                found[output] = min(least, found.get(output, least))
    return tuple(sorted(found, key=lambda output: found[output]))


def _in_float(result: RunResult, outputs: Sequence[str]) -> str:
    """Say what can be done for outputs that int8 has harmed: the layers in int8 that give them are the first to look at."""
    section = facts.section_of(result, "quantize")
    otherwise, them = "or let the network give values of similar size", "them" if len(outputs) > 1 else "it"
    found = result.repair.keep_float if result.repair else ()
    named = [name for value in (section.get("keep_float"), found) if not isinstance(value, str) for name in value or ()]
    layers = dict.fromkeys(
        layer.path or f"%{layer.name}" for output in outputs for layer in result.layers if output in layer.gives
    )
    giving = [name for name in layers if name not in named]
    if giving:
        return f"keep what gives {them} in float with {settings.in_float(section, *giving, found=found)}, {otherwise}"
    if any(layer.gives for layer in result.layers):
        return (
            f"what gives {them} is in float already, and the loss lies before: name the layers in front of that, too, in "
            f"quantize.keep_float, {otherwise}"
        )
    return f"keep what gives {them} in float with --set 'quantize.keep_float=[LAYER]', {otherwise}"


def arithmetic(result: RunResult) -> Iterator[str]:
    """Name the layer that a runtime computes otherwise than torch, where an int8 file did not pass its parity gates."""
    failed = [gate for gate in result.gates if gate.name in PARITY and gate.verdict in ("fail", "undecided")]
    for model in facts.artifacts(result):
        compared = [(layer.differences[model.name], layer) for layer in result.layers if model.name in layer.differences]
        gates_of_it = {gate.name: gate for gate in failed if gate.model == model.name and gate.level != "off"}
        if not gates_of_it or not compared:
            continue
        name = facts.label_of(result, model.name)
        found, worst = max(compared, key=lambda entry: (entry[0].steps > 1, entry[0].share))
        share, several = f"{sig(100 * found.share, 2)} %", plural(len(compared), "layer")
        if found.steps > 1 or found.share > TIES:
            kept = one_line(worst.path or f"%{worst.name}")
            yield (
                f"{name} computes {one_line(worst.label)} ({worst.op}) differently from torch, with the same input: "
                f"{share} of its values differ, by up to {plural(int(found.steps), 'step')}. What to do: "
                f"{settings.in_float(facts.section_of(result, 'quantize'), kept)}"
            )
            continue
        if not found.steps:
            yield f"{name}: {several} compared, all values are torch's from the same input"
            continue
        text = (
            f"{name} computes its layers as torch does ({several} compared; at most {share} of a layer's values differ, by "
            "one step, where a value lies half-way between two): such differences add up in this network"
        )
        steps = gates_of_it.get("parity_lsb_p99")
        if steps is not None and steps.measured is not None:
            limit = f"--set 'gates.parity_lsb_p99={{max: {math.ceil(steps.measured)}}}'"
            text += f". What to do where the gates against float pass: {limit}"
        yield text


def _within(gate: GateRecord, torch: ModelRecord) -> bool:
    """Tell whether the int8 network in torch is within the limit of a gate against the float model."""
    if torch.fidelity is None:
        return False
    if gate.name == "lost_classes":
        lost = torch.fidelity.lost_classes
        return lost is not None and _meets(gate, float(len(lost.lost)))
    if gate.name in ("accuracy_drop", "agreement_drop", "drop"):
        found = torch.fidelity.drops.get(gate.metric) if gate.metric else next(iter(torch.fidelity.drops.values()), None)
    else:
        found = getattr(torch.fidelity, gate.name, None)
    return found is not None and _meets(gate, found.value)


def _meets(gate: GateRecord, value: float | None) -> bool:
    """Tell whether a figure is within the limit of a gate."""
    return value is not None and gate.limit is not None and gate.limit.met(value)


def _together(result: RunResult, torch: ModelRecord | None) -> str:
    """Say so where the layers, each in int8 alone, do not explain the noise of all together."""
    if torch is None or torch.fidelity is None:
        return ""
    explained = sum(10 ** (-layer.logits_db / 10) for layer in result.layers) * 10 ** (torch.fidelity.sqnr_db.value / 10)
    if explained >= HALF:
        return ""
    text = f"; each alone in int8, the layers explain {max(1, round(100 * explained))} % of the noise"
    if any(layer.op in SHARED for layer in result.layers):
        return f"{text}: look for a concatenation or a sum of very different ranges, which share one scale"
    if torch.name == "qat":
        other = settings.other_method(facts.section_of(result, "quantize"), "ptq")
        return f"{text}: training in int8 changed the weights, too; compare with {other}, which keeps them"
    return f"{text}: the errors of several layers add up"


def blamed(result: RunResult) -> list[tuple[LayerRecord, float]]:
    """Return the layers that make most of the noise at the output when each is in int8 alone, with their share of it."""
    noise = [10 ** (-layer.logits_db / 10) for layer in result.layers]
    total = sum(noise)
    shares = sorted(zip(result.layers, noise, strict=True), key=lambda entry: -entry[1])
    return [(layer, part / total) for layer, part in shares[:NAMED] if total and part / total >= LEAST_SHARE]


def _layer(layer: LayerRecord) -> str:
    return f"{one_line(layer.path or layer.name)} ({layer.op}, its {layer.cause})"


def _remedies(result: RunResult) -> Iterator[str]:
    section = facts.section_of(result, "quantize")
    ptq = section.get("method") == "ptq"
    if section.get("keep_float") != "auto":
        yield "--set quantize.keep_float=auto, which keeps the fewest layers in float that cure it"
    elif result.repair is None:
        yield "name layers with --set 'quantize.keep_float=[PATH]', because keep_float: auto found none"
    if ptq and not section.get("equalize") and any(layer.cause == "weight" for layer, _ in blamed(result)):
        yield "--set quantize.equalize=true"
    if ptq and section.get("observer") in (None, "minmax"):
        yield "--set quantize.observer=mse"
    if ptq and not section.get("adaround"):
        yield "--set quantize.adaround=true"
    if ptq and facts.labelled(result):
        yield f"{settings.other_method(section, 'qat')}, which trains in int8"
    if not ptq:
        yield f"--set quantize.epochs={2 * int(section.get('epochs') or 1)}, which trains twice as long"


def _table(result: RunResult) -> Table:
    return gate_table(result, result.gates, "Gates")


def gate_table(result: RunResult, found: Sequence[GateRecord], caption: str) -> Table:
    """One row a gate, one column an artifact; a float file that stands beside int8 ones has one only where it fails."""
    models = facts.held(found)
    kinds: dict[tuple[str, str], dict[str, GateRecord]] = {}
    for gate in found:
        if gate.model in models:
            kinds.setdefault((facts.gate_label(gate, result.task), facts.gate_limit(gate, result.task)), {})[gate.model] = (
                gate
            )
    rows = []
    replaced: list[str] = []
    for (name, limit), row in kinds.items():
        first = next(iter(row.values()))
        if all(gate.verdict == "not_applicable" and gate.instead for gate in row.values()):  # a row of dashes
            others = (replace(gate, name=str(gate.instead), metric=None) for gate in row.values())
            instead = sorted({facts.gate_words(gate, result.task).label for gate in others})
            replaced.append(f"{name} does not apply: {joined(instead)} is held instead")
            continue
        words = facts.gate_words(first, result.task)
        limit = f"{limit} (off)" if first.level == "off" else f"{limit} (warn)" if first.level == "warn" else limit
        rows.append(
            (
                Cell(name, note=words.note),
                Cell(words.unit or NONE),
                Cell(limit),
                *(_cell(row.get(m), result.task) for m in models),
            )
        )
    columns = (
        Column("Gate"),
        Column("Unit"),
        Column("Limit", "", "number", stays=True),
        *(Column(facts.label_of(result, model), "", "number", stays=True) for model in models),
    )
    note = "✓ pass · ✕ no pass, exit code 1 · △ no pass, a warning only"
    images = {gate.n for gate in found if gate.n}
    if images:
        note += f" · [low, high]: 95 % interval over {joined([count(n) for n in sorted(images)])} test {facts.noun(result)}s"
    return Table(caption, columns, tuple(rows), " · ".join([note, *replaced]))


def _cell(gate: GateRecord | None, task: TaskFacts) -> Cell:
    if gate is None:
        return NOT_APPLICABLE
    if gate.verdict == "not_applicable":
        return Cell(NONE, "muted", f"{gate.instead} instead" if gate.instead else "")
    measured = facts.gate_measured(gate, task)
    text = "not measured" if measured is None else f"{measured}{facts.gate_interval(gate, task)}"
    tone: Tone = "muted" if gate.level == "off" else "bad" if gate.blocks else TONES.get(gate.verdict, "warn")
    notes: dict[Word, str] = {"undecided": "undecided", "untrusted": place(gate).partition(";")[0]}
    note = notes.get(gate.verdict, "failed" if gate.verdict == "fail" and not gate.blocks else "")
    return Cell(text, tone, note, mark=tone != "muted", stamp="EMULATED" if gate.verdict == "emulated" else "")
