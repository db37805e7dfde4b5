"""Find the files that ship with edgekd: recipes, devices and assets.

A wheel carries recipes/ and devices/ as ``edgekd/_data/``; a checkout (and an editable install) has them at its root,
where people edit them. Assets are inside the package in both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
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


def is_device_path(name: str) -> bool:
    """Return whether a device is named by the path of its file."""
    return os.sep in name or name.endswith(".yaml")


def device_stem(name: str) -> str:
    """Return what a device is called in stages, gates and reports.

    Example:
        >>> device_stem("lab/pi4.yaml"), device_stem("host")
        ('pi4', 'host')
    """
    return Path(name).stem if is_device_path(name) else name


def own_device(name: str, folders: Iterable[Path]) -> Path | None:
    """Return the user's file of a device that is named without a path, or None.

    Args:
        name: Its name.
        folders: Where to look for ``devices/NAME.yaml``; the first that has it counts.
    """
    for path in (place / "devices" / f"{name}.yaml" for place in folders):
        if path.is_file():
            shipped = folder("devices") / path.name
            return None if shipped.exists() and path.samefile(shipped) else path  # in edgekd's own checkout
    return None


def devices(folders: Iterable[Path]) -> dict[str, Path]:
    """List all devices by name: the user's in ``devices/`` of the folders, the first that has it, then what ships."""
    found: dict[str, Path] = {}
    for place in folders:
        for path in sorted((place / "devices").glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found | {name: find("devices", name) for name in available("devices") if name not in found}


def examples(folders: Iterable[Path]) -> list[str]:
    """List the devices that ship with edgekd as examples: not this machine, and none that the user has a file of."""
    shipped, found = folder("devices").resolve(), devices(folders)
    return [name for name, path in sorted(found.items()) if name != "host" and path.resolve().parent == shipped]


def device(name: str, folders: Iterable[Path] = ()) -> Path:
    """Return the file of a device.

    Args:
        name: A path (with a slash, or ending in .yaml), or the name of a device.
        folders: Whose ``devices/`` are looked in before what ships.

    Raises:
        UsageError: There is no such file.
    """
    places = tuple(dict.fromkeys(folders))
    if not is_device_path(name):
        own = own_device(name, places)
        if own is not None:
            return own
        names = devices(places)
        if name in names:
            return names[name]
        looked = "".join(f", {place / 'devices'}" for place in places)
        hint = did_you_mean(name, names)
        raise UsageError(f"there is no device called {name!r} (looked in what ships with edgekd{looked})", hint)
    path = Path(name).expanduser()
    if path.is_file():
        return path
    near = [entry.name for entry in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, near)
    meant = f"did you mean {path.parent / hint.removeprefix('did you mean ')}" if hint.startswith("did") else ""
    raise UsageError(f"{name} does not exist", meant or "give the name of a device, or the path of its file")
