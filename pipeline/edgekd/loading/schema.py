"""The JSON Schema of a recipe, for editors: completion, documentation and checks while typing."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from edgekd.recipe import Recipe
from edgekd.recipe.export import Export
from edgekd.recipe.loss import Loss
from edgekd.recipe.study import Study
from edgekd.registry import exporters, losses

_REF = "#/$defs/{model}"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe, with every registered loss that can be used, and export format."""
    schema = Recipe.model_json_schema(ref_template=_REF)
    defs: dict[str, Any] = schema["$defs"]
    items = []
    for kind, model in losses.usable().items():
        assert issubclass(model, Loss)  # the registry admits nothing else
        loss = model.model_json_schema(ref_template=_REF)
        defs.update(loss.pop("$defs", {}))
        note = loss["properties"]["kind"].get("description", Loss.model_fields["kind"].description)
        loss["properties"]["kind"] = {"const": kind, "description": note}
        loss["required"] = sorted({*loss.get("required", ()), "kind"})
        defs[f"loss_{kind}"] = loss
        items.append({"$ref": f"#/$defs/loss_{kind}"})
    defs.pop(Loss.__name__, None)
    defs["Distill"]["properties"]["losses"]["items"] = {"oneOf": items}
    names = exporters.names()
    defs[Export.__name__]["properties"]["format"]["enum"] = names
    short = {"enum": names, "description": "One artifact, with float32 input and output."}
    schema["properties"]["export"]["items"] = {"anyOf": [short, {"$ref": f"#/$defs/{Export.__name__}"}]}
    _drop_titles(schema)
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "edgekd recipe", **schema}


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema of a study: its recipe, pairs and methods hold parts of a recipe, with the same definitions."""
    recipe = json_schema()
    study = Study.model_json_schema(ref_template=_REF)
    _drop_titles(study)
    losses = recipe["$defs"]["Distill"]["properties"]["losses"]["items"]
    # Sections of a pair or a method may be cut short, so their inside is only checked when the study is loaded.
    sections = {name: {"description": part["description"]} if "description" in part else {} for name, part in
                recipe["properties"].items()}  # fmt: skip
    defs = recipe["$defs"] | {"changes": {"type": "object", "properties": sections, "additionalProperties": False}}
    changes = {"$ref": "#/$defs/changes"}
    properties = study["properties"]
    properties["recipe"]["anyOf"] = [{"type": "string"}, changes]
    properties["pairs"]["additionalProperties"] = changes
    properties["methods"]["additionalProperties"] = {"anyOf": [{"type": "array", "items": losses, "minItems": 1}, changes]}
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "edgekd study", **study, "$defs": defs}


def _drop_titles(schema: Any) -> None:
    """Remove the titles pydantic makes from names: an editor would show each key twice."""
    if isinstance(schema, list):
        for part in schema:
            _drop_titles(part)
    elif isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        for part in schema.values():
            _drop_titles(part)
