"""Batch normalisation folded into the layer before it, dropout removed: the graph that is quantized.

Folding comes before quantization-aware training, not after it: the weights that are trained are then the weights that
are rounded, and nothing has to be fused in a graph full of fake quantizers.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from edgekd.errors import QuantizeError

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_REMOVED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity)
_REMOVED_FUNCTIONS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, torch.dropout)


def fold(model: nn.Module) -> fx.GraphModule:
    """Return an inference copy of ``model`` without batch normalisation and dropout.

    A BatchNorm that has no convolution or linear layer of its own before it becomes a 1×1 depthwise convolution
    (two-dimensional ones only; others stay as they are). Outputs keep their structure. A convolution whose output is
    also an output of the model, as a feature for distillation, is kept beside the folded one for that output.

    Args:
        model: Any module that ``torch.fx`` can trace, such as a feature extractor. It is not changed.

    Returns:
        The folded graph in evaluation mode, with parameters of its own.

    Raises:
        QuantizeError: The model cannot be traced.

    Example:
        >>> layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout())
        >>> [type(module).__name__ for module in fold(layers).children()]
        ['Conv2d']
    """
    graph_module = _trace(model)
    _remove_dropout(graph_module)
    _fold_norms(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module.eval()


def _trace(model: nn.Module) -> fx.GraphModule:
    with warnings.catch_warnings():
        # Copying a graph module rebuilds its pytree spec, and torch warns of its own class there.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        own = copy.deepcopy(model).eval()
    try:
        # Graph modules are traced again: torchvision's feature extractor keeps its own blocks, such as
        # Conv2dNormActivation, as one call each, with the norm inside.
        return fx.symbolic_trace(own)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise QuantizeError(
            f"{type(model).__name__} cannot be traced for quantization: {error}",
            "remove control flow that depends on tensor values from its forward()",
        ) from error


def _module_of(graph_module: fx.GraphModule, node: object) -> nn.Module | None:
    if isinstance(node, fx.Node) and node.op == "call_module":
        return graph_module.get_submodule(str(node.target))
    return None


def _remove_dropout(graph_module: fx.GraphModule) -> None:
    for node in list(graph_module.graph.nodes):
        gone = isinstance(_module_of(graph_module, node), _REMOVED) or (
            node.op == "call_function" and node.target in _REMOVED_FUNCTIONS
        )
        if gone:
            node.replace_all_uses_with(node.args[0] if node.args else node.kwargs["input"])
            graph_module.graph.erase_node(node)


def _fold_norms(graph_module: fx.GraphModule) -> None:
    calls = Counter(node.target for node in graph_module.graph.nodes if node.op == "call_module")
    for node in list(graph_module.graph.nodes):
        norm = _module_of(graph_module, node)
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
            continue  # without running statistics it normalises with the batch, which cannot be folded
        layer_node = node.args[0]
        layer = _module_of(graph_module, layer_node)
        fused = None
        if layer is not None and calls[layer_node.target] == calls[node.target] == 1:
            readers = [user for user in layer_node.users if user is not node]
            # Only a feature output may read the layer beside its norm: it keeps the layer as it was.
            if all(reader.op == "output" for reader in readers):
                fused = _fuse(layer, norm)
        if fused is None:
            standalone = _as_depthwise(norm)
            if standalone is not None:
                graph_module.set_submodule(str(node.target), standalone)
        elif readers:
            graph_module.set_submodule(str(node.target), fused)
            node.args, node.kwargs = layer_node.args, layer_node.kwargs
        else:
            graph_module.set_submodule(str(layer_node.target), fused)
            node.replace_all_uses_with(layer_node)
            graph_module.graph.erase_node(node)


def _fuse(layer: nn.Module, norm: _BatchNorm) -> nn.Module | None:
    if isinstance(layer, _CONVS):
        return fuse_conv_bn_eval(layer, norm)
    if isinstance(layer, _TRANSPOSED):
        return fuse_conv_bn_eval(layer, norm, transpose=True)
    if isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
        return fuse_linear_bn_eval(layer, norm)
    return None


def _as_depthwise(norm: _BatchNorm) -> nn.Conv2d | None:
    """Return the 1×1 depthwise convolution that scales and shifts each channel as ``norm`` does."""
    if not isinstance(norm, nn.BatchNorm2d):
        return None
    channels = norm.num_features
    identity = nn.Conv2d(channels, channels, 1, groups=channels, bias=False).eval()
    nn.init.ones_(identity.weight)
    return fuse_conv_bn_eval(identity, norm)
