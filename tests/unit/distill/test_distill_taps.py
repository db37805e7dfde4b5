from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import ModelError
from edgekd.models import build
from edgekd.recipe.data import Data
from edgekd.taps.layer import Layer
from edgekd.taps.taps import Tapped, survey
from edgekd.task.image_classification import purpose

DATA = Data(source="fashion-mnist-mini", image_size=32)


def hooked(network: nn.Module, paths: tuple[str, ...], x: Tensor) -> tuple[Tensor, ...]:
    """Logits and features by forward hooks: the independent way."""
    seen: dict[str, Tensor] = {}
    handles = [
        network.get_submodule(path).register_forward_hook(lambda _m, _i, out, path=path: seen.__setitem__(path, out))
        for path in paths
    ]
    logits = network(x)
    for handle in handles:
        handle.remove()
    return (logits, *(seen[path] for path in paths))


@pytest.mark.parametrize(
    ("source", "args", "paths"),
    [
        ("torchvision:mobilenet_v2", {"width_mult": 0.35}, ("features.6", "features.1", "features.13.conv.0")),
        ("torchvision:resnet18", {}, ("layer1", "layer1.0.conv1", "layer4.1")),
        ("torchvision:mobilenet_v3_small", {}, ("features.1.block.1", "features.8")),
        ("edgekd:resnet10", {"width": 8}, ("layer2.0.shortcut", "stem")),
    ],
)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_features_are_those_of_hooks(source: str, args: dict[str, Any], paths: tuple[str, ...], mode: str) -> None:
    torch.manual_seed(0)
    network = build.network(source, args, purpose(DATA, 5))
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = build.one_input(purpose(DATA).signature, 4)
    network.train(mode == "train")
    expected = hooked(network, paths, x)
    found = Tapped(network, paths).train(mode == "train")(x)
    assert len(found) == 1 + len(paths)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_weights_are_shared(small: Any) -> None:
    network = small().eval()
    tapped = Tapped(network, ("down1",)).eval()
    x = torch.randn(2, 3, 16, 16)
    before = tapped(x)[0]
    with torch.no_grad():
        network.head.bias.add_(5)
    torch.testing.assert_close(tapped(x)[0], before + 5)
    assert {id(p) for p in tapped.parameters()} == {id(p) for p in network.parameters()}


def test_state_has_the_names_of_the_network(small: Any) -> None:
    """So that weights trained through taps load into the plain network."""
    network = small()
    assert set(Tapped(network, ("down1",)).network.state_dict()) == set(network.state_dict())


def test_without_taps_any_network_will_do() -> None:
    tapped = Tapped(Branching())
    x = torch.randn(2, 3, 16, 16)
    assert len(tapped(x)) == 1
    assert torch.equal(tapped(x)[0], tapped.network(x))


class Branching(nn.Module):
    """Control flow that depends on the data: cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if x.mean() > 0:
            x = -x
        return x.mean((2, 3))


def test_untraceable_network() -> None:
    with pytest.raises(ModelError) as caught:
        Tapped(Branching(), ("body",))
    assert caught.value.message.startswith("Branching cannot be traced, so no feature can be taken from it: ")
    assert caught.value.hint == "feature losses need a forward without data-dependent control flow; kd needs no features"


def test_unknown_layer(small: Any) -> None:
    with pytest.raises(ModelError) as caught:
        Tapped(small(), ("down",))
    assert str(caught.value) == "there is no layer 'down' in Small\n  → did you mean down2?"


def test_the_output_is_no_feature(small: Any) -> None:
    with pytest.raises(ModelError) as caught:
        Tapped(small(), ("head",))
    assert str(caught.value) == "layer 'head' is the output itself\n  → choose an earlier layer"


def test_dropout_follows_the_mode(small: Any) -> None:
    network = small(dropout=0.5)
    tapped = Tapped(network, ("stem",))
    x = torch.randn(8, 3, 16, 16)
    tapped.train()
    assert not torch.equal(tapped(x)[0], tapped(x)[0])
    tapped.eval()
    assert torch.equal(tapped(x)[0], tapped(x)[0])
    assert torch.equal(tapped(x)[0], network.eval()(x))


class ByMode(nn.Module):
    """Another graph in each mode, as networks with stochastic depth have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.extra = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        if self.training:
            x = self.extra(x)
        return self.head(x.mean((2, 3)))


def test_each_mode_has_its_own_graph() -> None:
    network = ByMode()
    tapped = Tapped(network, ("conv",))
    x = torch.randn(2, 3, 8, 8)
    for training in (True, False):
        network.train(training)
        tapped.train(training)
        assert torch.equal(tapped(x)[0], network(x))


def test_a_module_and_the_last_one_inside_it(small: Any) -> None:
    """down1 and down1.1 are the same tensor; asking for both must not shift one of them to another node."""
    network = small().eval()
    x = torch.randn(2, 3, 16, 16)
    for paths in (("down1", "down1.1"), ("down1.1", "down1"), ("stem.2", "stem", "down1")):
        expected = hooked(network, paths, x)
        for ours, theirs in zip(Tapped(network, paths).eval()(x), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_a_module_used_twice() -> None:
    """One activation module for all places, as in torchvision's ResNet: the block's output is the second use."""
    network = build.network("torchvision:resnet18", {}, purpose(DATA, 5)).eval()
    x = build.one_input(purpose(DATA).signature)
    logits, feature = Tapped(network, ("layer1.0",)).eval()(x)
    assert torch.equal(feature, hooked(network, ("layer1.0",), x)[1])
    assert torch.equal(logits, network(x))


def test_layers_have_the_shapes_hooks_see() -> None:
    network = build.network("torchvision:mobilenet_v2", {"width_mult": 0.35}, purpose(DATA, 5)).eval()
    x = build.one_input(purpose(DATA).signature)
    found = {layer.path: layer.shape for layer in survey(network, x).layers}
    assert len(found) > 100
    shapes: dict[str, Any] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: shapes.__setitem__(name, tuple(out.shape[1:])))
    network(x)
    assert found == {name: shape for name, shape in shapes.items() if name and len(shape) == 3}


def test_layers_keep_the_mode(small: Any) -> None:
    network = small()
    survey(network, torch.zeros(1, 3, 16, 16))
    assert network.training


def test_a_module_that_ends_flat_is_no_feature_map() -> None:
    """Its last map is inside; the module's own output is N×features."""
    network = nn.Sequential()
    network.add_module("body", nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten()))
    network.add_module("head", nn.Linear(4 * 64, 5))
    found = survey(network, torch.zeros(1, 3, 16, 16)).layers
    assert found == (Layer("body.0", (4, 8, 8)), Layer("body.1", (4, 8, 8)))


class InPlace(nn.Module):
    """Every kind of operator that writes into its operand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 1)
        self.third = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.act(self.first(x)))
        y += 100
        z = F.relu(self.third(y).neg_(), inplace=True)
        return z.mean((2, 3))


@pytest.mark.parametrize("training", [True, False])
def test_what_comes_behind_does_not_write_into_a_feature(training: bool) -> None:
    torch.manual_seed(0)
    network = InPlace().train(training)
    x = torch.randn(2, 3, 4, 4)
    first = network.first(x)
    second = network.second(first.relu())
    third = network.third(second + 100)
    logits, *features = Tapped(network, ("first", "second", "third")).train(training)(x)
    for feature, expected in zip(features, (first, second, third), strict=True):
        torch.testing.assert_close(feature, expected)
    torch.testing.assert_close(logits, network(x))
