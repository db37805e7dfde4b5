"""The outputs of a traced graph that are shipped, as opposed to the features that distillation reads.

A graph returns its answer, or a tuple of its answer and features. The answer is a tensor, or a mapping of all outputs that
are shipped. Behind features, the others than the primary one may be a mapping of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx
from torch.utils import _pytree as pytree

from edgekd.task.primary import answer


def outputs(graph: fx.Graph) -> dict[str, fx.Node]:
    """Return the shipped outputs by name, the primary one first; see ``primary.answer``."""
    returned = _returned(graph)
    if not isinstance(returned, tuple | list):
        return answer(returned, "the network")
    others = returned[-1] if isinstance(returned[-1], Mapping) and len(returned) > 1 else {}
    return {**answer(returned[0], "the network"), **others}


def primary(graph: fx.Graph) -> fx.Node:
    """Return the output that is compared where there can be only one, such as the logits."""
    return next(iter(outputs(graph).values()))


def keep(module: fx.GraphModule) -> None:
    """Cut the features off: the graph returns the shipped outputs alone, a tensor or a tuple of several."""
    kept = tuple(outputs(module.graph).values())
    module.graph.output_node().args = (kept,)
    codegen = module.graph._codegen
    assert isinstance(codegen, fx.graph._PyTreeCodeGen)
    shape = 0 if len(kept) == 1 else tuple(range(len(kept)))
    codegen.pytree_info = codegen.pytree_info._replace(out_spec=pytree.tree_structure(shape))
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


def _returned(graph: fx.Graph) -> Any:
    """What the graph returns, with nodes in the place of tensors."""
    leaves, spec = pytree.tree_flatten(graph.output_node().args[0])
    codegen = graph._codegen
    if isinstance(codegen, fx.graph._PyTreeCodeGen) and codegen.pytree_info.out_spec is not None:
        spec = codegen.pytree_info.out_spec
    return pytree.tree_unflatten(leaves, spec)
