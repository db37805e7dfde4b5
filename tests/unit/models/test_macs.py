"""Parameters and multiplications, counted by hand."""

from __future__ import annotations

import pytest
import torch
from tests.unit.models.given import DATA
from torch import nn

from edgekd.models import build
from edgekd.task.image_classification import purpose


def test_macs_and_parameters_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # 32·32·8·3·9
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),  # 16·16·8·9
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),  # 40
    )
    net.train()
    assert build.macs(net, purpose(DATA).signature) == 32 * 32 * 8 * 27 + 16 * 16 * 8 * 9 + 40
    assert build.parameters(net) == 216 + 80 + 45
    assert net.training


class Query(nn.Module):
    """Attention pooling with a learned query that is expanded to the batch, as in SigLIP, CaiT and DETR."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.query, self.q = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.randn(1, 1, 8)), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).flatten(2).transpose(1, 2)
        scores = self.q(self.query.expand(len(y), -1, -1)) @ y.transpose(1, 2)
        return (scores.softmax(-1) @ y)[:, 0]


class Sequence(nn.Module):
    """A layer of sequences on 16 tokens of 8."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv2d(3, 8, 8, 8), layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).flatten(2).transpose(1, 2)
        out = self.layer(y, y, y) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(y)
        return out[0] if isinstance(out, tuple) else out


CONV = 16 * 8 * 3 * 64


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Query(), CONV + 8 * 8 + 2 * 16 * 8),
        (Sequence(nn.MultiheadAttention(8, 2, batch_first=True)), CONV + 16 * 8 * 32 + 2 * 16 * 16 * 8),
        (Sequence(nn.TransformerEncoderLayer(8, 2, 24, batch_first=True)), CONV + 16 * 8 * (32 + 48) + 2 * 16 * 16 * 8),
        (Sequence(nn.LSTM(8, 8, batch_first=True)), CONV + 16 * 4 * 8 * 16),
        (Sequence(nn.GRU(8, 8, batch_first=True)), CONV + 16 * 3 * 8 * 16),
    ],
    ids=["learned query", "attention", "transformer", "lstm", "gru"],
)
def test_macs_of_fused_kernels_and_of_expanded_parameters(network: nn.Module, expected: int) -> None:
    assert build.macs(network, purpose(DATA).signature) == expected
    assert all(parameter.requires_grad for parameter in network.parameters())
