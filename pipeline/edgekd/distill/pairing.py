"""Which layer of the student learns from which layer of the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.distill.taps import Layer, layers
from edgekd.errors import ModelError, did_you_mean


@dataclass(frozen=True)
class Pair:
    """A student's layer and the teacher's layer it learns from."""

    student: Layer
    teacher: Layer

    def __str__(self) -> str:
        (sc, sh, sw), (tc, th, tw) = self.student.shape, self.teacher.shape
        adapter = "" if sc == tc else f", 1×1 adapter {sc} → {tc}"
        size = f"{sh}×{sw}" if (sh, sw) == (th, tw) else f"{sh}×{sw} and {th}×{tw}"
        return f"{self.student.path} ({sc} ch) ← {self.teacher.path} ({tc} ch) at {size}{adapter}"


def stages(found: Sequence[Layer]) -> list[Layer]:
    """The output of each stage: at every resolution the last of the outermost modules. Maps of one pixel are left out.

    Outermost, because a block's output is what the next block sees, while the layers inside it are the block's own affair.
    """
    best: dict[tuple[int, int], Layer] = {}
    for layer in found:
        resolution = layer.shape[1:]
        if resolution not in best or layer.path.count(".") <= best[resolution].path.count("."):
            best[resolution] = layer
    order = {layer.path: index for index, layer in enumerate(found)}
    return sorted((layer for size, layer in best.items() if size != (1, 1)), key=lambda layer: order[layer.path])


def pair(
    student: nn.Module, teacher: nn.Module, example: Tensor, chosen: Mapping[str, str] | None = None
) -> tuple[Pair, ...]:
    """Pair layers of two networks.

    Stages of the same resolution are paired. Where no resolution agrees, stages are paired by their relative depth, and the
    larger map is pooled to the smaller.

    Args:
        student: The student.
        teacher: The teacher.
        example: Input, 1×C×S×S.
        chosen: The user's own pairs, student path → teacher path, instead.

    Raises:
        ModelError: A path does not exist, or a network has no feature maps.
    """
    ours, theirs = layers(student, example), layers(teacher, example)
    if chosen is not None:
        return tuple(Pair(_find(s, ours, "student"), _find(t, theirs, "teacher")) for s, t in chosen.items())
    student_stages, teacher_stages = stages(ours), stages(theirs)
    if not student_stages or not teacher_stages:
        raise ModelError("no feature maps to pair: the networks have no N×C×H×W outputs inside", "use kd alone")
    by_resolution = {layer.shape[1:]: layer for layer in teacher_stages}
    same = [Pair(layer, by_resolution[layer.shape[1:]]) for layer in student_stages if layer.shape[1:] in by_resolution]
    if same:
        return tuple(same)
    count = min(len(student_stages), len(teacher_stages))
    return tuple(Pair(_at(student_stages, index, count), _at(teacher_stages, index, count)) for index in range(1, count + 1))


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
