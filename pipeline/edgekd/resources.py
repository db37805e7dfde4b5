"""Find what ships with edgekd: recipes, devices and assets, in a wheel or in a checkout.

A wheel carries recipes/ and devices/ as ``edgekd/_data/``; a checkout (and an editable install) has them at its root,
where people edit them. Assets are inside the package in both.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from edgekd.errors import UsageError, did_you_mean

Kind = Literal["recipes", "devices", "assets"]

_PACKAGE = Path(__file__).resolve().parent
_SUFFIX: dict[Kind, str] = {"recipes": ".yaml", "devices": ".yaml", "assets": ""}
_NOUN: dict[Kind, str] = {"recipes": "recipe", "devices": "device", "assets": "asset"}


def folder(kind: Kind) -> Path:
    """Return the folder that holds the shipped files of a kind; it may not exist."""
    if kind == "assets":
        return _PACKAGE / "assets"
    wheel = _PACKAGE / "_data" / kind
    return wheel if wheel.is_dir() else _PACKAGE.parents[1] / kind


def available(kind: Kind) -> list[str]:
    """List what ships with edgekd, sorted, as :func:`find` takes it (recipes and devices without ``.yaml``).

    Example:
        >>> from edgekd import resources
        >>> "host" in resources.available("devices")
        True
    """
    suffix, root = _SUFFIX[kind], folder(kind)
    if not root.is_dir():
        return []
    names = (path for path in root.iterdir() if not path.name.startswith((".", "__")))
    return sorted(path.name.removesuffix(suffix) for path in names if path.name.endswith(suffix))


def find(kind: Kind, name: str) -> Path:
    """Return the absolute path of something that ships with edgekd.

    Args:
        kind: ``recipes``, ``devices`` or ``assets``.
        name: A name from :func:`available`; ``.yaml`` may be written out. ``ASSET/FILE`` is a file inside an asset.

    Raises:
        UsageError: Nothing of that name ships with edgekd.
    """
    suffix = _SUFFIX[kind]
    stem = name.removesuffix(suffix) if suffix else name
    # A name is a name, not a way out of the folder.
    inside = bool(stem) and ".." not in PurePosixPath(stem).parts and not PurePosixPath(stem).is_absolute()
    path = folder(kind) / f"{stem}{suffix}"
    if inside and path.exists():
        return path
    names = available(kind)
    hint = did_you_mean(stem, names) if names else f"none are installed: {folder(kind)} is missing or empty"
    raise UsageError(f"no {_NOUN[kind]} called {name!r} ships with edgekd", hint)
