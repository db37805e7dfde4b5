"""Work of torch whose result is the same each time, or that nobody looks at, while a graph is traced or written anew."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any


@contextmanager
def left_out() -> Iterator[None]:
    """Do without it; torch has no argument for any of it.

    - Whenever torch lists the operators that it may write with others, which it does several times a file, it goes through
      all it has, and looks for new ones of C++ once for each of its 35 namespaces. Here once for each state of its
      registrations.
    - A graph module writes Python of its graph and compiles that at every change, though passes only read the graph. Here
      when the module is called or its code is read: ``torch.fx._lazy_graph_module``.
    - Each of the 6,000 rules that torch sets for a decomposition evaluates its annotations, which ``typing`` keeps and
      ``collections.abc`` does not.
    """
    from torch import _ops
    from torch.export import decomp_utils, exported_program
    from torch.fx._lazy_graph_module import _use_lazy_graph_module

    readers: tuple[Any, ...] = (decomp_utils, exported_program)
    listed = [reader._collect_all_valid_cia_ops for reader in readers]
    names: Any = _ops
    written = names.Callable
    for reader in readers:
        reader._collect_all_valid_cia_ops = composites
    names.Callable = typing.Callable
    try:
        with _use_lazy_graph_module(True):
            yield
    finally:
        names.Callable = written
        for reader, before in zip(readers, listed, strict=True):
            reader._collect_all_valid_cia_ops = before


def composites() -> set[Any]:
    """Return the operators that torch may write with others, as ``torch._export.utils._collect_all_valid_cia_ops`` does."""
    import torch

    return set(_composites(tuple(torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd"))))


@lru_cache(maxsize=1)
def _composites(registered: tuple[str, ...]) -> frozenset[Any]:
    from torch._export import utils

    register: Any = utils._materialize_cpp_cia_ops
    register()
    utils._materialize_cpp_cia_ops = lambda: None
    try:
        return frozenset(utils._collect_all_valid_cia_ops())
    finally:
        utils._materialize_cpp_cia_ops = register
