"""Small transformers for the tests of this folder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.models.torchvision import import_torchvision


def torchvision_vit(depth: int = 2, heads: int = 2, width: int = 16, image: int = 16, patch: int = 4) -> nn.Module:
    """torchvision's VisionTransformer: ``nn.MultiheadAttention`` and a class token."""
    network: nn.Module = import_torchvision().models.VisionTransformer(
        image_size=image, patch_size=patch, num_layers=depth, num_heads=heads, hidden_dim=width, mlp_dim=2 * width,
        num_classes=4,
    )  # fmt: skip
    nn.init.normal_(network.heads.head.weight, std=0.1)  # torchvision starts from zeros
    return network


class Attention(nn.Module):
    """Self-attention written out, as many do."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        weights = self.drop(torch.softmax(self.scale * q @ k.transpose(-2, -1), dim=-1))
        return (weights @ v).transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.attention(self.norm(x)))


class OwnViT(nn.Module):
    """A hand-written one without class token, behind two convolutions: 16×16 pixels become 4×4 tokens."""

    def __init__(self, depth: int = 2, heads: int = 2, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1))
        self.rows = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.rows:
            x = block(x)
        return self.head(self.norm(x).mean(1))
