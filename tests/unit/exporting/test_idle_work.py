"""What torch does without, changes no result, and torch is left as it was."""

from __future__ import annotations

import pytest
import torch
from tests.unit.exporting.nets import Residual
from torch import _ops, fx
from torch._export import utils
from torch.export import decomp_utils, exported_program
from torch.fx import _lazy_graph_module

from edgekd.exporting import idle_work

READERS = (decomp_utils, exported_program)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An item for each time that torch looks for new operators."""
    found: list[None] = []
    register = utils._materialize_cpp_cia_ops
    monkeypatch.setattr(utils, "_materialize_cpp_cia_ops", lambda: (found.append(None), register())[1])
    return found


def test_the_list_is_the_same(looks: list[None]) -> None:
    expected, by_itself = utils._collect_all_valid_cia_ops(), len(looks)
    assert torch.ops.aten.linear.default in expected
    assert by_itself > 10
    idle_work._composites.cache_clear()
    looks.clear()
    with idle_work.left_out():
        for reader in READERS:
            assert reader._collect_all_valid_cia_ops() == expected
    assert len(looks) == 1


def test_an_operator_that_was_registered_since_is_in_the_list() -> None:
    before = idle_work.composites()
    library = torch.library.Library("edgekd_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x + x, "CompositeImplicitAutograd")
    try:
        added = idle_work.composites() - before
        assert added == utils._collect_all_valid_cia_ops() - before
        assert [str(op) for op in added] == ["edgekd_test.twice.default"]
    finally:
        library._destroy()
    assert idle_work.composites() == before


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning")  # of torch, for its own copies
def test_a_graph_is_the_same_and_its_code_is_written_when_it_is_called() -> None:
    x = torch.randn(2, 3, 12, 12)
    program = torch.export.export(Residual().eval(), (x,))
    plain = program.run_decompositions()
    with idle_work.left_out():
        spared = program.run_decompositions()
    assert spared.graph_module.code == plain.graph_module.code
    assert spared.graph_signature == plain.graph_signature
    assert torch.equal(spared.module()(x), plain.module()(x))


def test_torch_is_left_as_it_was() -> None:
    def state() -> tuple[object, ...]:
        flag = _lazy_graph_module._use_lazy_graph_module_flag
        return (
            *(reader._collect_all_valid_cia_ops for reader in READERS),
            utils._materialize_cpp_cia_ops,
            _ops.Callable,
            flag,
        )

    before = state()
    with pytest.raises(KeyError), idle_work.left_out():
        decomp_utils._collect_all_valid_cia_ops()
        assert fx._lazy_graph_module._use_lazy_graph_module_flag
        raise KeyError
    assert before == state()
