"""A student that ends in the teacher's classifier: another network, which all stages build in the same way."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from edgekd.errors import ModelError
from edgekd.models.torchvision import import_torchvision
from edgekd.taps.layer import Layer
from edgekd.taps.pooling import last_pooled
from edgekd.taps.taps import survey

_RECTIFIERS = (nn.ReLU, nn.ReLU6, F.relu, F.relu6, torch.relu, "relu")


class Reused(nn.Module):
    """The student up to its last map, a projector, and the teacher's end, which is not trained (SimKD, Chen et al. 2022).

    Args:
        backbone: Returns the last map.
        projector: The last map to one of the teacher's width.
        classifier: The teacher's, from its pooling on.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Sequential, classifier: fx.GraphModule) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = projector
        self.classifier = classifier.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×S×S to N×classes."""
        logits: Tensor = self.classifier(self.projector(self.backbone(x)))
        return logits

    @property
    def cost(self) -> str:
        """Parameters that are added to the backbone, in words."""
        projector, classifier = (sum(p.numel() for p in part.parameters()) for part in (self.projector, self.classifier))
        return f"{projector:,} parameters of a projector and {classifier:,} of the teacher's classifier, shipped with it"


def reuse(student: nn.Module, teacher: nn.Module, example: Tensor, *, reduction: int, depthwise: bool) -> Reused:
    """Give a student the teacher's end; its weights come by ``adopt``.

    Args:
        student: The student; its modules are shared, without those behind its last map.
        teacher: A network like the teacher.
        example: Input, 1×C×S×S.
        reduction: The projector's inner width is the teacher's divided by it (r).
        depthwise: Whether the projector's 3×3 convolution takes each channel by itself.

    Raises:
        ModelError: A network has no pooling, or the teacher's end does not take the student's maps or cannot stay as it is.
    """
    ours, theirs = _last_map("student", student, example), _last_map("teacher", teacher, example)
    classifier, rectified = _end(teacher)
    projector = _projector(ours.channels, theirs.channels, reduction, depthwise=depthwise, rectified=rectified)
    made = Reused(_backbone(student), projector, classifier)
    try:
        with torch.no_grad():
            made.eval()(example)
    except RuntimeError as error:
        sizes = " and ".join("×".join(map(str, layer.size)) for layer in (ours, theirs))
        raise ModelError(
            f"the teacher's classifier cannot read the student's last map ({sizes} pixels in student and teacher): {error}",
            "use a teacher that pools to one pixel for any size, or kd",
        ) from error
    return made.train()


def adopt(student: Reused, teacher: nn.Module) -> None:
    """Copy the trained teacher's end into the student."""
    student.classifier.load_state_dict(_end(teacher)[0].state_dict())


def _last_map(role: str, network: nn.Module, example: Tensor) -> Layer:
    found = survey(network, example).last_map
    if found is None:
        raise ModelError(f"the {role} has no pooling over height and width in front of its classifier", "use kd")
    return found


def _traced(network: nn.Module, training: bool) -> tuple[fx.Graph, fx.Node]:
    """A network's graph in one of its modes, and its last map."""
    before = network.training
    graph = import_torchvision().models.feature_extraction.NodePathTracer().trace(network.train(training))
    network.train(before)
    last = last_pooled(graph, dict(network.named_modules()))
    assert last is not None  # reuse() refuses networks without one before this
    return graph, last


def _without_dead(graph: fx.Graph) -> fx.Graph:
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in {"output", "placeholder"}:
            graph.erase_node(node)
    return graph


def _backbone(student: nn.Module) -> nn.Module:
    """The student up to its last map, a graph for each mode."""
    graphs = []
    for training in (True, False):
        graph, last = _traced(student, training)
        graph.output_node().args = (last,)
        graphs.append(_without_dead(graph))
    made: nn.Module = import_torchvision().models.feature_extraction.DualGraphModule(student, *graphs)
    return made


def _end(teacher: nn.Module) -> tuple[fx.GraphModule, bool]:
    """A copy of the teacher from its last pooling on, without dropout; and whether what it reads is never negative."""
    modules, kind = dict(teacher.named_modules()), type(teacher).__name__
    graph, last = _traced(teacher, training=False)
    rectified = (type(modules[str(last.target)]) if last.op == "call_module" else last.target) in _RECTIFIERS
    (image,) = (node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_before(image):
        last.replace_all_uses_with(graph.placeholder("feature"))
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(modules[node.target], nn.Dropout | nn.Identity):
            node.replace_all_uses_with(node.all_input_nodes[0])
    _without_dead(graph)
    if image.users:
        raise ModelError(f"the layers after the last pooling of {kind} read more than the last map", "use kd")
    graph.erase_node(image)
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    normed = next((path for path in called if isinstance(modules[path], _BatchNorm)), None)
    if normed:
        raise ModelError(f"{kind} has batch norm behind its last pooling, {normed}, which training would change", "use kd")
    return copy.deepcopy(fx.GraphModule(teacher, graph)), rectified


def _projector(ours: int, theirs: int, reduction: int, *, depthwise: bool, rectified: bool) -> nn.Sequential:
    """1×1, 3×3 and 1×1 convolutions with batch norm and ReLU (SimKD, Chen et al. 2022).

    The last ReLU only where the teacher's map has passed one: it could not reach values below zero.
    """
    inner = max(1, theirs // reduction)
    return nn.Sequential(
        nn.Conv2d(ours, inner, 1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, inner, 3, padding=1, groups=inner if depthwise else 1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, theirs, 1, bias=False),
        nn.BatchNorm2d(theirs),
        *([nn.ReLU()] if rectified else []),
    )
