"""Networks by name, and what does not fit the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.models.given import DATA, text_of
from torch import nn

from edgekd.errors import ModelError
from edgekd.models import build
from edgekd.recipe.data import Data
from edgekd.task.image_classification import purpose


@pytest.mark.parametrize(
    ("source", "args"),
    [
        ("torchvision:mobilenet_v2", {"width_mult": 0.35}),
        ("edgekd:resnet10", {"width": 8, "stem_stride": 2}),
        ("edgekd:resnet18", {"width": 8}),
    ],
)
def test_build_fits_the_data(source: str, args: dict[str, Any]) -> None:
    model = build.network(source, args, purpose(DATA, 7))
    assert model(build.one_input(purpose(DATA).signature, 2)).shape == (2, 7)
    assert model.training


def test_build_timm() -> None:
    pytest.importorskip("timm")
    assert build.network("timm:mobilenetv3_small_050", {}, purpose(DATA, 5))(
        build.one_input(purpose(DATA).signature, 2)
    ).shape == (2, 5)


def test_timm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)  # Python's own way to say: cannot be imported
    assert text_of(ModelError, lambda: build.network("timm:x", {}, purpose(DATA, 5))) == (
        "timm is not installed\n  → pip install 'edgekd[timm]'"
    )


def test_build_is_random_as_seeded() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build.network("edgekd:resnet10", {"width": 8}, purpose(DATA, 5)).get_parameter("stem.0.weight")

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_no_activation_works_in_place() -> None:
    """A tapped feature would be overwritten by the activation after it."""
    model = build.network("torchvision:mobilenet_v2", {"width_mult": 0.35}, purpose(DATA, 5))
    assert any(isinstance(module, nn.ReLU6) for module in model.modules())
    assert not any(getattr(module, "inplace", False) for module in model.modules())


def test_unknown_models() -> None:
    assert text_of(ModelError, lambda: build.network("torchvision:mobilnet_v2", {}, purpose(DATA, 5))) == (
        "there is no model torchvision:mobilnet_v2\n  → did you mean mobilenet_v2?"
    )
    assert text_of(ModelError, lambda: build.network("edgekd:resnet10x", {}, purpose(DATA, 5))) == (
        "there is no model edgekd:resnet10x\n  → did you mean resnet10?"
    )


def test_detection_models_are_not_offered() -> None:
    names = build.names("torchvision")
    assert "mobilenet_v2" in names
    assert not any("rcnn" in name or "raft" in name for name in names)


def test_wrong_args() -> None:
    text = text_of(ModelError, lambda: build.network("edgekd:resnet10", {"widht": 8}, purpose(DATA, 5)))
    assert text.startswith("edgekd:resnet10 cannot be built with {'num_classes': 5, 'widht': 8}: ")
    assert "unexpected keyword argument 'widht'" in text


def test_class_count_that_does_not_fit(tmp_path: Path) -> None:
    own = tmp_path / "net.py"
    own.write_text("from torch import nn\n\n\ndef Net():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))\n")
    assert text_of(
        ModelError, lambda: build.network("edgekd:resnet10", {"num_classes": 3, "width": 8}, purpose(DATA, 5))
    ) == (
        "edgekd:resnet10 gives (1, 3) for one image; the data has 5 classes, so (1, 5) is needed\n"
        "  → remove num_classes from args: the data tells it, or correct the data"
    )
    assert "set num_classes in args, or correct the data" in text_of(
        ModelError, lambda: build.network(f"{own}:Net", {}, purpose(DATA, 5))
    )


def test_images_that_do_not_fit() -> None:
    grey = Data(source="fashion-mnist-mini", image_size=32, channels=1)
    text = text_of(ModelError, lambda: build.network("torchvision:resnet18", {}, purpose(grey, 5)))
    assert text.startswith("torchvision:resnet18 cannot run on 1×32×32 images: ")
    assert text.endswith("\n  → write data: {channels: 3}, or correct the model")
    large = Data(source="fashion-mnist-mini", image_size=8)
    text = text_of(ModelError, lambda: build.network("torchvision:densenet121", {}, purpose(large, 5)))
    assert text.endswith("\n  → correct data.image_size, data.channels or the model")


def test_example_is_always_the_same() -> None:
    assert torch.equal(build.one_input(purpose(DATA).signature, 2), build.one_input(purpose(DATA).signature, 2))
    assert build.one_input(purpose(Data(source="fashion-mnist-mini", image_size=20, channels=1)).signature).shape == (
        1,
        1,
        20,
        20,
    )
