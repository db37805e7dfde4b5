"""Masks in front of a softmax, brought to a value that int8 can hold beside the scores.

A mask of -1e9 or -inf that is rounded together with the scores leaves one step for all of them, and a masked entry needs
no more than a weight of 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quantization.graph import add_call, add_constant, calls, constant, origins, remove_unused

aten = torch.ops.aten

MASKED = -64.0
"""What is added to a score from here on down hides it: exp(-64) is 1.6e-28."""
HELD = -24.0
"""What is added instead; exp(-24) is 4e-11."""

_SOFTMAX = {aten.softmax.int, aten._softmax.default}
_MOVES = {
    aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.permute.default, aten.transpose.int,
    aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.expand.default, aten.slice.Tensor, aten.clone.default,
    aten._to_copy.default, aten.to.dtype,
}  # fmt: skip
_FILLS = {aten.masked_fill.Scalar, aten.masked_fill.Tensor}
_WHERES = {aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar}


def bound_masks(graph_module: fx.GraphModule) -> None:
    """Write each mask in front of a softmax as a sum with 0 where an entry is visible and ``HELD`` where it is masked.

    Constant masks and masks that are computed from the input, added, filled in or chosen with ``where``. The softmax keeps
    its values to within 1e-6 where each row has a visible entry, and no masked score is more than 10 above the largest
    visible one. A row without a visible entry has no defined value: NaN with -inf.
    """
    for node in calls(graph_module):
        if node.target in _SOFTMAX and isinstance(node.args[0], fx.Node):
            _bound_scores(graph_module, node.args[0])


def _bound_scores(graph_module: fx.GraphModule, node: fx.Node) -> None:
    """Bound what is added to or filled into scores, ``node`` being the masked ones."""
    while node.target in _MOVES and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    if node.target in (aten.add.Tensor, aten.sub.Tensor) and not node.kwargs:
        for place in (0, 1):
            sign = -1 if node.target is aten.sub.Tensor and place == 1 else 1
            bounded = _bounded(graph_module, node.args[place], node, sign)
            if bounded is not node.args[place]:
                node.update_arg(place, bounded)
            elif isinstance(bounded, fx.Node) and constant(graph_module, bounded) is None and sign == 1:
                _bound_scores(graph_module, bounded)  # scores that another mask was added to before
    found = _filled(graph_module, node)
    if found is not None:
        scores, mask, hidden = found
        old = node.all_input_nodes
        held = _hiding(graph_module, mask, hidden, node)
        node.target, node.args, node.kwargs = aten.add.Tensor, (scores, held), {}
        remove_unused(graph_module, *(one for one in old if one is not scores))
        _bound_scores(graph_module, scores)


def _filled(graph_module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node, bool] | None:
    """Return scores, mask and the value of the mask where an entry is hidden, if ``node`` hides scores."""
    if node.target in _FILLS:
        scores, mask, value = node.args
        if _hides(graph_module, value) and isinstance(scores, fx.Node) and isinstance(mask, fx.Node):
            return scores, mask, True
    if node.target in _WHERES:
        mask, first, second = node.args
        for scores, value, hidden in ((first, second, False), (second, first, True)):
            whole = isinstance(scores, fx.Node) and constant(graph_module, scores) is None
            if whole and _hides(graph_module, value) and isinstance(mask, fx.Node):
                return scores, mask, hidden  # type: ignore[return-value]  # a node, as `whole` says
    return None


def _hides(graph_module: fx.GraphModule, value: object) -> bool:
    stored = constant(graph_module, value)
    if stored is not None:
        return bool((stored <= MASKED).all())
    return isinstance(value, int | float) and value <= MASKED


def _hiding(graph_module: fx.GraphModule, mask: fx.Node, hidden: bool, before: fx.Node) -> fx.Node:
    """Return a node of 0 where an entry is visible and ``HELD`` where it is hidden."""
    stored = constant(graph_module, mask)
    if stored is not None:
        value = torch.where(stored == hidden, HELD, 0.0)
        return add_constant(graph_module, before, f"{before.name}_mask", value, trained=False)
    numbers = add_call(graph_module, before, aten._to_copy.default, (mask,))
    numbers.kwargs = {"dtype": torch.float32}
    numbers.meta["val"] = numbers.meta["val"].to(torch.float32)
    held = add_call(graph_module, before, aten.mul.Tensor, (numbers, HELD if hidden else -HELD))
    return held if hidden else add_call(graph_module, before, aten.add.Tensor, (held, HELD))


def _bounded(graph_module: fx.GraphModule, value: Any, before: fx.Node, sign: int) -> Any:
    """Return what is added to scores (``sign`` -1: subtracted) with masks bounded; the same object where it has none."""
    stored = constant(graph_module, value)
    if stored is not None:
        masked = stored * sign <= MASKED
        if not stored.is_floating_point() or not masked.any():
            return value
        held = torch.where(masked, torch.full_like(stored, HELD * sign), stored)
        return add_constant(graph_module, before, f"{before.name}_mask", held, trained=False, made_of=origins(value))
    if not isinstance(value, fx.Node):
        return value
    if value.target in _MOVES or value.target is aten.add.Tensor:
        _replace_inputs(graph_module, value, sign)
    elif value.target is aten.mul.Tensor:
        _bound_factor(graph_module, value, sign)
    elif value.target in _FILLS | _WHERES:
        _bound_choices(graph_module, value, sign)
    return value


def _replace_inputs(graph_module: fx.GraphModule, node: fx.Node, sign: int) -> None:
    for source in list(node.all_input_nodes):
        if isinstance(source.meta.get("val"), Tensor):
            bounded = _bounded(graph_module, source, node, sign)
            if bounded is not source:
                node.replace_input_with(source, bounded)


def _bound_factor(graph_module: fx.GraphModule, node: fx.Node, sign: int) -> None:
    """``(1 - mask) * -1e9``: the factor is bounded."""
    for place, factor in enumerate(node.args):
        if isinstance(factor, int | float) and factor * sign <= MASKED:
            node.update_arg(place, HELD * sign)
        stored = constant(graph_module, factor)
        if stored is not None and stored.numel() == 1 and float(stored) * sign <= MASKED:
            held = torch.full_like(stored, HELD * sign)
            node.update_arg(place, add_constant(graph_module, node, f"{node.name}_mask", held, trained=False))


def _bound_choices(graph_module: fx.GraphModule, node: fx.Node, sign: int) -> None:
    """``where(mask, 0, -inf)`` and ``zeros.masked_fill(mask, -inf)``: the values are bounded."""
    places = (0, 2) if node.target in _FILLS else (1, 2)
    for place in places:
        value = node.args[place]
        if isinstance(value, int | float) and value * sign <= MASKED:
            node.update_arg(place, HELD * sign)
        else:
            bounded = _bounded(graph_module, value, node, sign)
            if bounded is not value:
                node.update_arg(place, bounded)
