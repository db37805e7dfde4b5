from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models import build
from edgekd.recipe.data import Data
from edgekd.taps.pairing import pair
from edgekd.task.image_classification import purpose

DATA = Data(source="fashion-mnist-mini", image_size=32)

EXPECTED = {
    "torchvision:mobilenet_v2": [
        "features.1 (16 ch) ← layer1 (32 ch) at 16×16",
        "features.3 (24 ch) ← layer2 (64 ch) at 8×8",
        "features.6 (32 ch) ← layer3 (128 ch) at 4×4",
        "features.13 (96 ch) ← layer4 (256 ch) at 2×2",
    ],
    "torchvision:resnet18": [
        "relu (64 ch) ← layer1 (32 ch) at 16×16",
        "layer1 (64 ch) ← layer2 (64 ch) at 8×8",
        "layer2 (128 ch) ← layer3 (128 ch) at 4×4",
        "layer3 (256 ch) ← layer4 (256 ch) at 2×2",
    ],
    "torchvision:mobilenet_v3_small": [
        "features.0 (16 ch) ← layer1 (32 ch) at 16×16",
        "features.1 (16 ch) ← layer2 (64 ch) at 8×8",
        "features.3 (24 ch) ← layer3 (128 ch) at 4×4",
        "features.8 (48 ch) ← layer4 (256 ch) at 2×2",
    ],
}


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    return build.network("edgekd:resnet10", {"width": 32, "stem_stride": 2}, purpose(DATA, 10))


@pytest.mark.parametrize("source", EXPECTED)
def test_stages_of_the_same_resolution(source: str, teacher: nn.Module) -> None:
    pairs = pair(build.network(source, {}, purpose(DATA, 10)), teacher, build.one_input(purpose(DATA).signature))
    assert [str(p) for p in pairs] == EXPECTED[source]


class Odd(nn.Module):
    """Three stages of 12, 10 and 8 pixels at 36."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, stride=3)
        self.b = nn.Conv2d(4, 6, 3)
        self.c = nn.Conv2d(6, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)).relu()).mean((2, 3))


def test_no_common_resolution_pairs_by_depth(small: Any) -> None:
    pairs = pair(Odd(), small(), torch.zeros(1, 3, 36, 36))
    assert [str(p) for p in pairs] == [
        "a (4 ch) ← stem (4 ch) at 12×12 and 36×36",
        "b (6 ch) ← down1 (8 ch) at 10×10 and 18×18",
        "c (8 ch) ← down2 (16 ch) at 8×8 and 9×9",
    ]


def test_the_last_stages_are_always_paired(small: Any) -> None:
    """Two stages against three: the middle and the end, not the beginning."""

    two = nn.Sequential(nn.Conv2d(3, 4, 3, 5), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert [(p.student.path, p.teacher.path) for p in pair(two, small(), torch.zeros(1, 3, 33, 33))] == [
        ("0", "down1"),
        ("1", "down2"),
    ]


def test_the_users_own_pairs(small: Any) -> None:
    pairs = pair(small(), small(width=2), torch.zeros(1, 3, 16, 16), chosen={"down2": "down1", "stem.0": "stem"})
    assert [str(p) for p in pairs] == [
        "down2 (16 ch) ← down1 (4 ch) at 4×4 and 8×8",
        "stem.0 (4 ch) ← stem (2 ch) at 16×16",
    ]


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({"down3": "down1"}, "the student has no layer 'down3' that gives a feature map\n  → did you mean down2?"),
        ({"down1": "stm"}, "the teacher has no layer 'stm' that gives a feature map\n  → did you mean stem?"),
    ],
)
def test_wrong_pairs(small: Any, chosen: dict[str, str], text: str) -> None:
    with pytest.raises(ModelError) as caught:
        pair(small(), small(), torch.zeros(1, 3, 16, 16), chosen=chosen)
    assert str(caught.value) == text


def test_a_network_without_maps(small: Any) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 4))
    with pytest.raises(ModelError) as caught:
        pair(flat, small(), torch.zeros(1, 3, 16, 16))
    assert str(caught.value) == ("no feature maps to pair: the student has no maps and no tokens inside\n  → use kd alone")


def test_embeddings_are_what_the_classifier_reads() -> None:
    """Before dropout, after pooling."""
    v2, r18 = (build.network(f"torchvision:{name}", {}, purpose(DATA, 10)) for name in ("mobilenet_v2", "resnet18"))
    (found,) = pair(v2, r18, build.one_input(purpose(DATA).signature), "embedding")
    assert str(found) == "flatten (1280 ch) ← flatten (512 ch)"


def test_a_network_without_a_linear_layer_has_its_last_map_as_embedding(small: Any) -> None:
    convolutional = nn.Sequential(
        nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    (found,) = pair(convolutional, small(), torch.zeros(1, 3, 16, 16), "embedding")
    assert (found.student.path, found.student.shape) == ("2", (4, 8, 8))
    assert found.teacher.shape == (16,)


def test_preactivations(small: Any) -> None:
    pairs = pair(small(), small(), torch.zeros(1, 3, 16, 16), "preactivations")
    assert [p.student.path for p in pairs] == ["stem.1", "down1.0", "down2.0"]


def test_the_last_stage(small: Any) -> None:
    assert [p.student.path for p in pair(small(), small(), torch.zeros(1, 3, 16, 16), "last_stage")] == ["down2"]
