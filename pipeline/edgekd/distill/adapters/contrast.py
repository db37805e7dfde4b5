"""The memory of contrastive distillation: an embedding of every training image, in both networks."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

EPSILON = 1e-7
"""Keeps a quotient finite (as in the authors' code)."""


class Contrast(nn.Module):
    """Embeddings of student and teacher, and a memory of both (Tian et al. 2020, §3; the memory is Wu et al.'s of 2018).

    Args:
        channels: Widths of the embeddings of student and teacher.
        images: Number of training images.
        labels: Their classes, int64 (images), or None.
        width: Of what both are mapped to and compared in.
        negatives: Images each one is compared with.
        temperature: τ, which similarities are divided by.
        momentum: Share of an image's memory that stays when it is seen again.
    """

    memory: Tensor  # (2, images, width): the student's and the teacher's embeddings
    constants: Tensor  # (2): what makes the scores of student and teacher sum to about 1 over all images; 0: not known yet
    order: Tensor  # (images): the images, one class after the other
    first: Tensor  # (classes): where a class begins in that order
    count: Tensor  # (classes): how many there are of it

    def __init__(
        self, channels: tuple[int, int], images: int, labels: Tensor | None, *,
        width: int, negatives: int, temperature: float, momentum: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.student = nn.Linear(channels[0], width)
        self.teacher = nn.Linear(channels[1], width)
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        limit = (width / 3) ** -0.5  # uniform rows of length 1, in the mean
        self.register_buffer("memory", torch.rand(2, images, width) * 2 * limit - limit)
        self.register_buffer("constants", torch.zeros(2))
        if labels is None or (labels == labels[0]).all():  # no image of another class: every image is a class
            labels = torch.arange(images)
        count = labels.bincount()
        for name, table in (("order", labels.argsort(stable=True)), ("first", count.cumsum(0) - count), ("count", count)):
            self.register_buffer(name, table, persistent=False)
        self.register_buffer("labels", labels.clone(), persistent=False)

    def draw(self, images: Tensor) -> Tensor:
        """Return images of other classes than ``images`` (int64, N): int64, N×negatives, each drawn independently."""
        own = self.get_buffer("labels")[images]
        first, count = self.first[own].unsqueeze(1), self.count[own].unsqueeze(1)
        # the class is taken out of the order, a place is drawn in the rest, and what lies behind the gap moves on
        place = torch.randint(2**62, (len(images), self.negatives), device=images.device) % (len(self.order) - count)
        return self.order[place + count * (place >= first)]

    def forward(self, student: Tensor, teacher: Tensor, images: Tensor, negatives: Tensor) -> Tensor:
        """Return the loss of a batch, and remember its embeddings.

        Args:
            student: The student's embeddings, N×ours.
            teacher: The teacher's, N×theirs.
            images: Which images they are of, int64, N.
            negatives: What each is compared with, int64, N×negatives.
        """
        chosen = torch.cat((images.unsqueeze(1), negatives), dim=1)
        with torch.autocast(student.device.type, enabled=False):  # e to the power of x/τ is too steep for half precision
            dtype = self.memory.dtype
            embeddings = [
                F.normalize(F.linear(x.to(dtype), layer.weight, layer.bias))
                for x, layer in ((student, self.student), (teacher, self.teacher))
            ]
            # each is compared with the other network's memory, a copy of it: backward comes after remembering
            scores = [
                (embedding @ other.t()).gather(1, chosen).div(self.temperature).exp()
                for embedding, other in zip(embeddings, self.memory.flip(0), strict=True)
            ]
            if not self.constants.all():
                self.constants.copy_(torch.stack([_everyone(score.detach().mean()[None]).mean() for score in scores]))
                self.constants.mul_(len(self.order))
            loss = torch.stack([
                _noise_contrast(score / constant, len(self.order))
                for score, constant in zip(scores, self.constants.clone(), strict=True)
            ]).sum()  # fmt: skip
            self._remember(torch.stack(embeddings).detach(), images)
        return loss

    def _remember(self, embeddings: Tensor, images: Tensor) -> None:
        seen = _everyone(images)
        new = torch.stack([_everyone(embedding) for embedding in embeddings])
        kept = self.memory[:, seen] * self.momentum + new * (1 - self.momentum)
        self.memory[:, seen] = F.normalize(kept, dim=2)


def _noise_contrast(scores: Tensor, images: int) -> Tensor:
    """Noise-contrastive estimation with a uniform noise: which of the scores, N×(1 + negatives), is the positive's?"""
    noise = (scores.shape[1] - 1) / images
    total = scores + noise + EPSILON
    found = scores[:, :1] / total[:, :1]
    return -(found.log().sum() + (noise / total[:, 1:]).log().sum()) / len(scores)


def _everyone(part: Tensor) -> Tensor:
    """What all training processes have, one after the other: their memories stay the same."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return part
    parts = [torch.empty_like(part) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)
