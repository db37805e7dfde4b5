"""Sensitivity of each layer to int8, and the cost of giving some back to float."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.errors import joined
from edgekd.report import facts
from edgekd.report.difference import NOT_SHOWN
from edgekd.report.metric import MetricWords
from edgekd.report.page import NOT_APPLICABLE, Block, Cell, Code, Column, Facts, Section, Table, figure
from edgekd.report.words import count, mib, one_line, plural, sig
from edgekd.results.layers import LayerRecord, RepairCost, RepairRecord
from edgekd.results.models import MetricFacts
from edgekd.results.run import RunResult

WORST = 8
"""Layers in the table; all of them are in run.json."""


def section(result: RunResult) -> Section:
    """The layers that int8 hurts most, and the repair."""
    title = "What int8 does to each layer"
    if not result.layers:
        return Section("layers", title, missing="No layer was measured.")
    blocks: list[Block] = [_worst(result)]
    apart = tuple(_apart(result))
    if apart:
        blocks.append(Facts(apart, "Each layer by itself, runtime against torch"))
    if result.repair is not None:
        blocks += _repair(result, result.repair)
    return Section("layers", title, tuple(blocks), _lead(result.layers[0], _end(result)))


def _lead(worst: LayerRecord, output: str) -> str:
    return f"The layer whose rounding changes the {output} most is {_name(worst)} ({worst.op}), by its {worst.cause}."


def _worst(result: RunResult) -> Table:
    runtimes = [model for model in facts.artifacts(result) if any(model.name in layer.runtimes for layer in result.layers)]
    output = _end(result)
    columns = (
        Column("Layer"),
        Column(f"Alone, at the {output}", "dB", "number"),
        Column("Alone, at its output", "dB", "number"),
        Column("All in int8, torch", "dB", "number"),
        *(Column(facts.label(model), "dB", "number") for model in runtimes),
    )
    rows = [
        (
            Cell(_name(layer), note=f"{layer.op}, {layer.cause}"),
            *(figure(f"{db:.1f}") for db in (layer.logits_db, layer.alone_db, layer.total_db)),
            *(
                figure(f"{layer.runtimes[model.name]:.1f}") if model.name in layer.runtimes else NOT_APPLICABLE
                for model in runtimes
            ),
        )
        for layer in result.layers[:WORST]
    ]
    some = len(rows) < len(result.layers)
    shown = f"The {len(rows)} of {count(len(result.layers))} that change the {output} most. " if some else ""
    note = f"{shown}Signal to quantization noise against the float network: more is better, 20 dB is an error of a tenth."
    return Table("Layers, the most sensitive first", columns, tuple(rows), note)


def _apart(result: RunResult) -> Iterator[tuple[str, str]]:
    """Of each artifact, the layer that its runtime computes most unlike torch from the same input."""
    for model in facts.artifacts(result):
        layers = [layer for layer in result.layers if model.name in layer.differences]
        if not layers:
            continue
        apart = [(layer.differences[model.name].steps, layer.differences[model.name].share, layer) for layer in layers]
        steps, share, worst = max(apart, key=lambda entry: entry[:2])
        compared = f"{plural(len(layers), 'layer')} compared"
        if not steps:
            text = f"{compared}, all values equal"
        elif steps > 1:
            text = f"{compared}; {_name(worst)} differs by {count(int(steps))} steps: another arithmetic than torch's"
        else:
            where = f"most often in {_name(worst)}, {sig(100 * share, 2)} % of its values"
            text = f"{compared}, none further apart than one step; {where}"
        yield facts.label(model), text


def _repair(result: RunResult, repair: RepairRecord) -> list[Block]:
    names = joined([_name(layer) for layer in repair.layers])
    same = MetricFacts("agreement", f"same {facts.same_class(result.task)} as float", "%", "higher")
    metric = MetricWords(same) if repair.of == "float" else facts.metric(result, repair.of)
    before, after, needed = (metric.told(value) for value in (repair.before, repair.after, repair.limit))
    lost = f"{metric.change(repair.limit - repair.reference)} {metric.change_unit}".rstrip()
    pairs: tuple[tuple[str, str], ...] = (
        ("Kept in float", f"{count(len(repair.layers))} of {plural(repair.candidates, 'layer')}: {names}"),
        (f"{metric.title}, validation", f"{before} all in int8, {after} with them in float"),
        ("Needed", f"{needed} ({lost} of the float student)"),
    )
    if repair.sqnr_limit is not None and repair.sqnr_before is not None and repair.sqnr_after is not None:
        pairs += (
            ("SQNR, validation", f"{repair.sqnr_before:.1f} dB all in int8, {repair.sqnr_after:.1f} dB with them in float"),
            ("Needed", f"{repair.sqnr_limit:.1f} dB"),
        )
    blocks: list[Block] = [Facts(pairs, "Repair")]
    if repair.costs:
        columns = (
            Column("Artifact"),
            Column("Size", "MiB", "number"),
            Column("all in int8", "MiB", "number"),
            Column("p50", "ms", "number"),
            Column("all in int8", "ms", "number"),
            Column("Cost in time", "", "number"),
        )
        rows = tuple(_cost(result, cost) for cost in repair.costs)
        note = "Both files were measured in the same session, in turns."
        blocks.append(Table("What the repair cost", columns, rows, note))
    listed = ", ".join(f'"{name}"' for name in repair.keep_float)
    blocks.append(Code("The same without searching", f"quantize: {{keep_float: [{listed}]}}", "yaml"))
    return blocks


def _cost(result: RunResult, cost: RepairCost) -> tuple[Cell, ...]:
    label = facts.label_of(result, cost.model)
    name = Cell(label, note=f"on {one_line(cost.device)}" if cost.device else "")
    sizes = figure(mib(cost.bytes)), figure(mib(cost.bytes_int8))
    if cost.p50 is None or cost.p50_int8 is None or cost.p50_ci is None or cost.p50_int8_ci is None:
        return (name, *sizes, figure(None), figure(None), figure(None))
    low, high = cost.p50_ci[0] / cost.p50_int8_ci[1], cost.p50_ci[1] / cost.p50_int8_ci[0]
    shown = low > 1 or high < 1
    text = f"× {sig(cost.p50 / cost.p50_int8)}" if shown else NOT_SHOWN
    doubt = "" if cost.trusted else "△ untrusted"
    return (name, *sizes, figure(sig(cost.p50)), figure(sig(cost.p50_int8)), figure(text, doubt))


def _end(result: RunResult) -> str:
    """Name the end of the network, unlike the output of a layer."""
    output = facts.output_of(result.task)
    return "network's output" if output == "output" else output


def _name(layer: LayerRecord) -> str:
    return one_line(layer.label)
