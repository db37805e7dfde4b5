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

    What is in a folder of its own comes last, such as ``cifar100/vgg13-vgg8``.

    Example:
        >>> from edgekd import resources
        >>> "host" in resources.available("devices")
        True
    """
    suffix, root = _SUFFIX[kind], folder(kind)
    if not root.is_dir():
        return []
    paths = root.rglob(f"*{suffix}") if suffix else root.iterdir()  # an asset is a folder itself
    names = (path.relative_to(root).as_posix() for path in paths if not path.name.startswith((".", "__")))
    return sorted((name.removesuffix(suffix) for name in names), key=lambda name: (name.count("/"), name))


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
