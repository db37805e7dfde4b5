"""Torch's list of the operators that it may write with others, as every decomposition of a graph asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def registered_once() -> Iterator[None]:
    """Let torch look for new operators of C++ once a list.

    By itself it looks once for each of its 35 namespaces, a tenth of a second's work, and each file asks for the list a few
    times. The list is the same. Torch has no argument for it.
    """
    from torch._export import utils
    from torch.export import decomp_utils, exported_program

    collect, register = utils._collect_all_valid_cia_ops, utils._materialize_cpp_cia_ops

    def collected() -> Any:
        register()
        utils._materialize_cpp_cia_ops = lambda: None
        try:
            return collect()
        finally:
            utils._materialize_cpp_cia_ops = register

    readers: tuple[Any, ...] = (decomp_utils, exported_program)
    for reader in readers:
        reader._collect_all_valid_cia_ops = collected
    try:
        yield
    finally:
        for reader in readers:
            reader._collect_all_valid_cia_ops = collect
