"""Torch's list of composite operators, gathered in less time, is the same list."""

from __future__ import annotations

import pytest
import torch
from torch._export import utils
from torch.export import decomp_utils, exported_program

from edgekd.exporting.composites import registered_once


def test_the_list_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    register = utils._materialize_cpp_cia_ops
    monkeypatch.setattr(utils, "_materialize_cpp_cia_ops", lambda: (looks.append(None), register())[1])
    expected, by_itself = utils._collect_all_valid_cia_ops(), len(looks)
    assert torch.ops.aten.linear.default in expected
    assert by_itself > 10
    with registered_once():
        for reader in (decomp_utils, exported_program):
            looks.clear()
            assert reader._collect_all_valid_cia_ops() == expected
            assert len(looks) == 1


def test_torch_is_left_as_it_was() -> None:
    before = (
        decomp_utils._collect_all_valid_cia_ops,
        exported_program._collect_all_valid_cia_ops,
        utils._materialize_cpp_cia_ops,
    )
    with pytest.raises(KeyError), registered_once():
        decomp_utils._collect_all_valid_cia_ops()
        raise KeyError
    assert before == (
        decomp_utils._collect_all_valid_cia_ops, exported_program._collect_all_valid_cia_ops, utils._materialize_cpp_cia_ops,
    )  # fmt: skip
