"""Images synthesized from a network alone: DeepInversion (Yin et al. 2020, Dreaming to Distill)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from edgekd.data.preprocessing import Preprocessing
from edgekd.errors import ModelError
from edgekd.recipe.synthetic import Synthetic

Advance = Callable[[int, str], None]


def norms(network: nn.Module) -> tuple[_BatchNorm, ...]:
    """The batch norms of a network that remember the statistics of its training images.

    Raises:
        ModelError: There is none.
    """
    found = tuple(m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None)
    if not found:
        kinds = sorted({type(m).__name__ for m in network.modules() if "norm" in type(m).__name__.lower()})
        raise ModelError(
            f"images are synthesized from the statistics of batch norms, and this network has "
            f"{'only ' + ', '.join(kinds) if kinds else 'none'}",
            "give a network with batch norm, or images without labels: source: images:DIR",
        )
    return found


@contextmanager
def statistics(layers: Sequence[_BatchNorm]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """A list that each forward pass adds the (mean, variance) of the input of each layer to, a number a channel.

    The variance is over the number of values, not one less. Clear the list before each pass.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def look(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        var, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
        seen.append((mean, var))

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def feature_loss(layers: Sequence[_BatchNorm], seen: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """R_feature: ``Σ_l ‖μ_l(x) − μ_l‖₂ + Σ_l ‖σ²_l(x) − σ²_l‖₂`` with each layer's running mean and variance."""
    terms = []
    for layer, (mean, var) in zip(layers, seen, strict=True):
        assert layer.running_mean is not None  # norms() chooses layers with statistics
        assert layer.running_var is not None  # a layer has both or none
        terms += [torch.linalg.vector_norm(mean - layer.running_mean), torch.linalg.vector_norm(var - layer.running_var)]
    return torch.stack(terms).sum()


def total_variation(x: Tensor) -> Tensor:
    """R_TV: the norms of the differences of N×C×H×W between neighbours, in four directions."""
    neighbours = (
        (x[..., :, :-1], x[..., :, 1:]),
        (x[..., :-1, :], x[..., 1:, :]),
        (x[..., 1:, :-1], x[..., :-1, 1:]),
        (x[..., :-1, :-1], x[..., 1:, 1:]),
    )
    return torch.stack([torch.linalg.vector_norm(a - b) for a, b in neighbours]).sum()


def invert(
    network: nn.Module, labels: Tensor, size: tuple[int, int], rule: Preprocessing, settings: Synthetic,
    generator: torch.Generator, advance: Advance,
) -> NDArray[np.uint8]:  # fmt: skip
    """Optimize one batch of images: ``L(x, y) + α_tv R_TV + α_l2 ‖x‖₂ + α_f R_feature``.

    After each step pixels are kept between black and white, so that what is stored is what was optimized, but for rounding.

    Args:
        network: In eval mode; it is left as it is. On the device to compute on.
        labels: The wanted classes, int64 (N).
        size: Height and width.
        rule: Channels and normalization that the network was trained with.
        settings: Weights and steps.
        generator: Of the first noise, the shifts and the flips; on the CPU, so that every device draws alike.
        advance: Told after each step: images done, and the loss in words.

    Returns:
        N×C×H×W, with one channel where the images are grey.

    Raises:
        ModelError: The network has no batch norm.
    """
    layers = norms(network)
    device = next(network.parameters()).device
    labels = labels.to(device)
    centre, scale = (
        torch.tensor(tuple(v), dtype=torch.float32, device=device).reshape(-1, 1, 1) for v in (rule.mean, rule.std)
    )
    stored = 1 if settings.grey else rule.channels
    x = torch.randn((len(labels), stored, *size), generator=generator).to(device).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=settings.lr, betas=(0.5, 0.9))
    black, white = -centre / scale, (1 - centre) / scale
    frozen = [p for p in network.parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    with statistics(layers) as seen:
        for step in range(settings.steps):
            view = _view(x, settings, generator)
            seen.clear()
            logits = network(view.expand(-1, rule.channels, -1, -1))
            told = F.cross_entropy(logits, labels)
            features = feature_loss(layers, seen)
            loss = settings.label * told + settings.bn * features
            loss = loss + settings.tv * total_variation(view) + settings.l2 * torch.linalg.vector_norm(view)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                x.copy_(torch.maximum(torch.minimum(x, white), black))
            last = step + 1 == settings.steps
            advance(len(labels), f"label {told.item():.2f}, bn {features.item():.2f}" if last or not step % 20 else "")
    for parameter in frozen:
        parameter.requires_grad_(True)
    pixels = ((x.detach() * scale + centre) * 255).round().clamp(0, 255)
    return pixels.to(torch.uint8).cpu().numpy()


def _view(x: Tensor, settings: Synthetic, generator: torch.Generator) -> Tensor:
    """All images shifted by the same few pixels, and mirrored or not."""
    most = settings.jitter
    down, right = (int(v) for v in torch.randint(-most, most + 1, (2,), generator=generator))
    mirrored = settings.flip and bool(torch.rand((), generator=generator) < 0.5)
    view = torch.roll(x, (down, right), (2, 3))
    return view.flip(3) if mirrored else view
