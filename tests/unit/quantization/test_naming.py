"""What a user reads of a graph names the module and the real operator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import QuantizeError
from edgekd.quantization import ptq, qat
from edgekd.quantization.footprint import footprint
from edgekd.recipe.quantize import Ptq
from edgekd.results.layers import LayerRecord
from edgekd.results.runtime import FloatOperation

X = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))


class Body(nn.Module):
    """A convolution, something else, and a classifier in a module of its own."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.conv, self.fc, self.what = nn.Conv2d(3, 8, 3), nn.Linear(8, 10), what

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.what(self.conv(x)))
        return out


class Net(nn.Module):
    def __init__(self, what: Any) -> None:
        super().__init__()
        self.body = Body(what)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x).sigmoid()
        return out


class Recurrent(nn.Module):
    """Rows of the map as a sequence."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.rnn = kind(80, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1]
        return out


def top(x: Tensor) -> Tensor:
    values, _ = x.flatten(2).topk(4, -1)
    return values.mean(-1)


def test_the_operator_of_several_results_is_named_once() -> None:
    assert qat.prepare(Net(top).eval(), X[:1]).float_ops == (
        FloatOperation("body", "topk", "topk", "no int8 rule for topk"),
    )
    ops = qat.prepare(Net(Recurrent(nn.LSTM)).eval(), X[:1]).float_ops
    assert list(map(str, ops)) == ["body.what.rnn lstm (%lstm): no int8 rule for lstm"]


def test_what_is_in_no_module_has_a_name_that_keep_float_takes() -> None:
    record = LayerRecord("add_5", "", "add", 1.0, 1.0, 1.0, "output")
    assert record.label == "forward() add (%add_5)"
    ops = qat.prepare(Net(lambda x: x.mean((2, 3))).eval(), X[:1], keep_float=["%sigmoid"]).float_ops
    assert list(map(str, ops)) == ["forward() sigmoid (%sigmoid): kept in float"]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_weights_that_stay_float_are_counted(kind: Any) -> None:
    net = Net(Recurrent(kind))
    found = footprint(qat.prepare(net.eval(), X[:1]).module)
    rnn = sum(parameter.numel() for parameter in net.body.what.parameters())
    assert found.float32 == 4 * rnn
    assert found.int8 == 3 * 8 * 9 + 80
    assert found.share == 4 * rnn / (4 * rnn + found.int8)
    assert [name.split()[0] for name, _ in found.holders] == ["body.what.rnn"]
    assert found.kept == 0


def test_weights_that_are_kept_in_float_are_told_apart() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    prepared = qat.prepare(net.eval(), X[:1], keep_float=["2"])
    found = footprint(prepared.module, prepared.float_ops)
    assert (found.int8, found.float32, found.kept) == (216, 4 * (16 + 576 + 8), 4 * (576 + 8))


def test_norms_hold_little_float() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.GroupNorm(2, 32), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    found = footprint(qat.prepare(net.eval(), X[:1]).module)
    assert (found.float32, found.int8) == (4 * 64, 32 * 27 + 32 * 32 * 9)


def test_dropout_that_is_left_on() -> None:
    def message(net: nn.Module) -> str:
        with pytest.raises(QuantizeError, match="other values each time it is called") as caught:
            qat.prepare(net.eval(), X[:1])
        return str(caught.value)

    assert "body dropout (%native_dropout)" in message(Net(lambda x: F.dropout(x.mean((2, 3)), 0.5)))

    class Always(nn.Dropout):
        def train(self, mode: bool = True) -> nn.Module:
            return super().train(True)

    assert "training=self.training" in message(nn.Sequential(nn.Conv2d(3, 8, 3), Always(), nn.Flatten(), nn.Linear(800, 10)))


def test_a_mask_of_infinity_is_called_a_mask() -> None:
    hidden = torch.rand(10, 10, generator=torch.Generator().manual_seed(0)) < 0.3
    prepared = qat.prepare(Net(lambda x: x.masked_fill(hidden, -torch.inf).amax((2, 3))).eval(), X[:1])
    with pytest.raises(QuantizeError, match="gives -inf, as a mask does") as caught:
        ptq.quantize(prepared.module, X, Ptq(method="ptq"))
    assert "body masked_fill" in str(caught.value)
    assert "masked_fill(mask, -24.0)" in caught.value.hint
    added = torch.where(hidden, -torch.inf, 0.0)
    with pytest.raises(QuantizeError, match=r"body add \(%\w+\) reads a constant of -inf, as a mask has"):
        qat.prepare(Net(lambda x: (x + added).amax((2, 3))).eval(), X[:1])
