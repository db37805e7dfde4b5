from __future__ import annotations

import pytest
import torch
from tests.unit.exporting.nets import Residual, images
from torch import Tensor, fx, nn

from edgekd.errors import QuantizeError
from edgekd.progress import Silent
from edgekd.quantization import ptq, qat
from edgekd.quantization.calibrate import activations, calibrate, check
from edgekd.quantization.histogram import Histogram, minmax, percentile
from edgekd.recipe.quantize import Ptq


def run(module: fx.GraphModule, x: Tensor, choose: object = minmax, student: nn.Module | None = None) -> None:
    with Silent().task("", 1) as task:
        calibrate(module, x, choose, task, student)  # type: ignore[arg-type]


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


def test_every_range_is_the_float_networks() -> None:
    net, x = residual(), images(150)
    module = qat.prepare(net, images(1)).module
    run(module, x)
    with torch.no_grad():
        stem = net.stem(x)
        logits = net(x)
    ranges = {name: child.activation_post_process for child, name in activations(module).items()}
    assert ranges["x"].max_val == x.max()
    assert ranges["x"].min_val == x.min()
    assert ranges["relu"].max_val == pytest.approx(float(stem.max()), rel=1e-5)
    assert ranges["relu"].min_val == 0
    scale, _ = qat.output_scale(module)
    span = max(float(logits.max()), 0.0) - min(float(logits.min()), 0.0)
    assert scale == pytest.approx(span / 255, rel=1e-4)


def test_rounding_is_on_and_ranges_are_fixed_afterwards() -> None:
    module = qat.prepare(residual(), images(1)).module
    run(module, images(64))
    before = qat.state(module)
    with torch.no_grad():
        first = module(images(8) * 100)
    assert all(torch.equal(value, before[name]) for name, value in qat.state(module).items())
    step, _ = qat.output_scale(module)
    torch.testing.assert_close(first / step, (first / step).round(), atol=1e-3, rtol=0)


def test_order_and_batches_do_not_matter_and_runs_agree() -> None:
    states = []
    for x in (images(200), images(200), images(200).flip(0)):
        module = qat.prepare(residual(), images(1)).module
        run(module, x, percentile)
        states.append(qat.state(module))
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])
        torch.testing.assert_close(value, states[2][name], rtol=1e-4, atol=1e-6)


class Joined(nn.Module):
    """A wide and a narrow tensor that share a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return torch.cat([y.relu(), y.mul(20.0)], 1).flatten(1)


def test_a_shared_histogram_holds_the_values_of_all_its_tensors() -> None:
    torch.manual_seed(0)
    net, x = Joined().eval(), images(32)
    module = qat.prepare(net, images(1)).module
    seen: list[Histogram] = []

    def look(histogram: Histogram) -> tuple[float, float]:
        seen.append(histogram)
        return minmax(histogram)

    run(module, x, look)
    with torch.no_grad():
        expected = net(x)
    widest = max(seen, key=lambda histogram: histogram.high - histogram.low)
    assert widest.high == pytest.approx(float(expected.max()), rel=1e-5)
    assert widest.low == pytest.approx(float(expected.min()), rel=1e-5)
    # the two operands, the concatenation, and the same flattened
    assert widest.counts.sum() == 3 * expected.numel()
    with torch.no_grad():
        assert (module(x) - expected).abs().max() <= 0.02 * expected.abs().max()


def test_a_constant_operand_keeps_its_value() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x) + 3.0).flatten(1)

    torch.manual_seed(0)
    net, x = Shifted().eval(), images(32)
    module = qat.prepare(net, images(1)).module
    run(module, x, lambda histogram: (histogram.low / 2, histogram.high / 2))
    assert not any("constant" in name for name in activations(module).values())
    run(module, x)
    with torch.no_grad():
        assert (module(x) - net(x)).abs().max() < 0.1


def test_a_dead_tensor_has_a_range() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten()).eval()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(-1.0)
    module = qat.prepare(net, images(1)).module
    run(module, images(16))
    graph = qat.convert(module, fold_weights=True)
    with torch.no_grad():
        assert (graph(images(4)) - net(images(4))).abs().max() < 0.02


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.zeros(0, 3, 12, 12), "there are no samples"),
        (
            torch.full((5, 3, 12, 12), float("nan")),
            "5 of 5 samples have values that are NaN or infinite, the first is sample 0",
        ),
        (torch.cat([images(4), torch.full((1, 3, 12, 12), float("inf"))]), "1 of 5 samples .* the first is sample 4"),
        (torch.full((5, 3, 12, 12), -0.5), "every value of the 5 samples is -0.5"),
    ],
    ids=["none", "nan", "infinite", "constant"],
)
def test_samples_that_tell_nothing_are_refused(x: Tensor, told: str) -> None:
    with pytest.raises(QuantizeError, match=told) as caught:
        check(x)
    assert caught.value.hint


def test_damaged_weights_are_named() -> None:
    net = residual()
    with torch.no_grad():
        net.stem[0].weight[0, 0, 0, 0] = float("nan")
    module = qat.prepare(net, images(1)).module
    with pytest.raises(QuantizeError, match="stem.0.weight of the float student has values that are NaN") as caught:
        run(module, images(8), student=net)
    assert caught.value.hint == "train the float student again"
    with pytest.raises(QuantizeError, match="stem.0.weight has values that are NaN or infinite once the batch norms"):
        run(module, images(8))


def test_a_factor_that_was_folded_in_is_told_from_a_damaged_weight() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.body(x).relu().mean((2, 3))) * float("nan")
            return out

    net = Scaled().eval()
    module = qat.prepare(net, images(1)).module
    told = "head.weight has values that are NaN or infinite once .* folded in, though all weights of the float student are"
    with pytest.raises(QuantizeError, match=told) as caught:
        ptq.quantize(module, images(8), Ptq(method="ptq"), student=net)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("look in forward() of the student for a factor or a divisor that is NaN")


def test_an_overflow_inside_is_named_by_its_tensor() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten()).eval()
    with torch.no_grad():
        net[0].weight.fill_(1e30)
        net[2].weight.fill_(1e30)
    module = qat.prepare(net, images(1)).module
    with pytest.raises(
        QuantizeError, match=r"2 conv2d \(%conv2d_1\) has values that are NaN or infinite, though the samples have none"
    ):
        run(module, images(8))


@pytest.mark.parametrize("rank", range(1, 6))
def test_samples_of_every_rank_are_checked(rank: int) -> None:
    x = torch.rand((5, 3, 2, 2, 2)[:rank])
    check(x)
    x[3] = float("nan")
    with pytest.raises(QuantizeError, match="1 of 5 samples have values that are NaN or infinite, the first is sample 3"):
        check(x)
