from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import QuantizeError
from edgekd.quantize.fold import fold


def settled(net: nn.Module) -> nn.Module:
    """The net with norms that do something."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def norms_and_dropouts(net: nn.Module) -> int:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout)
    return sum(isinstance(module, kinds) for module in net.modules())


def test_norms_go_into_layers_and_values_stay() -> None:
    net = settled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Flatten(), nn.Linear(8 * 36, 16), nn.BatchNorm1d(16), nn.Linear(16, 4),
        )
    )  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folded = fold(net)
    torch.testing.assert_close(folded(x), net(x))
    assert norms_and_dropouts(folded) == 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), "the input was changed"


def test_norm_without_a_layer_becomes_depthwise() -> None:
    net = settled(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1)))
    folded = fold(net)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(folded(x), net(x))
    assert norms_and_dropouts(folded) == 0


class TappedBeforeNorm(nn.Module):
    def __init__(self, used_again: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.used_again = used_again

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.conv(x)
        logits = self.norm(feature).relu()
        return (logits + feature if self.used_again else logits).mean((2, 3)), feature


@pytest.mark.parametrize("used_again", [False, True])
def test_output_before_a_norm_keeps_its_value(used_again: bool) -> None:
    net = settled(TappedBeforeNorm(used_again))
    x = torch.randn(2, 3, 8, 8)
    folded = fold(net)
    for out, expected in zip(folded(x), net(x), strict=True):
        torch.testing.assert_close(out, expected)
    assert norms_and_dropouts(folded) == 0


def test_layer_called_twice_is_not_folded_into() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(self.norm(self.conv(x)))
            return out

    net = settled(Twice())
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(fold(net)(x), net(x))


def test_untraceable_model_is_told_in_words() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(QuantizeError, match=r"Branching cannot be traced"):
        fold(Branching())
