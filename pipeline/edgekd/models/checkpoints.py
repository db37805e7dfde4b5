"""Checkpoints of other tools: which weights of a file, and under which names, are a network's.

A training script stores weights in a dictionary beside an optimizer, with a prefix before each name, and often twice: as
they are and as a moving average. What fits the network is found; where several sets fit, a recipe says which: ``FILE#SET``.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd import reads
from edgekd.errors import CheckpointError, UsageError, did_you_mean
from edgekd.models import tied, weight_files
from edgekd.models.weight_files import Stored
from edgekd.resources import available, find

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = "plain"
"""What a recipe calls the set whose names have no prefix and that no key leads to."""

_CHECKPOINT = re.compile(r"\.(safetensors|pth?|ckpt|bin|index\.json)$")
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put into names, anywhere in them."""
_COUNTERS = ("total_ops", "total_params", "n_averaged")
"""Tensors that tools leave in a state_dict: thop's counts and that of ``AveragedModel``."""
_WEIGHT_NORM = (("weight_g", "parametrizations.weight.original0"), ("weight_v", "parametrizations.weight.original1"))
"""Names of the two tensors of a weight norm: of older versions of torch, and of newer ones."""
_TYPED = re.compile(r"[\w+@-][\w.+@-]*")
"""Names that a shell, YAML and a path leave as they are."""
_AVERAGE = re.compile(r"(^|[^a-z])(ema|swa|averaged?|shadow)([^a-z]|$)")


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
        shards = {self.path.with_name(name) for name in weight_files.index(self.path).values()}
        for shard in sorted(shards):
            reason = reads.unreadable(shard)
            if reason == "does not exist":
                raise CheckpointError(f"{self.path} lists {shard.name}, which is not beside it", "put all its files there")
            if reason:
                raise CheckpointError(f"{shard} {reason}", "correct its permissions")
        return (self.path, *sorted(shards))

    def key(self) -> str:
        """Return the identity of the weights for a cache key: the SHA-256 of the file, and the set."""
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
    checkpoint = divided(text)
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


def divided(text: str) -> Checkpoint:
    """A file and the set after a ``#``; either may have a ``#`` in its name. Nothing has to be there."""
    if _is_there(text):
        return Checkpoint(Path(text))
    signs = [match.start() for match in re.finditer("#", text) if match.start()]
    there = [sign for sign in signs if _is_there(text[:sign])] or signs
    return Checkpoint(Path(text[: there[-1]]), text[there[-1] + 1 :]) if there else Checkpoint(Path(text))


def _is_there(text: str) -> bool:
    return reads.unreadable(Path(text)) != "does not exist"


def read(path: Path) -> dict[str, Tensor]:
    """Read a file that holds one state_dict.

    Raises:
        CheckpointError: It cannot be read, holds something else, or would have to be unpickled with code.
    """
    state = next((stored for stored in weight_files.stored(path) if not stored.name and not stored.values), None)
    if state is None:
        raise CheckpointError(f"{path} is not a state_dict", "save model.state_dict()")
    return {name.removeprefix("module."): value for name, value in state.tensors.items()}


@dataclass(frozen=True)
class Fitting:
    """A set of weights with the names of a network.

    Attributes:
        name: How the file calls the set: the keys that lead to it and the prefix of its names; empty without both.
        full: The same with ``module``, which wrappers of torch put before names.
        state: The tensors by the network's names, and those that it does not know.
        beside: Names in the file that belong to something else, such as a loss.
        values: Keys beside the tensors that hold no tensor, such as the number of an epoch.
        missing: Names of the network that are not in it.
        unknown: Names that are not in the network.
        share: Which share of the network's names it has, from 0 to 1.
        numbered: Whether a list or a number leads to it.
        label: How a recipe writes the set after ``#``; empty where it does not fit.
        others: Sets of the file that were not taken, though they have most of the network's names, with what they lack.
    """

    name: str
    full: str
    state: dict[str, Tensor]
    beside: tuple[str, ...]
    values: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    share: float
    numbered: bool = False
    label: str = ""
    others: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """True if the network's names are all there, and no others."""
        return not self.missing and not self.unknown

    def __str__(self) -> str:
        """The set in words."""
        name = self.name or "the names without a prefix"
        return name if self.label in ("", self.name) else self.label if self.label == self.full else f"{self.label} ({name})"


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
    path, part = checkpoint.path, checkpoint.part
    ends = {_older(name).rpartition(".")[2] for name in own}
    found = [
        one for stored in weight_files.stored(path)
        if not stored.numbered or any(_older(name).rpartition(".")[2] in ends for name in stored.tensors)
        for one in _candidates(stored, own)
    ]  # fmt: skip  # numbered, without any such name: the state of an optimizer
    if not found:
        raise CheckpointError(f"{path} is not a state_dict", "save model.state_dict()")
    fits = _labelled([one for one in found if one.fits])
    near = [one for one in found if not one.fits and one.share >= 0.5]
    if part:
        chosen = _called(part, fits, near)
        if not chosen:
            labels = [one.label or one.name for one in (*fits, *near)]
            hint = did_you_mean(part, dict.fromkeys(filter(None, labels))) if any(labels) else f"give {path} alone"
            raise CheckpointError(f"{path} has no weights called {part!r}", hint)
        fits, found = [one for one in chosen if one.fits], chosen
    fits = _different(fits)
    if len(fits) > 1:
        raise _several(path, fits)
    if not fits:
        return max(found, key=lambda one: (one.share, -len(one.unknown)))
    taken = {id(value) for value in fits[0].state.values()}
    passed = [one for one in near if not part and not taken.issuperset(map(id, one.state.values()))]
    return replace(fits[0], others=tuple(f"{one}, which {_differs(one, own)}" for one in passed))


def _called(part: str, fits: Sequence[Fitting], near: Sequence[Fitting]) -> list[Fitting]:
    """The sets that a recipe means by a word: by the label of one, by a name, or by a part of names."""

    def parts(one: Fitting) -> bool:
        return any(f".{part}." in f".{name}." for name in (one.name, one.full))

    return (
        [one for one in fits if one.label == part]
        or [one for one in (*fits, *near) if part in (one.name, one.full)]
        or [one for one in (*fits, *near) if parts(one)]
    )


def _several(path: Path, fits: Sequence[Fitting]) -> CheckpointError:
    """The error of a file with several sets that fit."""
    averaged = next((one for one in fits if _AVERAGE.search(one.full.lower())), None)
    first = averaged or fits[0]
    usual = ", a moving average, whose figures are usually reported," if averaged else ""
    rest = " or ".join(f"{path}#{one.label}" for one in fits if one is not first)
    return CheckpointError(
        f"{path} holds {len(fits)} sets of weights of this network: {', '.join(map(str, fits))}",
        f"choose one: weights: {path}#{first.label}{usual} or {rest}",
    )


def _differs(one: Fitting, own: Mapping[str, Tensor]) -> str:
    if one.missing:
        return f"lacks {len(one.missing)} of {len(own)} names"
    return f"has {len(one.unknown)} more, such as {one.unknown[0]}"


def _labelled(fits: Sequence[Fitting]) -> list[Fitting]:
    """Give each set a label that is its alone and that can be typed: its name, or else its number in the file."""
    short = Counter(one.name for one in fits)
    names = [one.name if short[one.name] == 1 else one.full for one in fits]
    counts = Counter(name or PLAIN for name in names)
    labelled = []
    for number, (one, name) in enumerate(zip(fits, names, strict=True), 1):
        label = name or PLAIN
        if counts[label] > 1 or not _TYPED.fullmatch(label):
            label = f"set{number}"
            while label in counts:
                label += "_"
        labelled.append(replace(one, label=label))
    return labelled


def _different(found: Sequence[Fitting]) -> list[Fitting]:
    """Leave out sets that have the same tensors as one before them."""
    kept: list[Fitting] = []
    for one in found:
        if not any(_same(one.state, other.state) for other in kept):
            kept.append(one)
    return kept


def _same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Return whether two sets are one; a counter of batches, which nothing depends on, may be in only one of them."""
    return all(_equal(a[name], b[name]) for name in a.keys() & b.keys())


def _equal(a: Tensor, b: Tensor) -> bool:
    import torch

    if _no_values(a) or _no_values(b) or a.dtype != b.dtype or a.shape != b.shape:
        return a is b
    # By bytes: float8 has no comparison.
    first, second = (one.resolve_conj().contiguous().flatten().view(torch.uint8) for one in (a, b))
    return bool(first.equal(second))


def _candidates(stored: Stored, own: Mapping[str, Tensor]) -> Iterator[Fitting]:
    """A stored dictionary with the names of a network, once for each prefix that the network's names have in it."""
    state = _unwrapped(
        {name: value for name, value in stored.tensors.items() if name in own or name.rpartition(".")[2] not in _COUNTERS}
    )
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    older = {_older(name) for name in own}
    prefixes = _prefixes(state, needed)
    whole = [prefix for prefix in prefixes if needed <= _under(prefix, state, own).keys()]

    def elsewhere(name: str) -> bool:
        """Return whether a name is one of another whole set of this dictionary."""
        return any(_older(name.removeprefix(prefix)) in older for prefix in whole if name.startswith(prefix))

    for prefix in prefixes:
        inner = tuple(other for other in whole if other != prefix and other.startswith(prefix))
        names = [name for name in state if name.startswith(prefix)]
        mine = [name for name in names if name.removeprefix(prefix) in own or not name.startswith(inner)]
        inside = _under(prefix, {name: state[name] for name in mine}, own)
        extra = [name for name in inside if name not in own and name.rpartition(".")[2] == "_extra_state"]
        inside = {name: value for name, value in inside.items() if name not in extra}
        beside = tuple(name for name in state if not name.startswith(prefix) and not elsewhere(name))
        missing = tuple(sorted(needed - inside.keys()))
        full, short = (
            ".".join(filter(None, (stored.name, part.strip(".")))) for part in (prefix, prefix.removesuffix("module."))
        )
        one = Fitting(
            short, full, inside, beside, (*stored.values, *extra), missing, tuple(sorted(inside.keys() - own.keys())),
            (len(needed) - len(missing)) / max(1, len(needed)), stored.numbered,
        )  # fmt: skip
        yield one
        if one.fits and not prefix and len(whole) == 1:  # these are the names of this network and of no other
            return


def _prefixes(state: Iterable[str], needed: Iterable[str]) -> list[str]:
    """What stands before the names of a network: nothing, and each prefix that half of the names have."""
    own = {_older(name) for name in needed}
    counts = Counter({"": 0})
    for name in map(_older, state):
        places = (place + 1 for place, sign in enumerate(name) if sign == ".")
        counts.update(name[:place] for place in places if name[place:] in own)
    often = [prefix for prefix, count in counts.items() if not prefix or 2 * count >= len(own)]
    return sorted(often, key=lambda prefix: (len(prefix), prefix))


def _under(prefix: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names have a prefix, by the network's names."""
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return tied_names(_weight_norm(inside, own), own)


def tied_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each name that the network ties to another one the stored tensor of that one."""
    found = dict(state)
    for name, first in tied.aliases(own).items():
        stored = state.get(first, state.get(name))
        if stored is not None:
            found.setdefault(name, stored)
            found.setdefault(first, stored)
    return found


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by their names without what wrappers of torch put into them, unless two would have one name."""
    plain = {name: _plain(name) for name in state}
    counts = Counter(plain.values())
    return {plain[name] if counts[plain[name]] == 1 else name: value for name, value in state.items()}


def _plain(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _older(name: str) -> str:
    """A name of a weight norm as older versions of torch have it."""
    for old, new in _WEIGHT_NORM:
        if name.endswith(new):
            return name.removesuffix(new) + old
    return name


def _weight_norm(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the two tensors of a weight norm where the file has the names of another version of torch."""
    for old, new in (*_WEIGHT_NORM, *((new, old) for old, new in _WEIGHT_NORM)):
        for name in [name for name in state if name.endswith(old)]:
            other = name.removesuffix(old) + new
            if name not in own and other in own and other not in state:
                state[other] = state.pop(name)
    return state


def mismatch(path: Path, found: Fitting, own: Mapping[str, Tensor]) -> CheckpointError:
    """The error of a set that does not have a network's names."""
    missing, unknown = found.missing, found.unknown
    parts = [f"{len(names)} {what} (first: {names[0]})" for what, names in
             (("weights of the model are not in it", missing), ("are not in the model", unknown)) if names]  # fmt: skip
    message = f"{path} does not fit the model: {'; '.join(parts)}"
    renamed, count = _renamed(found, own)
    needed = len(missing) / (1 - found.share) if missing else 0
    if renamed and 2 * count >= len(missing) and found.share + count / needed >= 0.5:
        alike = f", and {count - 1} more of the {len(missing)} likewise" if count > 1 else ""
        pair = f"what the model calls {renamed[0]} is {renamed[1]} in the file{alike}"
        return CheckpointError(message, f"{pair}: rename them, or correct the model")
    if found.share < 0.5:
        share = f"it has {round(needed) - len(missing)} of the model's {round(needed)} names"
        return CheckpointError(message, f"it is of another architecture: {share}; correct model or weights")
    return CheckpointError(message, "is it of another architecture, or with other args? correct model, args or weights")


def _renamed(found: Fitting, own: Mapping[str, Tensor]) -> tuple[tuple[str, str] | None, int]:
    """The change of a prefix that gives most of the missing names; a pair that shows it, and how many it gives."""

    def shape(name: str, of: Mapping[str, Tensor]) -> tuple[int, ...]:
        return tuple(of[name].shape)

    best: tuple[str, str] | None = None
    most = 0
    for name in (found.missing[:1] + found.missing[-1:]) if found.missing else ():
        for other in found.unknown:
            end = _common_end(name, other)
            if not end or shape(name, own) != shape(other, found.state):
                continue
            ours, theirs = name.removesuffix(end), other.removesuffix(end)
            pairs = [(one, theirs + one.removeprefix(ours)) for one in found.missing if one.startswith(ours)]
            count = sum(there in found.state and shape(one, own) == shape(there, found.state) for one, there in pairs)
            if count > most:
                best, most = (name, other), count
    return best, most


def _common_end(a: str, b: str) -> str:
    """The last parts that two names have in common."""
    count = 0
    first, second = a.split("."), b.split(".")
    while count < min(len(first), len(second)) and first[-1 - count] == second[-1 - count]:
        count += 1
    return ".".join(first[len(first) - count :]) if count else ""


def converted(path: Path, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the tensors of a set to the types of a network.

    Raises:
        CheckpointError: One cannot be, or would no longer be what it was.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        wrong = _no_values(value) or _other_kind(value, own[name])
        if wrong:
            raise CheckpointError(f"{path}: {name} {wrong[0]}", wrong[1])
        found[name] = value.to(own[name].dtype)
    return found


def _no_values(value: Tensor) -> tuple[str, str] | None:
    """What a tensor is that cannot be read as numbers in rows, and what to do."""
    import torch

    if value.is_meta:
        return "has no values: it was saved from the device meta", "load the weights before you save model.state_dict()"
    if value.is_quantized:
        hint = "save the float weights, before they are quantized: edgekd quantizes them itself"
        return f"is quantized ({value.dtype})", hint
    if value.is_nested:
        return "is a nested tensor", "save tensors of one shape each"
    if value.layout != torch.strided:
        hint = "save dense tensors: torch.save({name: value.to_dense() for name, value in state.items()}, 'weights.pt')"
        return f"is sparse ({value.layout})", hint
    return None


def _other_kind(value: Tensor, own: Tensor) -> tuple[str, str] | None:
    """Why a tensor's type cannot become a network's, and what to do."""
    what = f"is {value.dtype} in the file and {own.dtype} in the model"
    numbers = own.is_floating_point() or own.is_complex()
    if numbers and not value.is_floating_point() and not (value.is_complex() and own.is_complex()):
        scales = "" if value.is_complex() else ", not quantized ones, whose scales are somewhere else"
        return what, f"save the float weights{scales}"
    try:
        back = value.to(own.dtype)
        if not numbers and value.is_floating_point() and not back.to(value.dtype).equal(value):
            return f"{what}, and has fractions", "is it of another architecture? correct model or weights"
    except (RuntimeError, NotImplementedError):  # some of the types with 8 bits and less
        return f"{what}, which torch cannot convert", "save the weights in float32"
    return None
