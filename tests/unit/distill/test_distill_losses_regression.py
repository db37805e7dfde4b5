"""mgd, vid, factor_transfer and pkd against their papers' formulas, worked out by numpy, and against torchdistill."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.unit.distill.maps import Array, build, call, convolve, features, gradients
from torch import Tensor, nn

from edgekd.distill.outputs import Batch, Outputs
from edgekd.models.torchvision import import_torchvision
from edgekd.registry import losses

OURS = [features(3, 4, 5, 4, seed=1), features(3, 6, 3, 3, seed=2)]
THEIRS = [features(3, 7, 5, 4, seed=3), features(3, 6, 3, 3, seed=4)]


# --- fitnet -----------------------------------------------------------------------------------------------------------


def test_fitnet_is_romero_2015() -> None:
    """``(t - r(s))²``, r a 1×1 convolution where the widths differ; mean over elements and pairs."""
    loss, adapter = build("fitnet", OURS, THEIRS)
    errors = [((convolve(OURS[0], adapter[0]) - THEIRS[0]) ** 2).mean(), ((OURS[1] - THEIRS[1]) ** 2).mean()]
    assert call(loss, adapter, OURS, THEIRS).item() == pytest.approx(np.mean(errors), rel=1e-12)


@pytest.mark.parametrize("kind", ["fitnet", "mse_logits"])
def test_squared_errors_of_torchdistill(kind: str) -> None:
    """Its examples wrap torch's MSELoss; values and gradients, of the regressor too."""
    import_torchvision()
    from torchdistill.losses.mid_level import SimpleLossWrapper

    theirs = SimpleLossWrapper(
        nn.MSELoss(), input={"is_from_teacher": False, "module_path": "m", "io": "output"},
        target={"uses_label": False, "is_from_teacher": True, "module_path": "m", "io": "output"},
    )  # fmt: skip
    if kind == "fitnet":
        loss, adapter = build(kind, OURS[:1], THEIRS[:1])
        leaf, target = torch.tensor(OURS[0], requires_grad=True), torch.tensor(THEIRS[0])
        value, compared, learnt = call(loss, adapter, [leaf], [target]), adapter[0](leaf), [leaf, *adapter.parameters()]
    else:
        leaf, target = torch.tensor(features(3, 5, seed=1), requires_grad=True), torch.tensor(features(3, 5, seed=2))
        batch = Batch(torch.zeros(3, dtype=torch.int64), torch.arange(3))
        value, compared, learnt = losses.get(kind)()(Outputs(leaf), Outputs(target), batch, None), leaf, [leaf]
    expected = theirs({"m": {"output": compared}}, {"m": {"output": target}}, None)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    for a, b in zip(gradients(value, *learnt), gradients(expected, *learnt), strict=True):
        assert a.any()
        assert a == pytest.approx(b, rel=1e-5, abs=1e-12)


# --- mgd --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "ratio"), [("channels", 0.15), ("pixels", 0.5), ("pixels", 0.0)])
def test_mgd_is_yang_2022(mask: str, ratio: float) -> None:
    """``Σ (T - G(align(S) · M))²`` for an image, M = 0 where a uniform draw is below λ."""
    loss, adapter = build("mgd", OURS, THEIRS, mask=mask, ratio=ratio)
    torch.manual_seed(5)
    expected = 0.0
    for s, t, generator in zip(OURS, THEIRS, adapter, strict=True):
        aligned = s if s.shape[1] == t.shape[1] else convolve(s, generator.align)
        n, c, h, w = t.shape
        kept = torch.rand((n, c, 1, 1) if mask == "channels" else (n, 1, h, w)).numpy() >= ratio
        assert kept.all() == (ratio == 0)
        hidden = np.maximum(convolve(aligned * kept, generator.generation[0]), 0)
        expected += float(((convolve(hidden, generator.generation[2]) - t) ** 2).sum()) / n
    torch.manual_seed(5)
    assert call(loss, adapter, OURS, THEIRS).item() == pytest.approx(expected, rel=1e-10)


def test_mgd_masks_anew_each_time_and_the_same_by_seed() -> None:
    loss, adapter = build("mgd", OURS, THEIRS, ratio=0.5)
    torch.manual_seed(5)
    first, second = (call(loss, adapter, OURS, THEIRS).item() for _ in range(2))
    torch.manual_seed(5)
    assert first != second
    assert call(loss, adapter, OURS, THEIRS).item() == first


# --- vid --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [5.0, 0.01])
def test_vid_is_ahn_2019(variance: float) -> None:
    """``log σ + (t - μ)² / (2 σ²)``, mean over elements; σ² begins as told."""
    loss, adapter = build("vid", OURS, THEIRS, variance=variance)
    expected = 0.0
    for s, t, gaussian in zip(OURS, THEIRS, adapter, strict=True):
        mean = s
        for at in (0, 2, 4):
            mean = convolve(np.maximum(mean, 0) if at else mean, gaussian.mean[at])
        expected += float((np.log(np.sqrt(variance)) + (t - mean) ** 2 / (2 * variance)).mean())
    assert call(loss, adapter, OURS, THEIRS).item() == pytest.approx(expected, rel=1e-6)


def test_vid_begins_above_epsilon() -> None:
    with pytest.raises(ValidationError, match=r"the variance begins at 1e-05, but is always larger than epsilon, 1e-05"):
        losses.get("vid").model_validate({"variance": 1e-5})


def test_vid_has_a_variance_for_each_channel() -> None:
    """Softplus of each parameter, plus ε."""
    loss, adapter = build("vid", OURS[:1], THEIRS[:1], epsilon=0.1)
    alpha = features(7, seed=9)
    adapter[0].alpha.data = torch.tensor(alpha)
    _, variance = adapter[0](torch.tensor(OURS[0]))
    assert variance.detach().numpy()[:, 0, 0] == pytest.approx(np.log(1 + np.exp(alpha)) + 0.1, rel=1e-12)
    assert torch.isfinite(call(loss, adapter, OURS[:1], THEIRS[:1]))


def test_vid_of_torchdistill() -> None:
    """Value, and gradients of the student's maps and of everything that is trained."""
    import_torchvision()
    from torchdistill.losses.mid_level import VIDLoss
    from torchdistill.models.wrapper import Regressor4VID

    loss, adapter = build("vid", OURS, THEIRS)
    ours = [torch.tensor(s, requires_grad=True) for s in OURS]
    student: dict[str, Any] = {}
    config: dict[str, Any] = {}
    parameters: list[Tensor] = []
    for i, (s, gaussian) in enumerate(zip(ours, adapter, strict=True)):
        width = THEIRS[i].shape[1]
        regressor: Any = Regressor4VID(s.shape[1], width, width, eps=1e-5, init_pred_var=5.0).double()
        assert regressor.soft_plus_param.detach().numpy() == pytest.approx(gaussian.alpha.detach().numpy(), rel=1e-6)
        regressor.soft_plus_param.data.copy_(gaussian.alpha.data)
        for at in (0, 2, 4):
            regressor.regressor[at].weight.data.copy_(gaussian.mean[at].weight.data)
        parameters += [*regressor.regressor.parameters(), regressor.soft_plus_param]
        student[f"r{i}"] = {"output": regressor(s)}
        config[f"p{i}"] = {"student": {"io": "output", "path": f"r{i}"}, "teacher": {"io": "output", "path": f"t{i}"}}
    teacher = {f"t{i}": {"output": torch.tensor(t)} for i, t in enumerate(THEIRS)}
    expected = VIDLoss(config)(student, teacher)
    value = call(loss, adapter, ours, THEIRS)
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    own = [p for gaussian in adapter for p in (*gaussian.mean.parameters(), gaussian.alpha)]
    for a, b in zip(gradients(value, *ours, *own), gradients(expected, *ours, *parameters), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-12)


# --- factor_transfer --------------------------------------------------------------------------------------------------


def through(x: Array, layers: nn.Sequential) -> Array:
    for layer in layers:
        if not isinstance(layer, nn.LeakyReLU):
            x = convolve(x, layer)
            x = np.where(x > 0, x, 0.1 * x)
    return x


def unit(x: Array) -> Array:
    flat = x.reshape(len(x), -1)
    return np.asarray(flat / np.sqrt((flat**2).sum(axis=1, keepdims=True)))


@pytest.mark.parametrize(("rate", "reconstruction"), [(0.5, 0.002), (0.3, 0.0), (0.01, 1.0)])
def test_factor_transfer_is_kim_2018(rate: float, reconstruction: float) -> None:
    loss, adapter = build("factor_transfer", OURS, THEIRS, rate=rate, reconstruction=reconstruction)
    expected = 0.0
    for s, t, part in zip(OURS, THEIRS, adapter, strict=True):
        factor, translated = through(t, part.paraphraser), through(s, part.translator)
        assert factor.shape[1] == translated.shape[1] == max(1, round(rate * t.shape[1]))
        expected += np.abs(unit(translated) - unit(factor)).mean()
        expected += reconstruction * ((through(factor, part.decoder) - t) ** 2).mean()
    assert call(loss, adapter, OURS, THEIRS).item() == pytest.approx(expected, rel=1e-10)


def test_factor_transfer_of_torchdistill() -> None:
    """Value and gradients without the reconstruction, which torchdistill trains in a stage of its own."""
    import_torchvision()
    from torchdistill.losses.mid_level import FTLoss

    loss, adapter = build("factor_transfer", OURS[:1], THEIRS[:1], reconstruction=0.0)
    ours = torch.tensor(OURS[0], requires_grad=True)
    expected = FTLoss()(
        {"translator": {"output": adapter[0].translator(ours)}},
        {"paraphraser": {"output": adapter[0].paraphraser(torch.tensor(THEIRS[0])).detach()}},
    )
    value = call(loss, adapter, [ours], THEIRS[:1])
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    trained = (ours, *adapter[0].translator.parameters())
    for a, b in zip(gradients(value, *trained), gradients(expected, *trained), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-12)


def test_each_part_of_factor_transfer_has_the_gradient_of_its_own_term() -> None:
    def slopes(**options: float) -> dict[str, Array]:
        loss, adapter = build("factor_transfer", OURS[:1], THEIRS[:1], **options)
        ours = torch.tensor(OURS[0], requires_grad=True)
        call(loss, adapter, [ours], THEIRS[:1]).backward()
        assert ours.grad is not None
        return {"student": ours.grad.numpy()} | {name: p.grad.numpy() for name, p in adapter.named_parameters()}

    none, once, twice = (slopes(reconstruction=weight) for weight in (0.0, 1.0, 2.0))
    for name in once:
        assert np.abs(once[name]).sum() > 0
        if "paraphraser" in name or "decoder" in name:  # the reconstruction alone
            assert not none[name].any()
            assert twice[name] == pytest.approx(2 * once[name], rel=1e-10)
        else:  # the transfer alone
            assert np.array_equal(none[name], once[name])


def test_the_paraphraser_learns_to_give_the_map_back() -> None:
    loss, adapter = build("factor_transfer", OURS[:1], THEIRS[:1], rate=1.0)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.01)
    teacher = torch.tensor(THEIRS[0])

    def error() -> float:
        return (adapter[0].decoder(adapter[0].paraphraser(teacher)) - teacher).pow(2).mean().item()

    before = error()
    for _ in range(60):
        optimizer.zero_grad()
        call(loss, adapter, OURS[:1], THEIRS[:1]).backward()
        optimizer.step()
    assert error() < 0.7 * before


# --- pkd --------------------------------------------------------------------------------------------------------------


def test_pkd_is_sun_2019() -> None:
    """The squared distance of unit vectors, at every position; divided by the number of channels, mean over all."""
    loss, adapter = build("pkd", OURS, THEIRS)
    adapted = [convolve(OURS[0], adapter[0]), OURS[1]]
    expected = []
    for s, t in zip(adapted, THEIRS, strict=True):
        n, c, h, w = t.shape
        for image, i, j in np.ndindex(n, h, w):
            a, b = s[image, :, i, j], t[image, :, i, j]
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            expected.append((2 - 2 * cosine) / c / (n * h * w * len(THEIRS)))
    assert call(loss, adapter, OURS, THEIRS).item() == pytest.approx(sum(expected), rel=1e-10)


def test_pkd_does_not_see_length() -> None:
    loss, adapter = build("pkd", OURS[1:], THEIRS[1:])
    scale = np.exp(features(3, 1, 3, 3, seed=7))
    assert call(loss, adapter, THEIRS[1:], [THEIRS[1] * scale]).item() == pytest.approx(0.0, abs=1e-15)
