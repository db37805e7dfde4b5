from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.errors import ModelError, QuantizeError
from edgekd.quantization.fold import fold
from edgekd.quantization.trace import mixes
from edgekd.task.named import call


def settled(net: nn.Module) -> nn.Module:
    """The net with norms that do something."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def operators(graph_module: fx.GraphModule) -> list[str]:
    return [node.target.__name__ for node in graph_module.graph.nodes if node.op == "call_function"]


def test_norms_go_into_layers_and_values_stay() -> None:
    net = settled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Flatten(), nn.Linear(8 * 36, 16), nn.BatchNorm1d(16), nn.Linear(16, 4),
        )
    )  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folded = fold(net, x)
    torch.testing.assert_close(folded(x), net(x))
    assert [name for name in operators(folded) if name != "sym_size.int"] == [
        "conv2d.default", "relu.default", "reshape.default", "linear.default", "linear.default",
    ]  # fmt: skip
    assert {name for name, _ in folded.named_parameters()} == {
        f"{layer}.{name}" for layer in (0, 5, 7) for name in ("weight", "bias")
    }
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), "the input was changed"


def test_norms_go_into_layers_whose_padding_has_a_name() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same", bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 2, padding="valid")
    )
    net[1].running_mean.normal_()  # type: ignore[operator]  # a tensor
    net.eval()
    x = torch.randn(2, 3, 6, 6)
    folded = fold(net, x)
    torch.testing.assert_close(folded(x), net(x))
    assert operators(folded) == ["conv2d.default", "conv2d.default"]


def test_norm_without_a_layer_becomes_depthwise() -> None:
    net = settled(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1)))
    x = torch.randn(2, 3, 5, 5)
    folded = fold(net, x)
    torch.testing.assert_close(folded(x), net(x))
    assert operators(folded) == ["conv2d.default", "relu.default", "conv2d.default"]


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
    folded = fold(net, x)
    for out, expected in zip(folded(x), net(x), strict=True):
        torch.testing.assert_close(out, expected)
    assert not any("norm" in name for name in operators(folded))


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
    torch.testing.assert_close(fold(net, x)(x), net(x))


class RepVgg(nn.Module):
    """Three parallel branches and a scaled difference of two, as in RepVGG and FastViT."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.large = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=groups, bias=False), nn.BatchNorm2d(8))
        self.small = nn.Sequential(nn.Conv2d(8, 8, 1, groups=groups, bias=False), nn.BatchNorm2d(8))
        self.norm, self.norm_again = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.mixer = nn.Conv2d(8, 8, (3, 5), 1, (1, 2), groups=8)
        self.layer_scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = (self.large(x) + self.small(x) + self.norm(x)).relu()
        return x + self.layer_scale * (self.mixer(x) - self.norm_again(x))


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_parallel_branches_become_one_convolution(groups: int) -> None:
    net = settled(RepVgg(groups))
    x = torch.randn(2, 8, 6, 6)
    folded = fold(net, x)
    torch.testing.assert_close(folded(x), net(x), atol=1e-5, rtol=1e-5)
    assert operators(folded) == ["conv2d.default", "relu.default", "conv2d.default"]
    assert sum(parameter.numel() for parameter in folded.parameters()) == 8 * 8 // groups * 9 + 8 * 15 + 16


class Branches(nn.Module):
    """Sums that are not one convolution: another input, another stride, or one that would be larger."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one = nn.Conv2d(8, 8, 1, stride=2 if kind == "stride" else 1)
        self.other = nn.Conv2d(8, 8, 3, 1, 1 if kind != "stride" else 0, groups=8 if kind == "larger" else 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "read":
            branch = self.one(x)
            return (branch + self.other(x)) * branch
        out: Tensor = self.one(x) + self.other(x.relu() if self.kind == "input" else x)
        return out


@pytest.mark.parametrize(("kind", "size"), [("input", 6), ("stride", 3), ("larger", 6), ("read", 6)])
def test_other_sums_stay(kind: str, size: int) -> None:
    net = Branches(kind).eval()
    x = torch.randn(2, 8, size, size)
    folded = fold(net, x)
    torch.testing.assert_close(folded(x), net(x))
    assert operators(folded).count("conv2d.default") == 2


def test_scales_reach_the_layer_through_a_permutation() -> None:
    class LayerScale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 5)
            self.scale = nn.Parameter(torch.rand(5, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * self.scale / 2 - 1
            return out

    net = LayerScale().eval()
    x = torch.randn(2, 4, 3, 3)
    folded = fold(net, x)
    torch.testing.assert_close(folded(x), net(x))
    assert operators(folded) == ["permute.default", "linear.default", "permute.default"]


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class OneBatchSize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


class ThroughNumpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy())


class Truthful(nn.Module):
    """torch.export takes it; torch itself subtracts no truth values."""

    def forward(self, x: Tensor) -> Tensor:
        return x - (x > 0)


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class OtherForOne(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if x.shape[0] == 1 else x


class OverTheBatch(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))


class Ranked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class Overwriting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2).relu()


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Averaging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3))
        return x - self.mean[:, None, None]


class FromTheFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x[:1]


class OfTheBatch(nn.Module):
    """Takes something of the other samples by a mask, by ids, or by their place in the batch."""

    def __init__(self, mixed: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.mixed = mixed

    def forward(self, x: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        return self.mixed(x, mask, ids)


MIXES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mean of masks": lambda x, mask, ids: x * mask.float().mean(0),
    "any mask": lambda x, mask, ids: x * mask.any(0).float(),
    "all masks": lambda x, mask, ids: x * mask.all(0).float(),
    "greatest id": lambda x, mask, ids: x * ids.max(),
    "sum of ids": lambda x, mask, ids: x + ids.float().sum(0),
    "least id": lambda x, mask, ids: x + ids.min(),
    "first sample": lambda x, mask, ids: x - x[:1],
    "last sample": lambda x, mask, ids: x - x[-1:],
    "order in the batch": lambda x, mask, ids: x.cumsum(0),
}


@pytest.mark.parametrize("example", [torch.tensor([[1, 1, 0, 1]]), torch.ones(1, 4).long(), torch.zeros(1, 4).long()])
@pytest.mark.parametrize("mix", MIXES)
def test_samples_that_meet_in_a_batch_are_found(mix: str, example: Tensor) -> None:
    """Whatever the values of the example are; what reads its own sample alone is no such network."""
    given = {"x": torch.rand(1, 4), "mask": example.bool(), "ids": example}
    assert mixes(OfTheBatch(MIXES[mix]), given)


def test_samples_that_meet_are_found_where_the_network_takes_no_other_ids() -> None:
    table = nn.Embedding(4, 4)
    met = OfTheBatch(lambda x, mask, ids: table(ids - 100).sum(1) - x.mean(0))
    assert mixes(met, {"x": torch.rand(1, 4), "mask": torch.ones(1, 4).bool(), "ids": torch.tensor([[100, 101, 103, 102]])})


@pytest.mark.parametrize("example", [torch.tensor([[1, 1, 0, 1]]), torch.ones(1, 4).long(), torch.zeros(1, 4).long()])
def test_masks_and_tables_of_one_sample_are_no_mixing(example: Tensor) -> None:
    """A mean over what is visible, which may be nothing; tables of few ids; the last visible position."""
    table = nn.Embedding(int(example.max()) + 1, 4)

    def own(x: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        last = table(ids).gather(1, (mask.sum(1) - 1)[:, None, None].expand(-1, 1, 4).clamp(0))[:, 0]
        return (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True) + last

    assert not mixes(OfTheBatch(own), {"x": torch.rand(1, 4), "mask": example.bool(), "ids": example})


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        (Overwriting, "the network overwrites its input", "x = x * 2 in place of x.mul_"),
        (Counting, "each time it is called.*changes the buffer calls", "if self.training"),
        (Averaging, "each time it is called.*changes the buffer mean", "if self.training"),
        (
            OverTheBatch,
            r"depends on the other samples of its batch: 1 batch_norm \(%_native",
            "track_running_stats=True",
        ),
        (FromTheFirst, "the network's answer for a sample depends on the other samples of its batch", "the first dimension"),
        (Ranked, "the network's answer for a sample depends on the other samples of its batch", "the first dimension"),
        (
            Branching,
            r"by the values of a tensor in test_fold.py, line \d+: return x if x.sum\(\) > 0",
            "torch.where",
        ),
        (OneBatchSize, "its graph holds for one batch size only", "x.flatten(1)"),
        (ThroughNumpy, r"in test_fold.py, line \d+: return torch.from_numpy\(", "only with torch operations"),
        (Truthful, r"fails for one sample: .*in test_fold.py, line \d+: return x - \(x > 0\)", "first dimension of 1"),
        (Noisy, "each time it is called, in evaluation mode too: .*randn_like", "only if self.training"),
        (OtherForOne, "the network gives other values for one sample than for several", "if x.shape[0] == 1"),
    ],
)
def test_untraceable_model_is_told_in_words(
    model: type[nn.Module], message: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(QuantizeError, match=message) as caught:
        fold(model(), torch.randn(1, 3, 4, 4))
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    assert capfd.readouterr().err == "", "torch prints the whole graph when it gives up"


class Sum(nn.Module):
    def forward(self, left: Tensor, middle: Tensor, right: Tensor) -> Tensor:
        return left - middle * right


def test_inputs_are_taken_by_their_names_or_by_their_order() -> None:
    x = {name: torch.randn(3, 4) for name in ("right", "left", "middle")}
    graph = fold(Sum(), x)
    assert call(graph, x).equal(x["left"] - x["middle"] * x["right"])
    one, two, three = x.values()
    unnamed = {"a": one, "b": two, "c": three}
    assert call(fold(Sum(), unnamed), unnamed).equal(one - two * three)
    with pytest.raises(ModelError, match=r"Sum.forward\(\) takes middle before right, and middle is no input"):
        fold(Sum(), {"left": one, "right": two})


@pytest.mark.parametrize("shapes", [((3, 4), (2, 4)), ((3, 4), ())])
def test_inputs_of_different_numbers_of_samples_are_named(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ModelError, match="different numbers of samples: left .* (middle|right)"):
        fold(Sum(), {name: torch.zeros(shape) for name, shape in zip(("left", "middle"), shapes, strict=True)})
