"""Upgrade of older records: turn the JSON values of schema 1 into those of schema 2, before the codec reads them.

Schema 1 (edgekd 0.1) knew one task, image classification, and one metric, top-1. It wrote the precision and a gate's limit
as text, and what agrees with a teacher under another ``measure``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from edgekd.errors import UsageError
from edgekd.statistics import wilson

SCHEMA = 2
"""Version of run.json, study.json and manifest.json that this edgekd writes."""

_LIMIT = re.compile(r"\s*(<=|>=)\s*(\S+)\s*")
_BITS = re.compile(r"int8 \((\d)-bit weights\)")

_CLASSIFICATION = {
    "kind": "image-classification",
    "metrics": [
        {"name": "top1", "label": "top-1", "unit": "%", "better": "higher"},
        {"name": "top5", "label": "top-5", "unit": "%", "better": "higher"},
        {"name": "loss", "label": "cross-entropy", "unit": "", "better": "lower"},
    ],
}
_TOP1 = "top1"
_DERIVED = re.compile(
    r"On .+? (no artifact (passes|is called)|.+ is the (only|fastest) artifact|no difference in p50 is shown)"
    r"|Tuned on |One other trial is within|\d+ other trials are within|\d+ of \d+ trials could not"
    r"|The teacher is wrong on "
    r"|The outputs of .+ differ from those of "
)
"""Sentences that the report makes of other records of the file."""
_OF = {"accuracy": "labels", "agreement": "teacher", "agreement with float": "float"}

_FLOAT_OP = re.compile(r"(?P<layer>\S+) (?P<operator>\S+) \(%(?P<node>\w+)\): (?P<reason>.*)", re.DOTALL)
_KIND = re.compile(r"(\w+) (\d+)(?=,| of )")
_TOOK = re.compile(
    r"(?P<name>\w+)(?: (?P<taken>\d+) of (?P<of>\d+) operations?(?: in (?P<parts>\d+) parts?)?"
    r"|, (?:(?P<share>all|part of the) operations|for an unknown number of operations))(?:, |; |$)"
)
_PLACED = re.compile(r"(?:(?P<what>.+) of )?(?P<model>.+?) on (?P<device>.+?): (?P<fact>.+)", re.DOTALL)
_UNFIT = "not applicable: "
Json = dict[str, Any]


def run(value: Json, what: str) -> Json:
    """Return the value of a run.json in the form of today; ``what`` names the file for messages.

    Raises:
        UsageError: It is of a newer edgekd.
    """
    if _is_new(value, what):
        return value
    int8 = bool(value["recipe"].get("quantize"))
    changed: Json = {
        "schema": SCHEMA,
        "task": _CLASSIFICATION,
        "models": [_model(model, int8=int8) for model in value["models"]],
        "gates": [_gate(gate) for gate in value["gates"]],
        "curves": [_curve(curve) for curve in value["curves"]],
    }
    if "findings" in value:
        changed["findings"] = [_finding(text) for text in value["findings"] if not _DERIVED.match(text)]
    profiles = value.get("profiles", ())
    changed["profiles"] = [_profile(record) for record in profiles]
    devices = {*(record["device"] for record in profiles), *(record["name"] for record in value.get("devices", ()))}
    names = {model["name"] for model in value["models"]}, devices
    if "doubts" in value:
        changed["doubts"] = [_doubt(text) for text in value["doubts"]]
    changed["not_measured"] = [_missing(text, *names) for text in value.get("not_measured", ())]
    if "comparisons" in value:
        changed["comparisons"] = [_reasons(one) for one in value["comparisons"]]
    if "repair" in value:
        changed["repair"] = _repair(value["repair"])
    if "tuning" in value:
        changed["tuning"] = _tuning(value["tuning"])
    return value | changed


def study(value: Json, what: str) -> Json:
    """Return the value of a study.json in the form of today.

    Raises:
        UsageError: It is of a newer edgekd.
    """
    if _is_new(value, what):
        return value
    teachers = [_renamed(row, {"test_top1": "test"}) for row in value["teachers"]]
    lacking = [_missing(text, set(), set()) for text in value.get("not_measured", ())]
    return value | {"schema": SCHEMA, "task": _CLASSIFICATION, "teachers": teachers, "not_measured": lacking}


def manifest(value: Json, what: str) -> Json:
    """Return the value of a bundle's manifest.json in the form of today.

    Raises:
        UsageError: It is of a newer edgekd.
    """
    if _is_new(value, what):
        return value
    int8 = any(model["precision"].startswith("int8 ") for model in value["artifacts"])
    artifacts = [_model(model, int8=int8) for model in value["artifacts"]]
    return value | {"schema": SCHEMA, "task": _CLASSIFICATION, "artifacts": artifacts}


def _is_new(value: Json, what: str) -> bool:
    """Tell whether a value is in the form of today.

    Raises:
        UsageError: It is newer, or its version is no number.
        ValueError: It is no JSON object.
    """
    if not isinstance(value, Mapping):
        raise ValueError("its JSON is no object")  # whoever reads the file says what it should be
    version = value["schema"]
    if type(version) is not int:
        told = json.dumps(version, ensure_ascii=False)
        raise UsageError(f"{what} has the schema {told}, which is no whole number", "run the recipe again")
    if version not in (1, SCHEMA):
        hint = "install a newer edgekd" if version > SCHEMA else "run the recipe again"
        raise UsageError(f"{what} has schema {version}; this edgekd reads 1 to {SCHEMA}", hint)
    return bool(version == SCHEMA)


def _model(value: Json, *, int8: bool) -> Json:
    told = str(value["precision"])
    bits = _BITS.fullmatch(told)
    metrics = [_metrics(metrics) for metrics in value.get("metrics", ())]
    model = value | {"precision": "int8" if bits else told, "metrics": metrics}
    if "fidelity" in value:
        drop = value["fidelity"].get("drop")
        model["fidelity"] = value["fidelity"] | {"drops": {} if drop is None else {_TOP1: drop}}
    if "parity" in value:
        model["parity"] = _parity(value["parity"], value.get("outputs", ()))
    beside = model.pop("bin_sha256", None)
    if beside is not None or value.get("format") != "openvino":
        model["beside"] = [] if beside is None else [beside]
    if "default_precision" in value:
        names = {"top1_agreement": "agreement", "hinted_top1_agreement": "hinted_agreement"}
        model["default_precision"] = _renamed(value["default_precision"], names)
    if "runtime_graph" in value:
        graph = dict(value["runtime_graph"])
        model["runtime_graph"] = graph | {"delegates": _delegates(graph.pop("delegate", ""))}
    if "float_ops" in value:
        model["float_ops"] = [_float_op(text) for text in value["float_ops"]]
    if bits:
        model["weight_bits"] = int(bits[1])
    if told == "as it is":
        del model["precision"]
    if int8 and value["role"] == "artifact" and value["name"].endswith("_float"):
        model["twin_of"] = value["name"].removesuffix("_float")
    return model


def _float_op(text: str) -> Json:
    found = _FLOAT_OP.fullmatch(text)
    if found is None:
        return {"layer": "", "operator": "", "node": "", "reason": text}
    layer = found["layer"].removeprefix("forward()")
    return {**found.groupdict(), "layer": layer, "asked": found["reason"].endswith("kept in float")}


def _parity(value: Json, outputs: Sequence[Json]) -> Json:
    part = _renamed(
        {key: found for key, found in value.items() if key not in ("reference", "n")}, {"top1_agreement": "agreement"}
    )
    name = outputs[0]["name"] if len(outputs) == 1 else "logits"
    return {"reference": value["reference"], "n": value["n"], "outputs": {name: part}}


def _metrics(value: Json) -> Json:
    n = value["n"]
    values = {name: {"value": value[name]} for name in (_TOP1, "top5", "loss") if name in value}
    for name in (_TOP1, "top5") if n else ():
        if name in values:
            low, high = wilson(value[name], n)
            values[name] |= {"low": low, "high": high}
    return {"split": value["split"], "n": n, "values": values, "of": _OF[value.get("measure", "accuracy")]}


def _curve(value: Json) -> Json:
    curve = {key: part for key, part in value.items() if key not in ("train_top1", "val_top1", "measure")}
    train, val = ({_TOP1: value[key]} if value[key] else {} for key in ("train_top1", "val_top1"))
    return curve | {"train": train, "val": val, "of": _OF[value.get("measure", "accuracy")]}


def _repair(value: Json) -> Json:
    repair = _renamed(value, {"float_top1": "reference", "measure": "of"})
    of = _OF[value.get("measure", "accuracy")]
    return repair | {"of": of, "metric": "agreement" if of == "float" else _TOP1}


def _tuning(value: Json) -> Json:
    epoch = str(value["metric"]).partition("_")[0]
    trials = [_renamed(trial, {"val_top1": "val"}) for trial in value["trials"]]
    return value | {"metric": _CLASSIFICATION["metrics"][0], "epoch": epoch, "trials": trials}


def _profile(value: Json) -> Json:
    """A measurement, whose reasons were text."""
    record = value | {"trust": _reasons(value["trust"]), "effective": _effective(value["effective"])}
    if "attempts" in value:
        record["attempts"] = [_reasons(attempt) for attempt in value["attempts"]]
    if "outputs" in value:
        record["outputs"] = [_outputs(one) for one in value["outputs"]]
    if "accuracy" in value:
        names = {"top1": "value", "host_top1": "host"}
        record["accuracy"] = _renamed(value["accuracy"], names) | {"metric": _TOP1}
    return record


def _effective(value: Json) -> Json:
    """What a runtime used, whose types and delegates were text."""
    used = {key: found for key, found in value.items() if key not in ("precision", "delegate")}
    kinds = dict(_KIND.findall(value["precision"])) or {value["precision"]: 0}
    told = [] if value["precision"] == "unknown" else kinds.items()
    used.setdefault("operations", {kind: int(number) for kind, number in told})
    where, _, settings = str(value["delegate"]).partition("CPU plugin, precision hint ")
    if settings:
        hint, _, off = settings.partition(", ")
        return used | {"settings": {"INFERENCE_PRECISION_HINT": hint} | ({off.removesuffix(" off"): "off"} if off else {})}
    return used if where in ("", "none told") else used | {"delegates": _delegates(where)}


def _delegates(text: str) -> list[Json]:
    """What took operations, such as ``XNNPACK 29 of 31 operations in 2 parts``; ``none`` of them."""
    found = _TOOK.finditer("" if text == "none" else text)
    return [
        {"name": one["name"]} | {key: int(one[key]) for key in ("taken", "of", "parts") if one[key]}
        | ({"whole": one["share"] == "all"} if one["share"] else {})
        for one in found
    ]  # fmt: skip


def _reasons(value: Json) -> Json:
    return value | {"reasons": [_finding(text) for text in value.get("reasons", ())]}


def _outputs(value: Json) -> Json:
    told = value.get("differs", "")
    return value | {"differs": [_finding(told)] if told else []}


def _doubt(text: str) -> Json:
    name, found, _ = text.partition(" is no better than chance")
    return _finding(text) | ({"code": "chance", "where": name} if found else {})


def _missing(text: str, models: Collection[str], devices: Collection[str]) -> Json:
    """What was not measured, which was text: such as ``single operations of onnx on host: no times``."""
    found = _PLACED.fullmatch(text)
    if found is None or found["model"] not in models or found["device"] not in devices:
        return {"reason": _finding(text)}
    fact = found["fact"]
    unfit = fact.removeprefix(_UNFIT)
    reason = _finding(fact) if unfit == fact else _finding(fact) | {"code": "unfit", "figures": {"why": unfit}}
    return {"reason": reason, "what": found["what"] or "", "model": found["model"], "device": found["device"]}


def _finding(text: str) -> Json:
    return {"code": "text", "severity": "note", "where": "", "figures": {"text": text}}


def _renamed(value: Json, names: Mapping[str, str]) -> Json:
    return {names.get(key, key): part for key, part in value.items()}


def _gate(value: Json) -> Json:
    gate = {key: part for key, part in value.items() if key not in ("limit", "op", "value", "blocking")}
    limit = _limit(value)
    if limit is not None:
        gate["limit"] = limit
    undone = gate.get("verdict", "not_measured") not in ("pass", "not_applicable")
    return gate | {"blocks": value.get("blocking", undone)}


def _limit(value: Mapping[str, Any]) -> Json | None:
    if "op" in value and "value" in value:
        return {"op": value["op"], "value": value["value"]}
    match = _LIMIT.fullmatch(value["limit"])
    return {"op": match[1], "value": float(match[2])} if match else None
