"""Which layer of the student learns from which layer of the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.distill.taps import Layer, Survey, survey
from edgekd.errors import ModelError, did_you_mean
from edgekd.recipe import Reads


@dataclass(frozen=True)
class Pair:
    """A student's layer and the teacher's layer it learns from."""

    student: Layer
    teacher: Layer

    def __str__(self) -> str:
        sides = f"{self.student.path} ({self.student.channels} ch) ← {self.teacher.path} ({self.teacher.channels} ch)"
        sizes = dict.fromkeys("×".join(map(str, layer.size)) for layer in (self.student, self.teacher) if layer.size)
        return f"{sides} at {' and '.join(sizes)}" if sizes else sides


def stages(found: Sequence[Layer]) -> list[Layer]:
    """The output of each stage: at every resolution the last of the outermost modules. Maps of one pixel are left out.

    Outermost, because a block's output is what the next block sees, while the layers inside it are the block's own affair.
    """
    best: dict[tuple[int, ...], Layer] = {}
    for layer in found:
        if layer.size not in best or layer.path.count(".") <= best[layer.size].path.count("."):
            best[layer.size] = layer
    order = {layer.path: index for index, layer in enumerate(found)}
    return sorted((layer for size, layer in best.items() if size != (1, 1)), key=lambda layer: order[layer.path])


def pair(
    student: nn.Module,
    teacher: nn.Module,
    example: Tensor,
    reads: Reads = "stages",
    chosen: Mapping[str, str] | None = None,
) -> tuple[Pair, ...]:
    """Pair layers of two networks.

    Stages of the same resolution are paired. Where no resolution agrees, stages are paired by their relative depth, and the
    larger map is pooled to the smaller.

    Args:
        student: The student.
        teacher: The teacher; the student itself where it learns from its own stages.
        example: Input, 1×C×S×S.
        reads: Which layers a loss compares.
        chosen: The user's own pairs, student path → teacher path, instead.

    Raises:
        ModelError: A path does not exist, or a network has no such layers.
    """
    ours = survey(student, example)
    theirs = ours if teacher is student else survey(teacher, example)
    if chosen is not None:
        pairs = tuple(Pair(_find(s, ours.layers, "student"), _find(t, theirs.layers, "teacher")) for s, t in chosen.items())
    elif reads == "embedding":
        return (Pair(_embedding(ours, "student"), _embedding(theirs, "teacher")),)
    elif reads == "last_map":
        return (Pair(_last_map(ours, "student"), _last_map(theirs, "teacher")),)
    elif reads == "own_stages":
        return _own(ours.layers)
    else:
        pairs = _by_resolution(ours.layers, theirs.layers)
        pairs = pairs[-1:] if reads == "last_stage" else pairs
    if reads != "preactivations":
        return pairs
    return tuple(
        Pair(ours.preactivations.get(p.student.path, p.student), theirs.preactivations.get(p.teacher.path, p.teacher))
        for p in pairs
    )


def _own(found: Sequence[Layer]) -> tuple[Pair, ...]:
    """Each stage with the last one of the same network."""
    own = stages(found)
    if len(own) < 2:
        raise ModelError("the student has no two stages, so none can learn from a deeper one", "use task alone")
    return tuple(Pair(layer, own[-1]) for layer in own[:-1])


def _by_resolution(ours: Sequence[Layer], theirs: Sequence[Layer]) -> tuple[Pair, ...]:
    student_stages, teacher_stages = stages(ours), stages(theirs)
    if not student_stages or not teacher_stages:
        raise ModelError("no feature maps to pair: the networks have no N×C×H×W outputs inside", "use kd alone")
    by_resolution = {layer.size: layer for layer in teacher_stages}
    same = [Pair(layer, by_resolution[layer.size]) for layer in student_stages if layer.size in by_resolution]
    if same:
        return tuple(same)
    count = min(len(student_stages), len(teacher_stages))
    return tuple(Pair(_at(student_stages, index, count), _at(teacher_stages, index, count)) for index in range(1, count + 1))


def _embedding(found: Survey, role: str) -> Layer:
    """What the classifier reads; without a linear layer the last map, whose pixels are averaged."""
    if found.embedding is not None:
        return found.embedding
    if not found.layers:
        raise ModelError(f"the {role} has no linear layer and no feature map to take an embedding from", "use kd alone")
    return stages(found.layers)[-1]


def _last_map(found: Survey, role: str) -> Layer:
    if found.last_map is None:
        raise ModelError(f"the {role} has no pooling over height and width, so no last map", "use kd")
    return found.last_map


def _at(found: Sequence[Layer], index: int, count: int) -> Layer:
    return found[round(index / count * len(found)) - 1]


def _find(path: str, found: Sequence[Layer], role: str) -> Layer:
    for layer in found:
        if layer.path == path:
            return layer
    raise ModelError(
        f"the {role} has no layer {path!r} that gives a feature map",
        did_you_mean(path, [layer.path for layer in found]),
    )
