"""Pairs of the networks that people distill: convolutional, transformer, and one into the other, at 32 and 224 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.unit.distill.vits import OwnViT, torchvision_vit
from torch import Tensor, nn

from edgekd.distill.outputs import Batch, Facts
from edgekd.distill.terms import Terms
from edgekd.errors import ModelError
from edgekd.models.torchvision import import_torchvision
from edgekd.recipe.distill import Distill
from edgekd.recipe.loss import Depth
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair, pair
from edgekd.taps.taps import Tapped, survey

LAYER = "encoder.layers.encoder_layer_"


def torchvision(name: str, **args: Any) -> nn.Module:
    network: nn.Module = import_torchvision().models.get_model(name, weights=None, num_classes=10, **args)
    return network


def swin(_: int, *depths: int) -> nn.Module:
    """swin_t but for its width."""
    depths = depths or (2, 2, 6, 2)
    network: nn.Module = import_torchvision().models.SwinTransformer(
        patch_size=[4, 4], embed_dim=12, depths=depths, num_heads=[1, 2, 4, 8][: len(depths)], window_size=[7, 7],
        num_classes=10,
    )  # fmt: skip
    return network


def vit_b_16(size: int, depth: int = 12) -> nn.Module:
    """vit_b_16 but for its width."""
    return torchvision_vit(depth=depth, heads=3, width=24, image=size, patch=16)


def vit_tiny(size: int) -> nn.Module:
    timm = pytest.importorskip("timm")
    network: nn.Module = timm.create_model("vit_tiny_patch16_224", img_size=size, embed_dim=12, num_classes=10)
    return network


Build = Callable[[int], nn.Module]
CASES: dict[str, tuple[Build, Build, dict[int, list[str]]]] = {
    "mobilenet_v2←resnet18": (
        lambda _: torchvision("mobilenet_v2", width_mult=0.25),
        lambda _: torchvision("resnet18"),
        {
            32: [
                "features.1 (8 ch) ← relu (64 ch) at 16×16",
                "features.3 (8 ch) ← layer1 (64 ch) at 8×8",
                "features.6 (8 ch) ← layer2 (128 ch) at 4×4",
                "features.13 (24 ch) ← layer3 (256 ch) at 2×2",
            ],
            224: [
                "features.1 (8 ch) ← relu (64 ch) at 112×112",
                "features.3 (8 ch) ← layer1 (64 ch) at 56×56",
                "features.6 (8 ch) ← layer2 (128 ch) at 28×28",
                "features.13 (24 ch) ← layer3 (256 ch) at 14×14",
                "features (1280 ch) ← layer4 (512 ch) at 7×7",
            ],
        },
    ),
    "resnet18←vit_b_16": (
        lambda _: torchvision("resnet18"),
        vit_b_16,
        {
            32: [
                f"layer1 (64 ch) ← {LAYER}3 (24 ch) at 8×8 and 2×2",
                f"layer2 (128 ch) ← {LAYER}7 (24 ch) at 4×4 and 2×2",
                f"layer3 (256 ch) ← {LAYER}11 (24 ch) at 2×2",
            ],
            224: [
                f"layer1 (64 ch) ← {LAYER}2 (24 ch) at 56×56 and 14×14",
                f"layer2 (128 ch) ← {LAYER}5 (24 ch) at 28×28 and 14×14",
                f"layer3 (256 ch) ← {LAYER}8 (24 ch) at 14×14",
                f"layer4 (512 ch) ← {LAYER}11 (24 ch) at 7×7 and 14×14",
            ],
        },
    ),
    "vit of 6←vit of 12": (
        lambda size: vit_b_16(size, 6),
        vit_b_16,
        {
            32: [f"{LAYER}{i} (24 ch) ← {LAYER}{2 * i + 1} (24 ch) at 2×2" for i in range(6)],
            224: [f"{LAYER}{i} (24 ch) ← {LAYER}{2 * i + 1} (24 ch) at 14×14" for i in range(6)],
        },
    ),
    "swin_t←resnet50": (
        swin,
        lambda _: torchvision("resnet50", width_per_group=16),
        {
            32: [
                "features.1 (12 ch) ← layer1 (256 ch) at 8×8",
                "features.3 (24 ch) ← layer2 (512 ch) at 4×4",
                "features.5 (48 ch) ← layer3 (1024 ch) at 2×2",
            ],
            224: [
                "features.1 (12 ch) ← layer1 (256 ch) at 56×56",
                "features.3 (24 ch) ← layer2 (512 ch) at 28×28",
                "features.5 (48 ch) ← layer3 (1024 ch) at 14×14",
                "permute (96 ch) ← layer4 (2048 ch) at 7×7",
            ],
        },
    ),
    "mobilenet_v3_small←convnext_tiny": (
        lambda _: torchvision("mobilenet_v3_small"),
        lambda _: torchvision("convnext_tiny"),
        {
            32: [
                "features.1 (16 ch) ← features.1 (96 ch) at 8×8",
                "features.3 (24 ch) ← features.3 (192 ch) at 4×4",
                "features.8 (48 ch) ← features.5 (384 ch) at 2×2",
            ],
            224: [
                "features.1 (16 ch) ← features.1 (96 ch) at 56×56",
                "features.3 (24 ch) ← features.3 (192 ch) at 28×28",
                "features.8 (48 ch) ← features.5 (384 ch) at 14×14",
                "features (576 ch) ← features (768 ch) at 7×7",
            ],
        },
    ),
    "timm's vit_tiny←vit_b_16": (
        vit_tiny,
        vit_b_16,
        {
            32: [f"blocks.{i} (12 ch) ← {LAYER}{i} (24 ch) at 2×2" for i in range(12)],
            224: [f"blocks.{i} (12 ch) ← {LAYER}{i} (24 ch) at 14×14" for i in range(12)],
        },
    ),
}


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("case", CASES)
def test_pairs(case: str, size: int) -> None:
    student, teacher, expected = CASES[case]
    assert [str(p) for p in pair(student(size), teacher(size), torch.zeros(1, 3, size, size))] == expected[size]


def test_stages_inside_a_row_stand_beside_the_stem() -> None:
    """timm's convnext: stem and stages.0 have one resolution, and the stem is one name less deep."""
    timm = pytest.importorskip("timm")
    found = survey(timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(4, 8, 16, 32)), torch.zeros(1, 3, 64, 64))
    assert [layer.path for layer in found.stages] == ["stages.0", "stages.1", "stages.2", "norm_pre"]


def test_blocks_behind_a_stem_of_convolutions() -> None:
    """The stem's resolutions are no stages of a transformer."""
    found = survey(OwnViT(depth=3), torch.zeros(1, 3, 16, 16))
    assert found.blocks == tuple(Layer(f"rows.{i}", (16, 4, 4), "tokens") for i in range(3))


class Inline(nn.Module):
    """A block that computes its attention itself."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(x.shape[0], 16, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        return x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_blocks_that_compute_their_attention_themselves() -> None:
    network = OwnViT()
    network.rows = nn.ModuleList((Inline(), Inline(), Inline()))
    found = survey(network, torch.zeros(1, 3, 16, 16))
    assert [layer.path for layer in found.blocks] == ["rows.0", "rows.1", "rows.2"]
    assert [str(layer) for layer in found.attentions] == [f"rows.{i} (2 heads of 8 ch)" for i in range(3)]


def test_attentions_are_paired_by_depth() -> None:
    pairs = pair(OwnViT(2), torchvision_vit(6, heads=4), torch.zeros(1, 3, 16, 16), "attention")
    assert [str(p) for p in pairs] == [
        f"rows.0.attention (2 heads of 8 ch) ← {LAYER}2.self_attention (4 heads of 4 ch)",
        f"rows.1.attention (2 heads of 8 ch) ← {LAYER}5.self_attention (4 heads of 4 ch)",
    ]


@pytest.mark.parametrize(
    ("depth", "of", "number"),
    [("early", 4, 1), ("middle", 4, 2), ("late", 4, 4), ("early", 12, 3), ("middle", 12, 6), ("late", 12, 12),
     ("early", 2, 1), ("middle", 2, 1), ("middle", 3, 2), ("early", 3, 1)],
)  # fmt: skip
def test_one_pair_of_a_depth(depth: Depth, of: int, number: int) -> None:
    network = torchvision_vit(of)
    (found,) = pair(network, network, torch.zeros(1, 3, 16, 16), "stages", depth)
    assert found.student.path == f"{LAYER}{number - 1}"


def test_a_depth_of_other_layers(small: Any) -> None:
    """early of a loss that compares the last stage, or embeddings, is early."""
    for reads in ("last_stage", "embedding"):
        assert [p.student.path for p in pair(small(), small(), torch.zeros(1, 3, 16, 16), reads, "early")] == ["stem"]


def test_attention_that_does_not_exist() -> None:
    with pytest.raises(ModelError) as caught:
        pair(OwnViT(), OwnViT(), torch.zeros(1, 3, 16, 16), "attention", {"rows.1": "rows.1.attention"})
    assert str(caught.value) == (
        "the student has no layer 'rows.1' that is a self-attention\n  → allowed: rows.0.attention, rows.1.attention"
    )


# --- features as maps -------------------------------------------------------------------------------------------------


def features(network: nn.Module, path: str, x: Tensor) -> tuple[Pair, Tensor]:
    """What a loss is given of the layer: the pair of it with itself, and the map."""
    seen: list[Tensor] = []
    terms = Terms(
        Distill.model_validate({"epochs": 1, "losses": [{"kind": "fitnet", "layers": {path: path}}]}).losses,
        network, network, x[:1], Facts(4, 2),
    )  # fmt: skip
    terms.adapters["fitnet"][0].register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    outputs = Tapped(network, (path,)).eval()(x)
    terms(outputs, outputs, Batch(torch.tensor([0, 1]), torch.arange(2)), 0)
    return terms.terms[0].pairs[0], seen[0]


def hooked(network: nn.Module, path: str, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    network.get_submodule(path).register_forward_hook(lambda _m, _i, out: seen.append(out))
    network.eval()(x)
    return seen[0]


def test_tokens_become_a_map_without_the_class_token() -> None:
    network = torchvision_vit(image=24).eval()  # 6×6 patches
    x = torch.randn(2, 3, 24, 24)
    tokens = hooked(network, f"{LAYER}0", x)
    found, feature = features(network, f"{LAYER}0", x)
    assert tokens.shape == (2, 37, 16)
    assert found.student == Layer(f"{LAYER}0", (16, 6, 6), "tokens")
    for row, column in ((0, 0), (0, 5), (3, 1), (5, 5)):
        torch.testing.assert_close(feature[:, :, row, column], tokens[:, 1 + 6 * row + column])


def test_register_tokens_are_no_patches() -> None:
    """2×2 patches, a class token and four registers: 9 tokens, which look like 3×3."""
    timm = pytest.importorskip("timm")
    network = timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=32, patch_size=16, embed_dim=12, num_heads=2, depth=2, num_classes=4
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    tokens = hooked(network, "blocks.1", x)
    found, feature = features(network, "blocks.1", x)
    assert tokens.shape == (2, 9, 12)
    assert found.student.shape == (12, 2, 2)
    torch.testing.assert_close(feature.flatten(2).transpose(1, 2), tokens[:, 5:])


@pytest.mark.parametrize("size", [32, 48])
def test_nhwc_is_permuted(size: int) -> None:
    """Also where it has as many channels as pixels a side, so that its shape says nothing: 12×12×12 at 48 pixels."""
    network = swin(size, 1, 1).eval()
    x = torch.randn(2, 3, size, size)
    for path in ("features.1", "features.3"):
        value = hooked(network, path, x)
        found, feature = features(network, path, x)
        assert found.student.form == "nhwc"
        torch.testing.assert_close(feature, value.permute(0, 3, 1, 2))


def test_a_cnn_with_as_many_channels_as_pixels() -> None:
    found = survey(nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Flatten()), torch.zeros(1, 3, 16, 16))
    assert [layer.form for layer in found.layers] == ["map", "map"]


def test_modules_with_a_number_at_the_end_keep_it() -> None:
    """torchvision's tracer calls ln_2 ln_1, and ln_1 ln."""
    network = torchvision_vit().eval()
    x = torch.randn(2, 3, 16, 16)
    for path in (f"{LAYER}0.ln_1", f"{LAYER}0.ln_2"):
        assert torch.equal(Tapped(network, (path,)).eval()(x)[1], hooked(network, path, x))


def test_embeddings_of_transformers() -> None:
    """The class token, or the pooled tokens, that the head reads."""
    x = torch.randn(2, 3, 16, 16)
    pooled, token = OwnViT().eval(), torchvision_vit().eval()
    (found,) = pair(pooled, token, x[:1], "embedding")
    for network, layer in ((pooled, found.student), (token, found.teacher)):
        head: Any = network.get_submodule("head" if network is pooled else "heads.head")
        logits, feature = Tapped(network, (layer.tap,)).eval()(x)
        assert layer.shape == (16,)
        torch.testing.assert_close(head(feature), logits)


class PerToken(nn.Module):
    """Classifies each token and then takes the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.patches(x).flatten(2).transpose(1, 2)).mean(1)


def test_embeddings_of_a_head_on_tokens_are_their_mean() -> None:
    network = PerToken().eval()
    (found,) = pair(network, network, torch.zeros(1, 3, 16, 16), "embedding")
    assert found.student.shape[0] == 8
    assert found.student.form == "tokens"
