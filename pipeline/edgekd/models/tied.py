"""Tied weights: several names of a state_dict that are one tensor. They are copied, saved and loaded as one.

A safetensors file holds one copy. Its metadata maps each other name to the stored one, as in files of ``save_model``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def aliases(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Map each name whose tensor is stored under an earlier name to that name.

    Example:
        >>> import torch
        >>> weight = torch.zeros(3)
        >>> aliases({"a.weight": weight, "b.weight": weight, "c.weight": torch.zeros(3)})
        {'b.weight': 'a.weight'}
    """
    first: dict[object, str] = {}
    found: dict[str, str] = {}
    for name, value in state.items():
        if value.numel() == 0:  # all empty tensors begin at address 0
            continue
        place = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if first.setdefault(place, name) != name:
            found[name] = first[place]
    return found


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy a state_dict to the CPU; names of one tensor stay names of one tensor."""
    tied = aliases(state)
    own = {name: value.detach().cpu().clone() for name, value in state.items() if name not in tied}
    return {name: own[tied.get(name, name)] for name in state}


def converted(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Convert the floating-point tensors of a state_dict; tied weights stay tied."""
    tied = aliases(state)
    own = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items() if name not in tied
    }
    return {name: own[tied.get(name, name)] for name in state}


def save(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state_dict as safetensors: tied weights once; the same bytes for the same tensors."""
    from safetensors.torch import save_file

    tied = aliases(state)
    stored = {name: value.contiguous() for name, value in state.items() if name not in tied}
    storages: set[int] = set()
    for name, value in stored.items():
        storage = value.untyped_storage().data_ptr()
        if storage in storages and value.numel():  # a view of another weight, such as a part of it: safetensors has no views
            stored[name] = value.clone()
        storages.add(storage)
    save_file(stored, path, metadata=tied or None)


def load(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; names that were saved as one tensor are one tensor again."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    state = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    tied = {name: kept for name, kept in metadata.items() if name not in state and kept in state}
    return {**state, **{name: state[kept] for name, kept in tied.items()}}
