"""Checkpoints of other tools: which weights of a file, and under which names, are a network's.

A training script stores weights in a dictionary beside an optimizer, with a prefix before each name, and often twice: as
they are and as a moving average. What fits the network is found; where two sets fit, the recipe says which: ``FILE#SET``.
Nothing is unpickled but by torch's ``weights_only`` with the types of ``_safe_types``.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import reads, tied
from edgekd.errors import CheckpointError, UsageError, did_you_mean
from edgekd.resources import available, find

if TYPE_CHECKING:
    from torch import Tensor

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)")
_CHECKPOINT = re.compile(r"\.(safetensors|pth?|ckpt|bin|index\.json)$")
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put into names, anywhere in them."""
_COUNTERS = ("total_ops", "total_params", "n_averaged")
"""Tensors that tools leave in a state_dict: thop's counts and that of ``AveragedModel``."""
_ALONE = "save the weights alone: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


@dataclass(frozen=True)
class Checkpoint:
    """A file with weights, and which set of them is meant; empty: the only one that fits."""

    path: Path
    part: str = ""

    def files(self) -> tuple[Path, ...]:
        """The file, and those that it lists if it is the index of a checkpoint in several files.

        Raises:
            CheckpointError: One is missing.
        """
        if not self.path.name.endswith(".index.json"):
            return (self.path,)
        shards = {self.path.with_name(name) for name in _index(self.path).values()}
        for shard in sorted(shards):
            reason = reads.unreadable(shard)
            if reason == "does not exist":
                raise CheckpointError(f"{self.path} lists {shard.name}, which is not beside it", "put all its files there")
            if reason:
                raise CheckpointError(f"{shard} {reason}", "correct its permissions")
        return (self.path, *sorted(shards))

    def key(self) -> str:
        """What identifies the weights in a cache key: the SHA-256 of the file, and which set."""
        digests = [reads.file_sha256(path) for path in self.files()]
        key = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        return f"{key}#{self.part}" if self.part else key

    def __str__(self) -> str:
        """The file and the set as a recipe has them."""
        return f"{self.path}#{self.part}" if self.part else str(self.path)


def locate(weights: str | Path) -> Checkpoint:
    """Find a recipe's ``weights``: a file, ``FILE#SET``, or ``edgekd:NAME`` for one that ships with edgekd.

    Raises:
        CheckpointError: There is no such file, or it cannot be read.
    """
    text = str(weights)
    if text.startswith("edgekd:"):
        try:
            return Checkpoint(find("assets", text.removeprefix("edgekd:") + ".safetensors"))
        except UsageError as error:
            shipped = [name.removesuffix(".safetensors") for name in available("assets") if name.endswith(".safetensors")]
            hint = f"allowed: {', '.join(f'edgekd:{name}' for name in shipped) or 'none'}, or a file"
            raise CheckpointError(f"no weights {text!r} ship with edgekd", hint) from error
    file, _, part = text.rpartition("#")
    checkpoint = Checkpoint(Path(text)) if not file or not reads.unreadable(Path(text)) else Checkpoint(Path(file), part)
    path = checkpoint.path
    reason = reads.unreadable(path)
    if not reason:
        return checkpoint
    if re.match(r".*\b(https?|s3|gs|hf):/", text):
        raise CheckpointError(f"{text} is a URL", "download it and give the file: edgekd downloads no weights")
    if re.fullmatch(r"(.*/)?(IMAGENET1K_V\d|DEFAULT|\w+_Weights\.\w+)", text):
        raise CheckpointError(
            f"{path.name} is torchvision's name for weights, not a file",
            "write them into one: from torchvision.models import get_model; "
            "torch.save(get_model(NAME, weights='DEFAULT').state_dict(), 'weights.pt')",
        )
    if reason == "is a folder":
        inside = sorted(entry.name for entry in path.iterdir() if _CHECKPOINT.search(entry.name))
        files = ", ".join(inside[:6]) or "there is no checkpoint"
        raise CheckpointError(f"{path} is a folder", f"give a file in it: {files}")
    hint = "correct the path; a relative one starts at the recipe's folder"
    raise CheckpointError(f"{path} {reason}", hint if reason == "does not exist" else "correct the path, or its permissions")


def read(path: Path) -> dict[str, Tensor]:
    """Read a file that holds one state_dict.

    Raises:
        CheckpointError: It cannot be read, holds something else, or would have to be unpickled with code.
    """
    state = next((state for name, state in _sets(_load(path), path) if not name), None)
    if state is None:
        raise CheckpointError(f"{path} is not a state_dict", "save model.state_dict()")
    return {name.removeprefix("module."): value for name, value in state.items()}


@dataclass(frozen=True)
class Fitting:
    """A set of weights with the names of a network.

    Attributes:
        label: How the set is called in the file, as a recipe writes it after ``#``; empty for the only one.
        state: The tensors by the network's names, and those that it does not know.
        beside: Names in the file that belong to something else, such as a loss.
        missing: Names of the network that are not in it.
        unknown: Names that are not in the network.
        others: Sets of the file that were not taken, though they have most of the network's names, with what they lack.
    """

    label: str
    state: dict[str, Tensor]
    beside: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the network's names are all there, and no others."""
        return not self.missing and not self.unknown


def fitting(checkpoint: Checkpoint, own: Mapping[str, Tensor]) -> Fitting:
    """Find the set of weights that is a network's.

    Args:
        checkpoint: The file.
        own: The network's state_dict.

    Returns:
        The set that was asked for, the only one that fits, or, if none does, the nearest.

    Raises:
        CheckpointError: The file cannot be read, holds no weights, or several sets fit and none was asked for.
    """
    path = checkpoint.path
    sets = list(_sets(_load(path), path))
    if not sets:
        raise CheckpointError(f"{path} is not a state_dict", "save model.state_dict()")
    found = [one for name, state in sets for one in _named(name, state, own)]
    labels = list(dict.fromkeys(one.label for one in found if one.label))
    if checkpoint.part:
        part = checkpoint.part
        chosen = [
            one for one in found
            if part == one.label or one.label.endswith(f".{part}") or one.label.startswith(f"{part}.")
        ]  # fmt: skip
        if not chosen:
            raise CheckpointError(f"{path} has no weights called {part!r}", did_you_mean(part, labels))
        found = [one for one in chosen if part == one.label] or chosen
    fits = _different([one for one in found if one.fits])
    if len(fits) > 1:
        averaged = [one.label for one in fits if "ema" in one.label.lower() or "average" in one.label.lower()]
        first = f"weights: {path.name}#{(averaged or [fits[0].label])[0]}"
        first += ", a moving average, which is what is usually reported," if averaged else ""
        rest = " or ".join(f"{path.name}#{one.label}" for one in fits if not averaged or one.label != averaged[0])
        raise CheckpointError(
            f"{path} holds {len(fits)} sets of weights of this network: {', '.join(one.label for one in fits)}",
            f"choose one: {first} or {rest}",
        )
    if not fits:
        return min(found, key=lambda one: len(one.missing) + len(one.unknown))
    near = (one for one in found if not checkpoint.part and not one.fits and one.missing and len(one.missing) < len(own) / 2)
    others = [
        f"{one.label}, which lacks {len(one.missing)} of {len(own)} names" for one in near if one.label != fits[0].label
    ]
    return replace(fits[0], others=tuple(others))


def _different(found: Sequence[Fitting]) -> list[Fitting]:
    """Leave out sets that have the same tensors as one before them."""
    kept: list[Fitting] = []
    for one in found:
        if not any(_same(one.state, other.state) for other in kept):
            kept.append(one)
    return kept


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two sets are one; a counter of batches, which nothing depends on, may be in only one of them."""
    return all(a[name].equal(b[name]) for name in a.keys() & b.keys())


def _named(label: str, stored: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[Fitting]:
    """A stored set with the names of a network, once for each prefix that the network's names have in it."""
    state = {_plain(name): value for name, value in stored.items() if name.rpartition(".")[2] not in _COUNTERS}
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    probes = {*[*own][:1], max(own, key=lambda name: name.count("."), default="")} - {""}
    prefixes = {""} | {name[: -len(probe)] for probe in probes for name in state if name.endswith(f".{probe}")}
    for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix)):
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        inside = tied_names(_weight_norm(inside, own), own)
        beside = tuple(name for name in state if not name.startswith(prefix))
        short = prefix.removesuffix("module.").strip(".")
        missing, unknown = sorted(needed - inside.keys()), sorted(inside.keys() - own.keys())
        one = Fitting(".".join(filter(None, (label, short))), inside, beside, tuple(missing), tuple(unknown))
        yield one
        if one.fits and not prefix:  # these are the names of this network and of no other
            return


def tied_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each name that the network ties to another one the stored tensor of that one."""
    found = dict(state)
    for name, first in tied.aliases(own).items():
        stored = state.get(first, state.get(name))
        if stored is not None:
            found.setdefault(name, stored)
            found.setdefault(first, stored)
    return found


def _plain(name: str) -> str:
    """A name without what wrappers of torch put into it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _weight_norm(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the two tensors of a weight norm where the file has the names of another version of torch."""
    pairs = (("weight_g", "parametrizations.weight.original0"), ("weight_v", "parametrizations.weight.original1"))
    for old, new in (*pairs, *((new, old) for old, new in pairs)):
        for name in [name for name in state if name.endswith(old)]:
            other = name.removesuffix(old) + new
            if name not in own and other in own and other not in state:
                state[other] = state.pop(name)
    return state


def _sets(value: Any, path: Path, name: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """The dictionaries of tensors in what a file holds, by the names that lead to them."""
    import torch

    if not isinstance(value, Mapping) or depth > 3:
        return
    tensors = [isinstance(item, torch.Tensor) for item in value.values()]
    if all(tensors) and all(isinstance(key, str) for key in value) and (tensors or not depth):
        yield name, value
        return
    for key, item in value.items():
        if isinstance(key, str):
            yield from _sets(item, path, f"{name}.{key}" if name else key, depth + 1)


def _load(path: Path) -> Any:
    with reads.in_key():  # it is there by its bytes
        return _opened(path)


def _opened(path: Path) -> Any:
    import torch

    _refuse(path)
    if path.name.endswith(".index.json"):
        return {name: value for shard in Checkpoint(path).files()[1:] for name, value in _load_one(shard).items()}
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard[3]) > 1:
        index = path.with_name(f"{shard[1]}{shard[4]}.index.json")
        raise CheckpointError(f"{path} is part {int(shard[2])} of {int(shard[3])}", f"give the list of all parts: {index}")
    with torch.no_grad():
        return _load_one(path)


def _load_one(path: Path) -> Any:
    import torch

    try:
        if path.suffix == ".safetensors":
            return tied.load(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_safe_types()):
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what cannot be read then fails below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL (\w+\.[\w.]+)", str(error))
        what = f" ({kind[1]})" if kind else ""
        raise CheckpointError(
            f"{path} holds Python objects{what}, not only tensors; loading it could run code, so edgekd does not", _ALONE
        ) from error
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}", "save it again") from error


def _index(path: Path) -> dict[str, str]:
    try:
        with reads.in_key():
            found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): Path(str(file)).name for name, file in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "give the .index.json of its folder"
        raise CheckpointError(f"{path} is no list of the parts of a checkpoint", hint) from error


def _refuse(path: Path) -> None:
    """Say what a file is that is something else than weights.

    Raises:
        CheckpointError: It is.
    """
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a pointer of git-lfs, not the weights", "git lfs pull")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"{path} is a web page, not the weights", "download the file itself, not the page about it")
    if head[4:8] == b"TFL3" or path.suffix in (".onnx", ".tflite", ".keras", ".h5", ".pb"):
        kind = {".onnx": "onnx", ".tflite": "tflite", ".keras": "keras"}.get(path.suffix, "")
        hint = f"as a teacher: model: {kind}:{path.name}; else " if kind else ""
        raise CheckpointError(f"{path} is a model of another format", f"{hint}give the weights of the torch network")
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
        raise CheckpointError(f"{path} is compressed", "unpack it and give the checkpoint in it")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            raise CheckpointError(
                f"{path} is a TorchScript program",
                f"write its weights into a file: torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')",
            )
        if not any(name.endswith("data.pkl") for name in names):
            raise CheckpointError(f"{path} is an archive without weights", "unpack it and give the checkpoint in it")


def _safe_types() -> list[Any]:
    """Types that training scripts store beside weights and that run no code when they are read."""
    import argparse
    import collections
    import datetime
    import pathlib
    import types

    import numpy as np
    from numpy._core import multiarray

    names: list[Any] = [argparse.Namespace, types.SimpleNamespace, collections.defaultdict, datetime.datetime]
    names += [datetime.date, datetime.timedelta, set, frozenset, np.ndarray, np.dtype]
    names += [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdUSO"]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and 2
        names += [(multiarray.scalar, f"{module}.scalar"), (multiarray._reconstruct, f"{module}._reconstruct")]
    for module in ("pathlib", "pathlib._local"):  # Python 3.13 and others
        names += [(pathlib.PurePosixPath, f"{module}.PosixPath"), (pathlib.PureWindowsPath, f"{module}.WindowsPath")]
    return names
