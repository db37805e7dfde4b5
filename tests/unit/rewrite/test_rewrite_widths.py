"""Widths are rounded up, and the network computes what it did."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import ModelError
from edgekd.models import build
from edgekd.quantization import qat
from edgekd.recipe.data import Data
from edgekd.recipe.student import Rewrite
from edgekd.rewrite import rewrite, widths
from edgekd.task.image_classification import purpose

DATA = Data(source="fashion-mnist-mini", image_size=32)
X = build.one_input(purpose(DATA).signature, 2)


class Joined(nn.Module):
    """A residual sum, squeeze-excite, a concatenation, a depthwise convolution and a grouped one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 10, 3, 2, 1, bias=False), nn.BatchNorm2d(10), nn.SiLU())
        self.depthwise = nn.Conv2d(10, 10, 3, padding=1, groups=10)
        self.squeeze = nn.Conv2d(10, 3, 1)
        self.excite = nn.Conv2d(3, 10, 1)
        self.other = nn.Conv2d(10, 13, 1)
        self.norm = nn.BatchNorm2d(23)
        self.to_groups = nn.Conv2d(23, 12, 1)
        self.grouped = nn.Conv2d(12, 6, 1, groups=3)
        self.hidden = nn.Linear(6, 9)
        self.head = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        y = y * torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = self.norm(torch.cat([x + y, self.other(y)], 1))
        x = self.grouped(F.relu(self.to_groups(x))).mean((2, 3))
        logits: Tensor = self.head(F.relu(self.hidden(x)))
        return logits


def trained(net: nn.Module) -> nn.Module:
    """Statistics and affine parameters that are not those of a fresh network."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def shapes(net: nn.Module) -> dict[str, tuple[int, int]]:
    return {
        path: (module.in_channels, module.out_channels) if isinstance(module, nn.Conv2d) else
        (module.in_features, module.out_features)
        for path, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }  # fmt: skip


def test_widths_that_belong_together_grow_together() -> None:
    net = trained(Joined())
    with torch.no_grad():
        before = net(X)
    widened, left = widths.round_up(net, 8, X)
    assert shapes(net) == {
        "stem.0": (3, 16), "depthwise": (16, 16), "squeeze": (16, 8), "excite": (8, 16), "other": (16, 16),
        "to_groups": (32, 12), "grouped": (12, 6), "hidden": (6, 16), "head": (16, 5),
    }  # fmt: skip
    assert net.depthwise.groups == 16
    assert widened == ("stem.0", "depthwise", "squeeze", "excite", "other", "hidden")
    assert left == ("to_groups at 12 channels: read by grouped", )  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(net(X), before, atol=1e-5, rtol=1e-5)
    assert qat.prepare(net, X[:1]).float_ops == ()


def test_new_channels_can_learn() -> None:
    net = Joined()
    widths.round_up(net, 8, X)
    net.train()
    for _ in range(2):  # what reads the new channels starts at zero; after one step they have a gradient as well
        net.zero_grad()
        net(X).square().sum().backward()
        assert net.other.weight.grad is not None
        first = net.to_groups.weight.grad[:, 16 + 13 :]
        assert first.abs().sum() > 0
        torch.optim.SGD(net.parameters(), 0.1).step()
    assert net.other.weight.grad[13:].abs().sum() > 0


@pytest.mark.parametrize("source", ["torchvision:mobilenet_v2", "torchvision:mobilenet_v3_small", "torchvision:resnet18"])
def test_library_networks_have_good_widths_but_for_squeeze_excite(source: str) -> None:
    net = trained(build.network(source, {}, purpose(DATA, 10)))
    before = shapes(net)
    assert widths.round_up(net, 8, X) == ((), ())
    assert shapes(net) == before


@pytest.mark.parametrize("source", ["torchvision:efficientnet_b0", "torchvision:mnasnet0_5"])
def test_library_networks_are_rounded_to_sixteen_and_stay_the_same(source: str) -> None:
    net = trained(build.network(source, {}, purpose(DATA, 10)))
    with torch.no_grad():
        before = net(X)
    widened, left = widths.round_up(net, 16, X)
    assert left == ()
    assert widened
    with torch.no_grad():
        torch.testing.assert_close(net(X), before, atol=1e-4, rtol=1e-4)
    made = [out for path, (_, out) in shapes(net).items() if not path.startswith("classifier")]
    assert all(out % 16 == 0 for out in made)


def test_what_goes_through_an_unknown_operator_keeps_its_width() -> None:
    net = build.network("torchvision:shufflenet_v2_x1_0", {}, purpose(DATA, 10)).eval()
    with torch.no_grad():
        before = net(X)
    found = rewrite(net, Rewrite(round_channels=8), X)
    assert any("at 58 channels: read by" in reason for reason in found.left)
    with torch.no_grad():
        assert torch.equal(found.model(X), before)


def test_tied_weights_stay_tied() -> None:
    net = nn.Sequential(nn.Conv2d(3, 10, 3), nn.ReLU(), nn.Conv2d(10, 10, 1), nn.ReLU(), nn.Conv2d(10, 10, 1), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5)).eval()  # fmt: skip
    net[4].weight = net[2].weight
    found = rewrite(net, Rewrite(round_channels=8), X)
    assert found.model.get_submodule("4").weight is found.model.get_submodule("2").weight
    assert any("whose weight is tied" in reason for reason in found.left)


def test_it_is_told() -> None:
    net = nn.Sequential(nn.Conv2d(3, 10, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5))
    found = rewrite(net, Rewrite(round_channels=8), X)
    assert [str(change) for change in found.changes] == ["channels → multiples of 8: 1 place"]
    again = rewrite(net, Rewrite(round_channels=8), X)  # nothing is left to do: that is what was asked for
    assert [str(change) for change in again.changes] == ["channels → multiples of 8: 0 places"]


def test_a_network_that_cannot_be_traced() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match="student.rewrite.round_channels: Branching cannot be traced"):
        rewrite(Branching(), Rewrite(round_channels=8), X)
