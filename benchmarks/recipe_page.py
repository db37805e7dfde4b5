"""Write the reference of docs/recipe.md from recipes/schema.json, which is made from the schema's classes.

python benchmarks/recipe_page.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "recipe.md"
Schema = dict[str, Any]
_LOSS = "loss_"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_NOUNS = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true` or `false`"}


def schema() -> Schema:
    value: Schema = json.loads((ROOT / "recipes" / "schema.json").read_text("utf-8"))
    return value


def key_type(part: Schema) -> str:
    """Return what a key takes, in words: its type, choices, bounds, or a link to the section that has its keys."""
    if "$ref" in part:
        return _link(part["$ref"].rpartition("/")[2])
    if "const" in part:
        return f"`{_plain(part['const'])}`"
    if "enum" in part:
        return ", ".join(f"`{_plain(value)}`" for value in part["enum"])
    if choices := part.get("anyOf") or part.get("oneOf"):
        words = [key_type(choice) for choice in choices if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if part.get("type") == "array":
        return f"list of {key_type(part['items'])}" if "items" in part else "list"
    if part.get("type") == "object":
        values = part.get("additionalProperties")
        return f"mapping of names to {key_type(values)}" if isinstance(values, dict) and values else "mapping"
    bounds = " and ".join(f"{sign} {part[name]:g}" for name, sign in _BOUNDS.items() if name in part)
    return " ".join(filter(None, [_NOUNS.get(part.get("type", ""), "any value"), bounds]))


def _link(name: str) -> str:
    return "[a loss](#losses)" if name.startswith(_LOSS) else f"[{name}](#{name.lower()})"


def _plain(value: Any) -> str:
    """Return a value as a recipe writes it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_plain(one)}' for key, one in value.items() if one is not None)}}}"
    if isinstance(value, list):
        return f"[{', '.join(_plain(one) for one in value)}]"
    return value if isinstance(value, str) else json.dumps(value)


def _default(name: str, part: Schema, required: list[str]) -> str:
    if name in required:
        return "**required**"
    value = part.get("default")
    if value is None or (isinstance(value, dict) and "$ref" in json.dumps(part) and len(value) > 5):
        return "—"
    return f"`{_plain(value)}`"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("|", "\\|")).strip()


def keys(part: Schema, without: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield a table with one row for each key."""
    yield from ("| key | takes | default | meaning |", "|---|---|---|---|")
    for name, value in part["properties"].items():
        if name not in without:
            default = _default(name, value, part.get("required", []))
            yield f"| `{name}` | {_cell(key_type(value))} | {_cell(default)} | {_cell(value.get('description', ''))} |"


def losses(definitions: Schema) -> Iterator[str]:
    """Yield the keys that all losses share, then one row for each loss with its own options."""
    parts = {name.removeprefix(_LOSS): part for name, part in definitions.items() if name.startswith(_LOSS)}
    shared = set.intersection(*(set(part["properties"]) for part in parts.values()))
    first = next(iter(parts.values()))
    common = {**first, "properties": {name: value for name, value in first["properties"].items() if name in shared}}
    usual = {name: value.get("default") for name, value in common["properties"].items() if name not in ("kind", "weight")}
    yield from keys(common, without=("kind", "weight"))
    yield from ("", "| `kind` | `weight` | options and defaults of its own | meaning |", "|---|---|---|---|")
    for kind, part in parts.items():
        own = [
            f"`{name}: {_plain(value.get('default'))}`"
            for name, value in part["properties"].items()
            if name not in shared or (name in usual and value.get("default") != usual[name])
        ]
        title = part["description"].split("\n\n")[0]
        weight = _plain(part["properties"]["weight"].get("default"))
        yield f"| `{kind}` | `{weight}` | {_cell(', '.join(own)) or '—'} | {_cell(title)} |"


def reference() -> str:
    """Return the reference: the top level, each section in the order of its first mention, the losses."""
    whole = schema()
    definitions = whole["$defs"]
    lines = ["### Top level", "", *keys(whole, without=("lock",))]
    seen: list[str] = []
    waiting = _named({name: part for name, part in whole["properties"].items() if name != "lock"})
    while waiting:
        name = waiting.pop(0)
        if name in seen or name.startswith(_LOSS):
            continue
        seen.append(name)
        part = definitions[name]
        lines += ["", f"### {name}", "", _paragraphs(part.get("description", "")), "", *keys(part)]
        waiting = [*_named(part), *waiting]
    return "\n".join([*lines, "", "### Losses", "", *losses(definitions)])


def _named(part: Any) -> list[str]:
    """Return the definitions that a part of the schema names, in order."""
    return re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(part))


def _paragraphs(text: str) -> str:
    return "\n\n".join(re.sub(r"\s+", " ", paragraph) for paragraph in text.split("\n\n"))


def rendered() -> dict[Path, str]:
    """Return the page as it should be."""
    before, rest = PAGE.read_text("utf-8").split("<!-- reference -->\n", 1)
    after = rest.split("<!-- /reference -->", 1)[1]
    return {PAGE: f"{before}<!-- reference -->\n{reference()}\n<!-- /reference -->{after}"}


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")
