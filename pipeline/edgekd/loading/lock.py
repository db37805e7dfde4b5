"""The lock: a recipe with nothing left open, as a file that ``edgekd run`` takes."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from edgekd import __version__
from edgekd.loading.files import relative, with_paths
from edgekd.loading.places import Places
from edgekd.loading.source import CORE_SCHEMA
from edgekd.loading.source import Path as Key
from edgekd.recipe import Lock, Recipe

if TYPE_CHECKING:
    from edgekd.loading.loaded import Loaded

_NAME = re.compile(r"^# recipe: (\w[\w.\- ]*)$", re.MULTILINE)


def lock_text(loaded: Loaded, folder: Path, sha256: Mapping[str, str] = MappingProxyType({})) -> str:
    """Write the resolved recipe as YAML, all defaults included; :func:`edgekd.loading.load` gives the same recipe.

    The text depends on the recipe, its name, the overrides, the version of edgekd, the files' hashes, and where they lie
    from the lock's folder.

    Args:
        loaded: The recipe.
        folder: Where the lock will lie.
        sha256: Hash of each file and data source that was read, named as the recipe names them.
    """
    head = [
        f"# What edgekd {__version__} ran, with every default written out. Replay it: edgekd run recipe.lock.yaml",
        f"# recipe: {loaded.name}",
    ]
    # Applied already; kept to tell what was typed. A comment is one line.
    head += [f"# --set {shlex.quote(' '.join(text.split()))}" for text in loaded.overrides]
    lock = Lock(recipe=str(loaded.recipe_file), sha256=dict(sorted(sha256.items())))
    recipe = loaded.recipe.model_copy(update={"lock": lock})
    recipe = with_paths(recipe, lambda path, _: relative(path, folder))
    body = yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000)
    return "\n".join(head) + "\n\n" + body


def flow(value: object) -> str:
    """Return a value as it is typed into a recipe, in one line.

    Example:
        >>> flow({"mean": [0.5], "class_order": ["010", "x: y", "cat"]})
        "{mean: [0.5], class_order: ['010', 'x: y', cat]}"
    """
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=100_000)
    return text.removesuffix("\n").removesuffix("\n...")


def lock_name(path: Path, text: str) -> str:
    """Return what the runs of a recipe are called: the file's stem, or what its lock says."""
    stem = path.stem
    if not stem.endswith(".lock"):
        return stem
    written = _NAME.search(text)
    return written[1].strip() if written else stem.removesuffix(".lock")


def beside_project(recipe: Recipe, folder: Path, places: Places) -> tuple[Recipe, Path]:
    """Return a recipe and the folder that its paths start at.

    That is the folder of its file. A lock that is not beside its project any more finds it in the working folder, by the
    recipe that it was made from: its paths are then those from that recipe on.

    Args:
        recipe: The recipe, with the paths that are written.
        folder: The folder of its file, absolute.
        places: Where its values are written: what was typed starts at the working folder anyway.
    """
    if recipe.lock is None or (folder / recipe.lock.recipe).exists():
        return recipe, folder
    here, way = Path.cwd(), Path(recipe.lock.recipe)
    if way.is_absolute() or not (here / way.name).is_file():
        return recipe, folder

    def from_recipe(text: str, key: Key) -> str:
        typed = places.setting(key) or Path(text).is_absolute()
        return text if typed else os.path.relpath(_DEEP / text, _DEEP / way.parent)

    return with_paths(recipe, from_recipe), here


_DEEP = Path("/", *["lock"] * 64)
"""A folder that no path leaves upwards."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else, and writes lists of plain values in one line."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None) -> yaml.SequenceNode:
        node = super().represent_sequence(tag, sequence, flow_style)
        node.flow_style = all(isinstance(item, yaml.ScalarNode) for item in node.value)
        return node


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    """U+0085 in single quotes is folded into a space by whoever reads it; in double ones it is escaped."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style='"' if "\x85" in data else None)


_Dumper.add_representer(str, _text)
for _name, _pattern in CORE_SCHEMA.items():
    # Without first characters a resolver is asked for every text.
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, None)
