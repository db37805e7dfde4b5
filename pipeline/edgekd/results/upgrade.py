"""Upgrade of older records: turn the JSON values of schema 1 into those of schema 2, before the codec reads them.

Schema 1 (edgekd 0.1) wrote the precision and a gate's limit as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgekd.errors import UsageError

SCHEMA = 2
"""Version of run.json, study.json and manifest.json that this edgekd writes."""

_LIMIT = re.compile(r"\s*(<=|>=)\s*(\S+)\s*")
_BITS = re.compile(r"int8 \((\d)-bit weights\)")

Json = dict[str, Any]


def run(value: Json, what: str) -> Json:
    """Return the value of a run.json in the form of today; ``what`` names the file for messages.

    Raises:
        UsageError: It is of a newer edgekd.
    """
    if _is_new(value, what):
        return value
    int8 = bool(value["recipe"].get("quantize"))
    return value | {
        "schema": SCHEMA,
        "models": [_model(model, int8=int8) for model in value["models"]],
        "gates": [_gate(gate) for gate in value["gates"]],
    }


def study(value: Json, what: str) -> Json:
    """Return the value of a study.json in the form of today.

    Raises:
        UsageError: It is of a newer edgekd.
    """
    if _is_new(value, what):
        return value
    return value | {"schema": SCHEMA}


def manifest(value: Json, what: str) -> Json:
    """Return the value of a bundle's manifest.json in the form of today.

    Raises:
        UsageError: It is of a newer edgekd.
    """
    if _is_new(value, what):
        return value
    int8 = any(model["precision"].startswith("int8 ") for model in value["artifacts"])
    return value | {"schema": SCHEMA, "artifacts": [_model(model, int8=int8) for model in value["artifacts"]]}


def _is_new(value: Json, what: str) -> bool:
    """Tell whether a value is in the form of today.

    Raises:
        UsageError: It is newer, or its version is no number.
    """
    version = value["schema"]
    if version not in (1, SCHEMA):
        newer = isinstance(version, int) and version > SCHEMA
        hint = "install a newer edgekd: pip install --upgrade edgekd" if newer else "run the recipe again"
        raise UsageError(f"{what} has schema {version}; this edgekd reads 1 to {SCHEMA}", hint)
    return bool(version == SCHEMA)


def _model(value: Json, *, int8: bool) -> Json:
    told = str(value["precision"])
    bits = _BITS.fullmatch(told)
    model = value | {"precision": "int8" if bits else told}
    if bits:
        model["weight_bits"] = int(bits[1])
    if told == "as it is":
        del model["precision"]
    if int8 and value["role"] == "artifact" and value["name"].endswith("_float"):
        model["twin_of"] = value["name"].removesuffix("_float")
    return model


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
