from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.e2e import warm
from tests.unit.exporting.nets import Residual, Tokens, images
from torch import Tensor, fx, nn

from edgekd.errors import CheckpointError, QuantizeError
from edgekd.quantization import ptq, qat
from edgekd.quantization.bias import round_biases
from edgekd.quantization.weighted_layers import scale_of
from edgekd.recipe.quantize import Ptq

aten = torch.ops.aten


class Tapped(nn.Module):
    """Logits and a feature, as the distillation hands them over."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Residual()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.net.stem(x)
        body = self.net.activation(stem + self.net.branch(stem))
        return self.net.head(body), stem


def trained(steps: int = 4) -> fx.GraphModule:
    torch.manual_seed(0)
    module = qat.prepare(Tapped().eval(), images(1)).module
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    for step in range(steps):
        if step == steps - 1:
            qat.freeze_observers(module)
        logits, feature = module(images(8, seed=step))
        (logits.square().mean() + feature.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return module


@pytest.fixture(scope="module")
def module() -> fx.GraphModule:
    return trained()


def test_structure_modes_and_batch_size_are_the_models() -> None:
    torch.manual_seed(0)
    net = Tapped().eval()
    prepared = qat.prepare(net, images(1))
    prepared.module.train()
    qat.set_fake_quant(prepared.module, False)
    for count in (1, 5):
        for out, expected in zip(prepared.module(images(count)), net(images(count)), strict=True):
            torch.testing.assert_close(out, expected)
    assert prepared.float_ops == ()


@pytest.mark.parametrize("output", [0, 1])
def test_gradients_reach_the_first_weights(output: int) -> None:
    module = qat.prepare(Tapped().eval(), images(1)).module
    module(images(4))[output].square().sum().backward()
    gradients = [p.grad for name, p in module.named_parameters() if name.endswith("stem.0.weight")]
    assert len(gradients) == 1
    assert gradients[0] is not None
    assert gradients[0].abs().sum() > 0


def test_int8_graph_computes_what_the_trained_graph_computes(module: fx.GraphModule) -> None:
    x = images(32, seed=7)
    scale, _ = qat.output_scale(module)
    with torch.no_grad():
        logits = module(x)[0]
        folded = qat.convert(module, fold_weights=True)(x)
        unfolded = qat.convert(module, fold_weights=False)(x)
        again = module(x)[0]
    assert torch.equal(folded, unfolded)
    assert torch.equal(logits, again), "converting changed the trained graph"
    # Biases are put on the integer grid, which moves a value by a step now and then.
    assert (folded - logits).abs().max() <= 2.01 * scale


def test_frozen_ranges_do_not_move(module: fx.GraphModule) -> None:
    before = qat.state(module)
    with torch.no_grad():
        module(images(8) * 100)
    assert all(torch.equal(value, before[name]) for name, value in qat.state(module).items())


def test_state_survives_a_file_and_another_process(module: fx.GraphModule, tmp_path: Path) -> None:
    save_file(qat.state(module), tmp_path / "state.safetensors")
    script = (
        "import sys; from pathlib import Path; import torch\n"
        "from safetensors.torch import load_file, save_file\n"
        "from edgekd.quantization import qat\n"
        "from tests.unit.quantization.test_qat import Tapped, images\n"
        "torch.manual_seed(99); folder = Path(sys.argv[1])\n"
        "module = qat.prepare(Tapped().eval(), images(1)).module\n"
        "qat.load_state(module, load_file(folder / 'state.safetensors'))\n"
        "graph = qat.convert(module, fold_weights=True)\n"
        "save_file({'trained': module(images(8))[0].detach(), 'int8': graph(images(8)).detach()},"
        " folder / 'out.safetensors')\n"
    )
    root = Path(__file__).parents[3]
    environment = {"PYTHONPATH": f"{root / 'pipeline'}:{root}", "PATH": "/usr/bin:/bin"}
    done = warm.ran([script, str(tmp_path)], tmp_path, environment, "python")
    assert done.returncode == 0, done.stderr
    out = load_file(tmp_path / "out.safetensors")
    with torch.no_grad():
        assert torch.equal(out["trained"], module(images(8))[0])
        assert torch.equal(out["int8"], qat.convert(module, fold_weights=True)(images(8)))


def test_state_of_another_model_is_refused(module: fx.GraphModule) -> None:
    other = qat.prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 2)).eval(), images(1)).module
    with pytest.raises(CheckpointError, match="does not fit the model"):
        qat.load_state(other, qat.state(module))


def test_converting_without_ranges_is_refused() -> None:
    with pytest.raises(QuantizeError, match="have no range yet"):
        qat.convert(qat.prepare(Tapped().eval(), images(1)).module, fold_weights=True)


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (7, 63)])
def test_weights_keep_to_their_bits(bits: qat.WeightBits, limit: int) -> None:
    module = qat.prepare(Tapped().eval(), images(1), weight_bits=bits).module
    module(images(8))
    graph = qat.convert(module, fold_weights=True)
    weights = [value for value in (*graph.parameters(), *graph.buffers()) if value.dtype == torch.int8 and value.ndim > 1]
    assert len(weights) == 4
    assert {int(weight.abs().max()) for weight in weights} == {limit}


def test_unknown_operator_stays_float_and_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(256, 3)).eval()
    prepared = qat.prepare(net, images(1))
    (left,) = prepared.float_ops
    assert (left.operator, left.node, left.reason) == ("softplus", "softplus", "no int8 rule for softplus")
    prepared.module(images(8))
    targets = [str(node.target) for node in qat.convert(prepared.module, fold_weights=True).graph.nodes]
    softplus = targets.index("aten.softplus.default")
    assert "dequantize" in targets[softplus - 1]
    assert "quantize" in targets[softplus + 1]


def test_named_outputs_are_all_shipped_and_the_logits_come_first() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Tapped()

        def forward(self, x: Tensor) -> dict[str, Any]:
            logits, feature = self.net(x)
            return {"feature": feature, "logits": logits}

    module = qat.prepare(Named().eval(), images(1)).module
    assert module(images(4))["feature"].shape == (4, 16, 6, 6)
    logits, feature = qat.convert(module, fold_weights=True)(images(4))
    assert (logits.shape, feature.shape) == ((4, 10), (4, 16, 6, 6))


def test_biases_lie_on_the_integer_grid(module: fx.GraphModule) -> None:
    graph = qat.convert(module, fold_weights=True)
    layers = [node for node in graph.graph.nodes if "conv2d" in str(node.target) or "linear" in str(node.target)]
    assert len(layers) == 4
    for node in layers:
        x, weight, bias = node.args[:3]
        owner, _, name = bias.target.rpartition(".")
        step = x.args[1] * getattr(graph, weight.args[1].target).double()
        steps = getattr(graph.get_submodule(owner), name).detach().double() / step
        torch.testing.assert_close(steps, steps.round(), atol=1e-2, rtol=1e-6)


def test_shared_scale_covers_the_widest_tensor() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return torch.cat([y.relu(), y.mul(20.0)], 1).flatten(1)

    torch.manual_seed(0)
    net = Joined().eval()
    module = qat.prepare(net, images(1)).module
    with torch.no_grad():
        for seed in range(10):
            module(images(8, seed=seed))
        x = images(8, seed=3)
        expected = net(x)
        # A plain moving average ends between the two ranges, a third below the wide one.
        assert (module(x) - expected).abs().max() <= 0.1 * expected.abs().max(), "the wide tensor was clipped"


def test_a_product_with_a_constant_has_a_scale() -> None:
    """It has the integers of its operand: the bias behind it lies on the grid, and logits can be one."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 10, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu() * 0.3).mean((2, 3)) * 0.7

    torch.manual_seed(0)
    module = qat.prepare(Net().eval(), images(1)).module
    module(images(16))
    qat.freeze_observers(module)
    graph = qat.convert(module, fold_weights=True)
    scale, zero_point = qat.output_scale(module)
    steps = graph(images(4, seed=3)).detach() / scale
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert float((steps + zero_point).abs().max()) <= 128
    before = module.get_parameter("second.bias").detach().clone()
    round_biases(module)
    after = module.get_parameter("second.bias").detach()
    assert not torch.equal(before, after)
    _, second = (node for node in module.graph.nodes if node.target is torch.ops.aten.conv2d.default)
    x, weight = scale_of(module, second.args[0]), scale_of(module, second.args[1])
    assert x is not None
    assert weight is not None
    torch.testing.assert_close(after / (x[0] * weight[0]), (before / (x[0] * weight[0])).round(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("observer", ["minmax", "mse"])
def test_second_operands_of_matrix_products_have_a_zero_point_of_0(observer: str) -> None:
    torch.manual_seed(0)
    module = qat.prepare(Tokens().eval(), images(1)).module
    ptq.quantize(module, images(64), Ptq(method="ptq", observer=observer, bias_correction=False), seed=0)
    products = [node for node in module.graph.nodes if node.target in {aten.matmul.default, aten.bmm.default}]
    assert len(products) == 2, "queries by keys, weights by values"
    for node in products:
        scale = scale_of(module, node.args[1])
        assert scale is not None
        assert int(scale[1]) == 0
    others = [scale_of(module, node) for node in module.graph.nodes if node.op == "call_module"]
    assert any(scale is not None and scale[1].numel() == 1 and int(scale[1]) for scale in others), "affine elsewhere"
