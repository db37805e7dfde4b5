"""The lock: a recipe with nothing left open, as a file that ``edgekd run`` takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from edgekd import __version__
from edgekd.loading.source import CORE_SCHEMA

if TYPE_CHECKING:
    from edgekd.loading import Loaded

_NAME = re.compile(r"^# recipe: (\w[\w.\- ]*)$", re.MULTILINE)


def lock_text(loaded: Loaded) -> str:
    """Write the resolved recipe as YAML, all defaults included; :func:`edgekd.loading.load` gives the same recipe.

    The text depends on the recipe, its name, the overrides and the version of edgekd alone.
    """
    head = [
        f"# What edgekd {__version__} ran, with every default written out. Replay it: edgekd run recipe.lock.yaml",
        f"# recipe: {loaded.name}",
    ]
    # Applied already; kept to tell what was typed. A comment is one line.
    head += [f"# --set {shlex.quote(' '.join(text.split()))}" for text in loaded.overrides]
    body = yaml.dump(
        loaded.recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000
    )
    return "\n".join(head) + "\n\n" + body


def lock_name(path: Path, text: str) -> str:
    """Return what the runs of a recipe are called: the file's stem, or what its lock says."""
    stem = path.stem
    if not stem.endswith(".lock"):
        return stem
    written = _NAME.search(text)
    return written[1].strip() if written else stem.removesuffix(".lock")


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else, and writes lists of plain values in one line."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None) -> yaml.SequenceNode:
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = all(isinstance(item, yaml.ScalarNode) for item in node.value)
        return node


for _name, _pattern in CORE_SCHEMA.items():
    # Without first characters a resolver is asked for every text.
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, None)
