from __future__ import annotations

import pytest
import torch
from tests.unit.exporting.nets import Residual, Tokens, images
from torch import fx, nn

from edgekd.progress import Silent
from edgekd.quantization import qat, scales
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.histogram import Histogram, minmax


def calibrated(net: nn.Module, share: float = 1.0) -> fx.GraphModule:
    module = qat.prepare(net, images(1)).module

    def choose(histogram: Histogram) -> tuple[float, float]:
        low, high = minmax(histogram)
        return share * low, share * high

    with Silent().task("", 1) as task:
        calibrate(module, images(128), choose, task)
    return module


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


@pytest.mark.parametrize("net", [Residual, Tokens])
def test_settled_scales_are_those_that_were_learned(net: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = calibrated(net().eval())
    start = {name: value.clone() for name, value in module.state_dict().items() if name.endswith(".scale")}
    scales.learn(module)
    learned = scales.state(module)
    again = qat.prepare(net().eval(), images(1)).module
    qat.load_state(again, learned)
    for name, child in again.named_modules():
        if f"{name}.scale" in start and hasattr(child, "calculate_qparams"):
            torch.testing.assert_close(child.calculate_qparams()[0], start[f"{name}.scale"], rtol=1e-5, atol=0)


def test_learning_starts_from_the_calibrated_graph() -> None:
    module = calibrated(residual())
    with torch.no_grad():
        before = module(images(16, seed=5))
        count = scales.learn(module)
        after = module(images(16, seed=5))
    # tensors that share a scale share what learns it
    assert count == len([name for name, _ in module.named_parameters() if name.endswith("log_scale")])
    assert not any(type(child).__name__ == "FakeQuantize" for _, child in module.named_children())
    # a scale goes through its logarithm, so that a value may fall on the other side of a half
    step, _ = qat.output_scale(calibrated(residual()))
    assert (before - after).abs().max() <= 1.01 * step


def test_clipped_ranges_are_learned_back_and_survive_conversion() -> None:
    """Every range is cut to a third; the network is to give the float network's logits."""
    net = residual()
    module = calibrated(net, 1 / 3)
    start = qat.state(module)
    scales.learn(module)
    parameters = [value for name, value in module.named_parameters() if name.endswith("log_scale")]
    optimizer = torch.optim.Adam(parameters, 0.03)
    errors = []
    for step in range(60):
        x = images(32, seed=step)
        loss = (module(x) - net(x)).square().mean()
        loss.backward()
        errors.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert sum(errors[-5:]) < 0.3 * sum(errors[:5])

    learned = scales.state(module)
    assert learned.keys() == start.keys()
    again = qat.prepare(net, images(1)).module
    qat.load_state(again, learned)
    graph = qat.convert(again, fold_weights=True)
    step_size, _ = qat.output_scale(again)
    x = images(64, seed=99)
    with torch.no_grad():
        exact = module(x)
        assert (again(x) - exact).abs().max() <= 1.01 * step_size
        assert (graph(x) - exact).abs().max() <= 2.01 * step_size


def test_frozen_scales_do_not_move() -> None:
    module = calibrated(residual())
    scales.learn(module)
    scales.freeze(module)
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    before = scales.state(module)
    module(images(8)).square().mean().backward()
    optimizer.step()
    after = scales.state(module)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert not any("scale" in name or "_val" in name for name in changed)


def test_an_ordinary_graph_has_its_ordinary_state() -> None:
    module = calibrated(residual())
    assert all(torch.equal(value, qat.state(module)[name]) for name, value in scales.state(module).items())
