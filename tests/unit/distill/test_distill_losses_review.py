from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.distill.adapters.review import Review, context, levels
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.errors import ModelError
from edgekd.models.torchvision import import_torchvision
from edgekd.registry import losses
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair

Array = NDArray[np.float64]

OURS = ((3, 8, 8), (5, 4, 4), (6, 2, 2))
THEIRS = ((7, 8, 8), (4, 4, 4), (9, 2, 2))
PAIRS = tuple(Pair(Layer("s", a), Layer("t", b)) for a, b in zip(OURS, THEIRS, strict=True))
FACTS = Facts(classes=3, samples=2)
BATCH = Batch(torch.tensor([0, 2]), torch.arange(2))


def maps(shapes: tuple[tuple[int, ...], ...], seed: int, n: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def review() -> Review:
    torch.manual_seed(0)
    adapter = losses.get("reviewkd")().adapter(PAIRS, FACTS).double()
    assert isinstance(adapter, Review)
    return adapter


def value(adapter: Review, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    logits = torch.zeros(len(ours[0]), 3)
    found: Tensor = losses.get("reviewkd")()(Outputs(logits, tuple(ours)), Outputs(logits, tuple(theirs)), BATCH, adapter)
    return found


# --- by numpy ---------------------------------------------------------------------------------------------------------


def norm(x: Array) -> Array:
    """Batch norm as it begins: no scale, no shift."""
    mean = x.mean(axis=(0, 2, 3), keepdims=True)
    result: Array = (x - mean) / np.sqrt(((x - mean) ** 2).mean(axis=(0, 2, 3), keepdims=True) + 1e-5)
    return result


def convolution(x: Array, module: nn.Module) -> Array:
    """Stride 1 and the padding that keeps the size, one kernel position after the other."""
    weight, bias = module.weight.detach().numpy(), module.bias
    k = weight.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (k // 2,) * 2, (k // 2,) * 2))
    h, w = x.shape[2:]
    parts = [
        np.einsum("oc,nchw->nohw", weight[:, :, i, j], padded[:, :, i : i + h, j : j + w])
        for i in range(k)
        for j in range(k)
    ]
    return np.sum(parts, axis=0) + (0.0 if bias is None else bias.detach().numpy()[:, None, None])


def pooled(x: Array, size: int) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, c, size, h // size, size, w // size).mean(axis=(3, 5))


def hcl(s: Array, t: Array) -> float:
    total, weights, weight = np.mean((s - t) ** 2), 1.0, 1.0
    for size in (4, 2, 1):
        if size < s.shape[2]:
            weight /= 2
            total += weight * np.mean((pooled(s, size) - pooled(t, size)) ** 2)
            weights += weight
    return float(total / weights)


def test_reviewkd_is_chen_2021() -> None:
    """Fig. 3 of the paper, by numpy: 1×1 and norm, attention over both, 3×3 and norm; deep to shallow."""
    adapter, ours, theirs = review(), maps(OURS, 1), maps(THEIRS, 2)
    a = [x.numpy() for x in ours] + [ours[-1].numpy().mean(axis=(2, 3), keepdims=True)]
    b = [x.numpy() for x in theirs] + [theirs[-1].numpy().mean(axis=(2, 3), keepdims=True)]
    expected, residual = 0.0, None
    for level in (3, 2, 1, 0):
        fusion = adapter.fusions[level]
        x = norm(convolution(a[level], fusion.enter[0]))
        if residual is not None:
            repeat = x.shape[2] // residual.shape[2]
            residual = residual.repeat(repeat, axis=2).repeat(repeat, axis=3)
            z = 1 / (1 + np.exp(-convolution(np.concatenate([x, residual], axis=1), fusion.attention[0])))
            x = x * z[:, :1] + residual * z[:, 1:]
        residual = x
        expected += hcl(norm(convolution(x, fusion.leave[0])), b[level])
    assert value(adapter, ours, theirs).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_context_uses_smaller_sizes_alone(size: int) -> None:
    s, t = maps(((3, size, size),), 1)[0], maps(((3, size, size),), 2)[0]
    assert context(s, t).item() == pytest.approx(hcl(s.numpy(), t.numpy()), rel=1e-12)


def test_levels_are_fused_in_no_more_than_512_channels() -> None:
    adapter = Review([8, 600], [4, 5])
    assert [fusion.enter[0].out_channels for fusion in adapter.fusions] == [512, 512]
    assert [fusion.leave[0].out_channels for fusion in adapter.fusions] == [4, 5]


# --- as torchdistill has it -------------------------------------------------------------------------------------------


def test_reviewkd_as_torchdistill() -> None:
    """Its AttentionBasedFusion with our weights and its HierarchicalContextLoss at each level: values and all gradients."""
    import_torchvision()
    from torchdistill.losses.mid_level import HierarchicalContextLoss
    from torchdistill.models.wrapper import AttentionBasedFusion

    adapter = review()
    fusions, ours_learnt, theirs_learnt = [], [], []
    for level, fusion in enumerate(adapter.fusions):
        other = AttentionBasedFusion(
            fusion.enter[0].in_channels, fusion.enter[0].out_channels, fusion.leave[0].out_channels, level < 3
        ).double()
        other.conv1.load_state_dict(fusion.enter.state_dict())
        other.conv2.load_state_dict(fusion.leave.state_dict())
        ours_learnt += [*fusion.enter.parameters(), *fusion.leave.parameters()]
        theirs_learnt += [*other.conv1.parameters(), *other.conv2.parameters()]
        if level < 3:
            other.attention_conv.load_state_dict(fusion.attention.state_dict())
            ours_learnt += fusion.attention.parameters()
            theirs_learnt += other.attention_conv.parameters()
        fusions.append(other)

    ours, theirs = [x.requires_grad_() for x in maps(OURS, 1)], maps(THEIRS, 2)
    found = value(adapter, ours, theirs)
    gradients = torch.autograd.grad(found, [*ours, *ours_learnt])

    total, residual = torch.zeros((), dtype=torch.float64), None
    criterion = HierarchicalContextLoss("s", "output", "t", "output")
    for other, s, t in reversed(list(zip(fusions, levels(ours), levels(theirs), strict=True))):
        compared, residual = other(s, residual, s.shape[2])
        total = total + criterion({"s": {"output": (compared, residual)}}, {"t": {"output": t}})
    torch.testing.assert_close(found, total, rtol=1e-5, atol=1e-8)
    for mine, other_gradient in zip(gradients, torch.autograd.grad(total, [*ours, *theirs_learnt]), strict=True):
        torch.testing.assert_close(mine, other_gradient, rtol=1e-5, atol=1e-8)


# --- gradients and extremes -------------------------------------------------------------------------------------------


def test_gradients_reach_student_and_fusions_and_not_the_teacher() -> None:
    adapter = review()
    ours, theirs = [x.requires_grad_() for x in maps(OURS, 1, n=4)], maps(THEIRS, 2, n=4)
    value(adapter, ours, theirs).backward()
    for tensor in (*ours, *adapter.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0
    assert all(t.grad is None for t in theirs)


def test_dead_maps_are_finite() -> None:
    adapter = review()
    ours = [torch.zeros(2, *shape, dtype=torch.float64, requires_grad=True) for shape in OURS]
    found = value(adapter, ours, [torch.zeros(2, *shape, dtype=torch.float64) for shape in THEIRS])
    found.backward()
    assert torch.isfinite(found)
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in ours)


def test_a_batch_of_one_image_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        value(review(), maps(OURS, 1, n=1), maps(THEIRS, 2, n=1))
    assert str(caught.value) == (
        "reviewkd has batch norm of one vector an image: a batch needs two\n  → set distill.batch_size: 2 or more"
    )
