"""Channels rounded up to a multiple that int8 kernels like; the network computes what it computed before.

New channels get fresh weights, and zeros in all that reads them (Net2Net's idea of a function-preserving start, Chen et al.
2016, arXiv:1511.05641, §2.2): loaded weights stay good, and training can make use of the new ones. Which widths belong
together is read from the ``torch.fx`` graph: channels that are added or multiplied are one width, concatenated ones are
several, and what goes through an operator that is not known here keeps its width.
"""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from edgekd.errors import ModelError, cause_of
from edgekd.task.named import Inputs, in_order

_SAME_MODULES = (
    _BatchNorm, nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d, nn.Flatten, nn.Upsample, nn.ZeroPad2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.Hardswish,
    nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.SiLU, nn.GELU, nn.Mish, nn.Tanh,
)  # fmt: skip
_SAME_CALLS = {
    F.relu, F.relu6, F.leaky_relu, F.hardswish, F.hardsigmoid, F.silu, F.gelu, F.dropout, torch.relu, torch.sigmoid,
    F.adaptive_avg_pool2d, F.avg_pool2d, F.max_pool2d, F.interpolate, torch.flatten, torch.mean, "flatten", "mean", "relu",
    "sigmoid", "relu_", "contiguous",
}  # fmt: skip
_JOINING = {operator.add, operator.mul, operator.sub, operator.iadd, operator.imul, torch.add, torch.mul,
            "add", "add_", "mul", "mul_", "sub"}  # fmt: skip


@dataclass
class _Width:
    """A number of channels that changes in one piece; ``fixed`` says why it cannot."""

    size: int
    fixed: str = ""
    same: _Width | None = field(default=None, repr=False)

    @property
    def root(self) -> _Width:
        return self if self.same is None else self.same.root

    def join(self, other: _Width) -> None:
        mine, theirs = self.root, other.root
        if mine is not theirs:
            mine.fixed = mine.fixed or theirs.fixed
            theirs.same = mine

    def rounded(self, multiple: int) -> int:
        return self.size if self.root.fixed else -(-self.size // multiple) * multiple


Widths = tuple[_Width, ...]


def round_up(model: nn.Module, multiple: int, example: Inputs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Widen layers in place until their channels are multiples of ``multiple``.

    Args:
        model: Any module that ``torch.fx`` can trace.
        multiple: 8, say.
        example: One sample.

    Returns:
        Paths of the layers that make more channels now, and what could not be widened, with the reason.

    Raises:
        ModelError: The model cannot be traced.
    """
    training = model.training
    try:
        graph_module = fx.symbolic_trace(model.eval())
        with torch.no_grad():
            ShapeProp(graph_module).propagate(*in_order(model, example).values())
    except Exception as error:  # whatever the user's forward meets in a tracer
        raise ModelError(
            f"student.rewrite.round_channels: {type(model).__name__} cannot be traced: {cause_of(error)}",
            "remove rewrite.round_channels",
        ) from error
    finally:
        model.train(training)
    ins, outs = _widths(graph_module)
    modules = dict(graph_module.named_modules())
    widened, left = [], []
    for path, out in outs.items():
        layer = modules[path]
        before, after = sum(width.size for width in out), sum(width.rounded(multiple) for width in out)
        if after > before or any(width.rounded(multiple) > width.size for width in ins[path]):
            _widen(layer, ins[path], out, multiple)
        if after > before and not isinstance(layer, _BatchNorm):
            widened.append(path)
        elif after % multiple and not isinstance(layer, _BatchNorm) and out[0].root.fixed != "output":
            left.append(f"{path} at {after} channels: {out[0].root.fixed}")
    return tuple(widened), tuple(left)


def _widths(graph_module: fx.GraphModule) -> tuple[dict[str, Widths], dict[str, Widths]]:
    """Widths that each layer reads and makes, by its path."""
    calls = Counter(node.target for node in graph_module.graph.nodes if node.op == "call_module")
    modules = dict(graph_module.named_modules())
    tied = _tied(set(modules.values()))
    of: dict[fx.Node, Widths] = {}
    ins: dict[str, Widths] = {}
    outs: dict[str, Widths] = {}
    for node in graph_module.graph.nodes:
        read = [of[arg] for arg in node.all_input_nodes if arg in of]
        if node.op == "output":
            _fix(read, "output")
            continue
        shape = _shape(node)
        if shape is None:
            _fix(read, f"read by {node.name}")
            continue
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        made = _made(node, layer, shape, read) if len(read) else None
        if layer is not None and layer in tied:
            _fix(read, f"read by {node.name}, whose weight is tied")
            made = (_Width(shape[1] if len(shape) > 1 else 1, f"made by {node.name}, whose weight is tied"),)
        elif made is None or (layer is not None and calls[node.target] > 1):
            _fix(read, f"read by {node.name}")
            made = (_Width(shape[1] if len(shape) > 1 else 1, f"made by {node.name}"),)
        elif isinstance(layer, nn.Conv2d | nn.Linear | _BatchNorm):
            ins[str(node.target)], outs[str(node.target)] = read[0], made
        of[node] = made
    return ins, outs


def _tied(modules: set[nn.Module]) -> set[nn.Module]:
    """The modules that have a parameter in common with another one: new channels would untie them."""
    own = {module: list(module.parameters(recurse=False)) for module in modules}
    holders = Counter(parameter for parameters in own.values() for parameter in parameters)
    return {module for module, parameters in own.items() if any(holders[parameter] > 1 for parameter in parameters)}


def _made(node: fx.Node, layer: nn.Module | None, shape: tuple[int, ...], read: list[Widths]) -> Widths | None:
    """The widths of a node's output; ``None`` where the operator is not known."""
    total = sum(width.size for width in read[0])
    if isinstance(layer, nn.Conv2d):
        if layer.groups == 1:
            return (_Width(layer.out_channels),)
        return read[0] if layer.groups == layer.in_channels == layer.out_channels else None
    if isinstance(layer, nn.Linear):
        return (_Width(layer.out_features),) if len(shape) == 2 and layer.in_features == total else None
    known = isinstance(layer, _SAME_MODULES) or (layer is None and node.target in _SAME_CALLS)
    known = known or getattr(node.target, "__name__", "") == "stochastic_depth"  # torchvision's, one call in a graph
    if known and len(read) == 1 and len(shape) in {2, 4} and shape[1] == total:
        return read[0]
    if node.target in _JOINING and len(read) == 2 and [w.size for w in read[0]] == [w.size for w in read[1]]:
        for one, other in zip(*read, strict=True):
            one.join(other)
        return read[0]
    if node.target in {torch.cat, torch.concat} and _dim(node) == 1:
        return tuple(width for widths in read for width in widths)
    return None


def _dim(node: fx.Node) -> Any:
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return None if shape is None else tuple(shape)


def _fix(widths: list[Widths], why: str) -> None:
    for each in widths:
        for width in each:
            width.root.fixed = width.root.fixed or why


def _widen(layer: nn.Module, read: Widths, made: Widths, multiple: int) -> None:
    """Give a layer its new shape, its old values at their places, and zeros where it reads new channels."""
    kept_in, total_in = _places(read, multiple)
    kept_out, total_out = _places(made, multiple)
    state = {name: value.detach().clone() for name, value in layer.state_dict().items()}
    if isinstance(layer, nn.Conv2d):
        depthwise = layer.groups > 1
        layer.in_channels, layer.out_channels = total_in, total_out
        layer.groups = total_in if depthwise else 1
        layer.weight = nn.Parameter(state["weight"].new_empty(total_out, 1 if depthwise else total_in, *layer.kernel_size))
    elif isinstance(layer, nn.Linear):
        layer.in_features, layer.out_features = total_in, total_out
        layer.weight = nn.Parameter(state["weight"].new_empty(total_out, total_in))
    else:
        assert isinstance(layer, _BatchNorm)  # no other kind of layer is widened
        layer.num_features = total_out
    for name, value in state.items():
        if value.ndim == 1:
            new = value.new_zeros(total_out)
            setattr(layer, name, nn.Parameter(new) if isinstance(getattr(layer, name), nn.Parameter) else new)
    layer.reset_parameters()
    with torch.no_grad():
        for name, value in state.items():
            target = getattr(layer, name)
            if name != "weight" or value.ndim == 1:
                target[kept_out if value.ndim else ...] = value
                continue
            if value.shape[1] > 1 or not isinstance(layer, nn.Conv2d) or layer.groups == 1:
                new_in = [index for index in range(total_in) if index not in set(kept_in)]
                target[:, new_in] = 0
                target[torch.tensor(kept_out)[:, None], torch.tensor(kept_in)[None]] = value
            else:
                target[kept_out] = value


def _places(widths: Widths, multiple: int) -> tuple[list[int], int]:
    """Where the old channels are among the new ones, and how many there are now."""
    kept: list[int] = []
    start = 0
    for width in widths:
        kept += range(start, start + width.size)
        start += width.rounded(multiple)
    return kept, start
