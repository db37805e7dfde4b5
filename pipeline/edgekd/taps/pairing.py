"""Pair layers of the student with layers of the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.errors import ModelError, did_you_mean
from edgekd.recipe.loss import Depth, Reads
from edgekd.taps.layer import Layer
from edgekd.taps.taps import Survey, survey


@dataclass(frozen=True)
class Pair:
    """A student's layer and the teacher's layer it learns from."""

    student: Layer
    teacher: Layer

    def __str__(self) -> str:
        sizes = dict.fromkeys("×".join(map(str, layer.size)) for layer in (self.student, self.teacher) if layer.size)
        return f"{self.student} ← {self.teacher}" + (f" at {' and '.join(sizes)}" if sizes else "")


def pair(
    student: nn.Module,
    teacher: nn.Module,
    example: Tensor,
    reads: Reads = "stages",
    chosen: Mapping[str, str] | Depth | None = None,
) -> tuple[Pair, ...]:
    """Pair layers of two networks.

    Stages of the same resolution are paired. Where most resolutions differ, or the images do, or a network has one
    resolution alone (a plain vision transformer), stages are paired by their relative depth, the last with the last, and the
    larger map is pooled to the smaller. So are self-attentions.

    Args:
        student: The student.
        teacher: The teacher; the student itself where it learns from its own stages.
        example: Input, 1×C×S×S.
        reads: Which layers a loss compares.
        chosen: Instead of all pairs: the one at a relative depth, or the user's own, student path → teacher path.

    Raises:
        ModelError: A path does not exist, or a network has no such layers.
    """
    ours = survey(student, example)
    return match(ours, ours if teacher is student else survey(teacher, example), reads, chosen)


def match(
    ours: Survey, theirs: Survey, reads: Reads = "stages", chosen: Mapping[str, str] | Depth | None = None
) -> tuple[Pair, ...]:
    """Pair layers of the student, whose survey is ``ours``, and the teacher, as ``pair`` does."""
    if isinstance(chosen, Mapping):
        pairs = tuple(Pair(_find(s, ours, "student", reads), _find(t, theirs, "teacher", reads)) for s, t in chosen.items())
    elif reads == "embedding" and chosen is None:
        return (Pair(_embedding(ours, "student"), _embedding(theirs, "teacher")),)
    elif reads == "last_map":
        return (Pair(_last_map(ours, "student"), _last_map(theirs, "teacher")),)
    elif reads == "own_stages":
        pairs = _own(ours)
    elif reads == "attention":
        pairs = _by_depth(_attentions(ours, "student"), _attentions(theirs, "teacher"))
    else:
        pairs = _by_resolution(ours, theirs)
        pairs = pairs[-1:] if reads == "last_stage" and chosen is None else pairs
    if isinstance(chosen, str):
        pairs = (pairs[_DEPTHS[chosen](len(pairs)) - 1],)
    if reads != "preactivations":
        return pairs
    return tuple(
        Pair(ours.preactivations.get(p.student.path, p.student), theirs.preactivations.get(p.teacher.path, p.teacher))
        for p in pairs
    )


_DEPTHS = {"early": lambda count: -(-count // 4), "middle": lambda count: -(-count // 2), "late": lambda count: count}
"""The pair at a quarter, a half and the whole of the depth, counted from 1."""


def _own(found: Survey) -> tuple[Pair, ...]:
    """Each stage with the last one of the same network."""
    own = found.blocks or found.stages
    if len(own) < 2:
        raise ModelError("the student has no two stages, so none can learn from a deeper one", "use task alone")
    return tuple(Pair(layer, own[-1]) for layer in own[:-1])


def _by_resolution(ours: Survey, theirs: Survey) -> tuple[Pair, ...]:
    student_stages, teacher_stages = ours.blocks or ours.stages, theirs.blocks or theirs.stages
    for role, found in (("student", student_stages), ("teacher", teacher_stages)):
        if not found:
            raise ModelError(f"no feature maps to pair: the {role} has no maps and no tokens inside", "use kd alone")
    if not ours.blocks and not theirs.blocks and ours.image == theirs.image:
        by_resolution = {layer.size: layer for layer in teacher_stages}
        same = [Pair(layer, by_resolution[layer.size]) for layer in student_stages if layer.size in by_resolution]
        if 2 * len(same) >= min(len(student_stages), len(teacher_stages)):
            return tuple(same)
    return _by_depth(_without_stem(student_stages, ours), _without_stem(teacher_stages, theirs))


def _by_depth(ours: Sequence[Layer], theirs: Sequence[Layer]) -> tuple[Pair, ...]:
    """As many pairs as the shorter row has layers, even over both, the last with the last (as Jiao et al. 2020)."""
    count = min(len(ours), len(theirs))

    def at(row: Sequence[Layer], number: int) -> Layer:
        return row[round(number / count * len(row)) - 1]

    return tuple(Pair(at(ours, number), at(theirs, number)) for number in range(1, count + 1))


def _without_stem(found: Sequence[Layer], whole: Survey) -> Sequence[Layer]:
    """Without a first layer that stands alone in front of stages of several."""
    single = [not any(other.path.startswith(f"{layer.path}.") for other in whole.layers) for layer in found]
    return found[1:] if single[0] and not all(single) else found


def _attentions(found: Survey, role: str) -> tuple[Layer, ...]:
    if not found.attentions:
        raise ModelError(
            f"the {role} has no self-attention that can be read: nn.MultiheadAttention, scaled_dot_product_attention or "
            "softmax(q @ k.transpose(-2, -1)) @ v, without mask or position bias",
            "fitnet and attention_transfer compare feature maps of any two networks",
        )
    return found.attentions


def _embedding(found: Survey, role: str) -> Layer:
    """What the classifier reads; without a linear layer the last map, whose pixels are averaged."""
    if found.embedding is not None:
        return found.embedding
    if not found.layers:
        raise ModelError(f"the {role} has no linear layer and no feature map to take an embedding from", "use kd alone")
    return (found.stages or found.layers)[-1]


def _last_map(found: Survey, role: str) -> Layer:
    if found.last_map is None:
        raise ModelError(f"the {role} has no pooling over height and width, so no last map", "use kd")
    return found.last_map


def _find(path: str, found: Survey, role: str, reads: Reads) -> Layer:
    layers = _attentions(found, role) if reads == "attention" else found.layers
    for layer in layers:
        if layer.path == path:
            return layer
    what = "is a self-attention" if reads == "attention" else "gives a feature map"
    raise ModelError(f"the {role} has no layer {path!r} that {what}", did_you_mean(path, [layer.path for layer in layers]))
