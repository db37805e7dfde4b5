"""Images from batch norms: the losses against the paper's formulas, and what is optimized."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.data.preprocessing import Preprocessing
from edgekd.distill import inversion
from edgekd.errors import ModelError
from edgekd.recipe.synthetic import Synthetic

SETTINGS = Synthetic(images=16, steps=30, batch_size=16)


def remembering(network: nn.Module) -> nn.Module:
    """A network whose batch norms have seen images."""
    generator = torch.Generator().manual_seed(3)
    network.train()
    for _ in range(20):
        network(0.5 + 2 * torch.randn((16, 3, 16, 16), generator=generator))
    return network.eval()


def made(network: nn.Module, seed: int = 0, mean: Any = (0.5,), std: Any = (0.25,), **changes: Any) -> Any:
    settings = SETTINGS.model_copy(update=changes)
    labels = torch.arange(16) % 4
    generator = torch.Generator().manual_seed(seed)
    rule = Preprocessing(mean, std, 3)
    return inversion.invert(network, labels, (16, 16), rule, settings, generator, lambda _steps, _note: None)


def distance(network: nn.Module, pixels: np.ndarray[Any, Any]) -> float:
    """R_feature of stored images."""
    x = (torch.from_numpy(pixels).float() / 255 - 0.5) / 0.25
    layers = inversion.norms(network)
    with torch.no_grad(), inversion.statistics(layers) as seen:
        network(x.expand(-1, 3, -1, -1))
    return float(inversion.feature_loss(layers, seen))


def test_the_statistics_are_compared_as_in_the_paper() -> None:
    """Eq. 4 in numpy: the norms of the differences of mean and (biased) variance, summed over the layers."""
    random = np.random.default_rng(0)
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(12)).double().eval()
    remembered = []
    for layer, channels in ((network[0], 3), (network[2], 12)):
        mean, var = random.normal(size=channels), random.uniform(0.5, 2, channels)
        layer.running_mean.copy_(torch.from_numpy(mean))
        layer.running_var.copy_(torch.from_numpy(var))
        remembered.append((mean, var))
    x = random.normal(size=(5, 3, 2, 2))
    (mean1, var1), (mean2, var2) = remembered
    behind = ((x - mean1.reshape(3, 1, 1)) / np.sqrt(var1.reshape(3, 1, 1) + 1e-5)).reshape(5, 12)
    expected = sum(
        np.sqrt(((found - wanted) ** 2).sum())
        for found, wanted in (
            (x.mean((0, 2, 3)), mean1), (x.var((0, 2, 3)), var1), (behind.mean(0), mean2), (behind.var(0), var2),
        )
    )  # fmt: skip
    layers = inversion.norms(network)
    with torch.no_grad(), inversion.statistics(layers) as seen:
        network(torch.from_numpy(x))
    assert float(inversion.feature_loss(layers, seen)) == pytest.approx(expected, rel=1e-12)


def test_statistics_are_no_longer_looked_at_afterwards() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3)).eval()
    with inversion.statistics(inversion.norms(network)) as seen:
        network(torch.zeros(2, 3, 4, 4))
    network(torch.zeros(2, 3, 4, 4))
    assert len(seen) == 1


def test_total_variation_looks_in_four_directions() -> None:
    x = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    total = 0.0
    for down, right in ((0, 1), (1, 0), (1, -1), (1, 1)):
        squares = 0.0
        for row in range(4 - down):
            for column in range(max(0, -right), 5 - max(0, right)):
                squares += ((x[:, :, row, column] - x[:, :, row + down, column + right]) ** 2).sum()
        total += np.sqrt(squares)
    assert float(inversion.total_variation(torch.from_numpy(x))) == pytest.approx(total, rel=1e-12)


def test_images_are_made_that_the_network_knows(small: Callable[..., nn.Module]) -> None:
    network = remembering(small())
    start, end = (made(network, steps=steps) for steps in (1, 60))
    assert end.dtype == np.uint8
    assert end.shape == (16, 3, 16, 16)
    assert distance(network, end) < 0.5 * distance(network, start)


def test_the_wanted_classes_are_found_in_them() -> None:
    """A network of colours: red, green, blue, and none of them."""
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
    with torch.no_grad():
        network[3].weight.copy_(torch.tensor([[5.0, -5, -5], [-5, 5, -5], [-5, -5, 5], [-5, -5, -5]]))
        network[3].bias.zero_()
    first, last = (made(network, steps=steps, bn=0.0) for steps in (1, 60))
    brightest = last.mean((2, 3)).argmax(1)
    assert brightest.reshape(4, 4)[:, :3].tolist() == [[0, 1, 2]] * 4
    assert last[3::4].mean() < first[3::4].mean() - 20


def test_the_seed_decides_every_byte_and_the_network_stays_as_it_is(small: Callable[..., nn.Module]) -> None:
    network = remembering(small())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first, again, other = made(network), made(network), made(network, seed=1)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_grey_images_have_one_channel(small: Callable[..., nn.Module]) -> None:
    assert made(remembering(small()), grey=True, steps=2).shape == (16, 1, 16, 16)


def test_flips_and_shifts_are_of_all_images_alike() -> None:
    x = torch.arange(2 * 16, dtype=torch.float32).reshape(2, 1, 4, 4)
    settings = Synthetic(jitter=1, flip=True)
    generator = torch.Generator().manual_seed(0)
    views = [inversion._view(x, settings, generator) for _ in range(40)]
    assert all(torch.equal(view[1] - view[0], torch.full_like(view[0], 16.0)) for view in views)
    assert len({tuple(view.flatten().tolist()) for view in views}) > 9  # 3 × 3 shifts, mirrored or not
    still = inversion._view(x, Synthetic(jitter=0), generator)
    assert torch.equal(still, x)


class Layered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Layered(), "this network has only LayerNorm"),
        (nn.Sequential(nn.Linear(2, 2)), "this network has none"),
        (nn.BatchNorm2d(3, track_running_stats=False), "this network has only BatchNorm2d"),
    ],
)
def test_a_network_without_batch_norm_is_refused(network: nn.Module, told: str) -> None:
    with pytest.raises(ModelError, match="images are synthesized from the statistics of batch norms") as caught:
        inversion.norms(network)
    assert told in str(caught.value)
    assert "source: images:DIR" in str(caught.value)
