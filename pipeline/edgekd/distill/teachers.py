"""Teachers that are not one network in torch: several of them, files, stored outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.preprocessing import Preprocessing
from edgekd.taps.pairing import Pair
from edgekd.taps.taps import Tapped
from edgekd.task.named import Inputs, call

Array = NDArray[np.float32]
Given: TypeAlias = "Inputs | Sequence[Tensor]"
"""Inputs of every teacher; or the images that each of them sees, in turn."""
Rule = Literal["probabilities", "logits", "confidence", "losses"]


@dataclass(frozen=True)
class Combination:
    """Combines the logits of several teachers into those of one.

    Attributes:
        rule: ``logits``: their mean. ``probabilities``: the mean of ``softmax(z / T)``, as logits. ``confidence``: the same
            mean with a weight for each teacher and image, from the teacher's cross-entropy with the label (CA-MKD, Zhang et
            al. 2022, Confidence-Aware Multi-Teacher Knowledge Distillation):
            ``w_k = (1 - exp(L_k) / Σ_j exp(L_j)) / (K - 1)``. ``losses``: they stay apart, and a term is the mean of its
            values with each; where one network is needed, it is that of ``probabilities``.
        temperature: T. A kd loss of the same temperature sees exactly the mean of the softened probabilities.
    """

    rule: Rule = "probabilities"
    temperature: float = 1.0

    def __call__(self, logits: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return logits N×classes from N×teachers×classes; without labels (int64, N) all teachers weigh the same."""
        logits = logits.float()
        if self.rule == "logits":
            return logits.mean(1)
        weights = torch.full_like(logits[:, :, 0], 1 / logits.shape[1])
        if self.rule == "confidence" and labels is not None:
            weights = confidences(logits, labels)
        t = self.temperature
        return t * torch.logsumexp(weights.clamp_min(1e-30).log()[:, :, None] + F.log_softmax(logits / t, 2), 1)


def confidences(logits: Tensor, labels: Tensor) -> Tensor:
    """Weights of teachers (N×teachers, of sum 1) from their logits (N×teachers×classes) and the labels (int64, N)."""
    losses = -F.log_softmax(logits, 2).gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1)).squeeze(2)
    return (1 - losses.softmax(1)) / (logits.shape[1] - 1)


class Ensemble(nn.Module):
    """Several teachers as one network, whose logits are combined."""

    takes_names = True

    def __init__(self, members: Mapping[str, nn.Module], combination: Combination) -> None:
        super().__init__()
        self.members = nn.ModuleDict(members)
        self.combination = combination

    def forward(self, inputs: Given) -> Tensor:
        """Return the combined logits, N×classes, as far as they can be combined without labels."""
        members = list(self.members.values())
        return self.combination(
            torch.stack([call(member, own) for member, own in zip(members, _each(inputs, members), strict=True)], 1)
        )


class TappedEnsemble(nn.Module):
    """An ensemble that returns the logits of each member, N×members×classes, and features.

    Args:
        ensemble: The teachers.
        paths: Layers whose outputs are wanted, each as member.path.
    """

    takes_names = True

    def __init__(self, ensemble: Ensemble, paths: Sequence[str]) -> None:
        super().__init__()
        found = [path.partition(".") for path in paths]
        wanted = {name: [path for member, _, path in found if member == name] for name in ensemble.members}
        self.members = nn.ModuleDict({name: Tapped(member, wanted[name]) for name, member in ensemble.members.items()})
        self._places = [(name, 1 + wanted[name].index(path)) for name, _, path in found]

    def forward(self, inputs: Given) -> tuple[Tensor, ...]:
        """Return all logits and the features in the order of the paths."""
        each = _each(inputs, self.members)
        outputs = {name: call(member, own) for (name, member), own in zip(self.members.items(), each, strict=True)}
        logits = torch.stack([output[0] for output in outputs.values()], 1)
        return (logits, *(outputs[name][place] for name, place in self._places))


def _each(inputs: Given, members: Sized) -> Sequence[Inputs]:
    """Return the inputs of each member."""
    return [inputs] * len(members) if isinstance(inputs, Tensor | Mapping) else inputs


def tapped(teacher: nn.Module, paths: Sequence[str]) -> nn.Module:
    """A teacher that returns ``(logits, *features)``; several, where it is an ensemble."""
    return TappedEnsemble(teacher, paths) if isinstance(teacher, Ensemble) else Tapped(teacher, paths)


def member(teacher: nn.Module, name: str | None) -> nn.Module:
    """The teacher that a loss names."""
    return cast(Ensemble, teacher).members[name] if name is not None else teacher


def belonging(pairs: Sequence[Pair], name: str | None) -> tuple[Pair, ...]:
    """The pairs with the teacher's layers as :class:`TappedEnsemble` knows them."""
    if name is None:
        return tuple(pairs)
    return tuple(replace(p, teacher=replace(p.teacher, path=f"{name}.{p.teacher.path}")) for p in pairs)


def largest(teacher: nn.Module) -> nn.Module:
    """The teacher, or the member of an ensemble, with the most parameters."""
    members = list(teacher.members.values()) if isinstance(teacher, Ensemble) else [teacher]
    return max(members, key=lambda network: sum(p.numel() for p in network.parameters()))


class BlackBox(nn.Module):
    """A network of which only the outputs are known.

    Args:
        call: From float32 N×C×S×S, normalized as it was trained with, to float32 N×classes.
        seen: The preprocessing of the images that it is given.
        own: That of its training.
        probabilities: Whether it gives probabilities; their logarithms are then its logits.
    """

    def __init__(
        self, call: Callable[[Array], Array], seen: Preprocessing, own: Preprocessing, *, probabilities: bool = False
    ) -> None:
        super().__init__()
        self._call, self._seen, self._probabilities = call, seen, probabilities
        self._trained_with(own)

    def trained_with(self, own: Preprocessing) -> BlackBox:
        """The same, as if its images had been normalized in another way in its training."""
        other = copy.copy(self)
        other._trained_with(own)
        return other

    def _trained_with(self, own: Preprocessing) -> None:
        self._turned = self._seen.onto(own)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits N×classes on the device of the images, without a gradient."""
        images = x.detach().float().cpu()
        if self._turned is not None:
            scale, shift = (torch.from_numpy(part) for part in self._turned)
            images = images * scale + shift
        return logits_of(torch.from_numpy(self._call(images.contiguous().numpy())), self._probabilities).to(x.device)


class Stored(nn.Module):
    """Outputs of a teacher that is not at hand; :class:`edgekd.distill.terms.Terms` looks them up by the images' indices.

    Args:
        train: Primary output for the training samples, N×…, in the order of the split; of a task with classes logits.
        val: Of the validation images.
        test: Of the test images, where they are known.
    """

    def __init__(self, train: Tensor, val: Tensor, test: Tensor | None) -> None:
        super().__init__()
        self.train_logits, self.val_logits, self.test_logits = train, val, test

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return what stands for the outputs until the samples are known by their indices: zeros, N×…."""
        return torch.zeros(len(inputs[0]), *self.train_logits.shape[1:], device=inputs[0].device)


def logits_of(outputs: Tensor, probabilities: bool) -> Tensor:
    """Logits of outputs that are logits or probabilities."""
    return outputs.clamp_min(1e-12).log() if probabilities else outputs


def is_open(teacher: nn.Module) -> bool:
    """Return whether its layers and its size are known."""
    return not any(isinstance(module, BlackBox | Stored) for module in teacher.modules())
