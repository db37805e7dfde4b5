"""Attention losses against their formulas, by numpy in float64; and what they are given, against torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from tests.unit.distill.vits import OwnViT, torchvision_vit
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data import dataset
from edgekd.distill.outputs import Batch, Facts, Outputs, adapter_of
from edgekd.distill.terms import Terms
from edgekd.errors import ModelError
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill
from edgekd.registry import losses
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair
from edgekd.taps.taps import Tapped, survey
from edgekd.train.loop import Teaching, Trainable, fit

Array = NDArray[np.float64]
BATCH = Batch(torch.tensor([0, 2]), torch.arange(2))
FACTS = Facts(classes=3, samples=2)
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def qkv(heads: int, tokens: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(2, 3, heads, tokens, width))


def pairs(ours: list[Array], theirs: list[Array]) -> tuple[Pair, ...]:
    return tuple(
        Pair(Layer("s", a.shape[1:], "attention"), Layer("t", b.shape[1:], "attention"))
        for a, b in zip(ours, theirs, strict=True)
    )


def value(kind: str, ours: list[Array], theirs: list[Array], **options: Any) -> float:
    loss = losses.get(kind).model_validate(options)
    assert adapter_of(loss, pairs(ours, theirs), FACTS) is None
    student, teacher = (Outputs(torch.zeros(2, 3), tuple(map(torch.tensor, features))) for features in (ours, theirs))
    return float(loss(student, teacher, BATCH, None))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def scores(a: Array, b: Array) -> Array:
    """N×heads×L×L, by loops over heads."""
    return np.stack([[image[head] @ other[head].T / np.sqrt(image.shape[-1]) for head in range(len(image))]
                     for image, other in zip(a, b, strict=True)])  # fmt: skip


def kl(student: Array, teacher: Array) -> float:
    """1 / (heads · L) Σ Σ KL(teacher's row ‖ student's row), mean over the images."""
    p, q = softmax(teacher), softmax(student)
    return float((p * np.log(p / q)).sum(-1).mean())


def test_attention_maps_are_jiao_2020() -> None:
    """Eq. 7: 1/h Σ MSE(A of the student, A of the teacher), summed over the layers; A is not normalized."""
    ours, theirs = [qkv(3, 5, 4, 1), qkv(2, 5, 4, 2)], [qkv(3, 5, 8, 3), qkv(2, 5, 6, 4)]
    expected = 0.0
    for s, t in zip(ours, theirs, strict=True):
        a, b = scores(s[:, 0], s[:, 1]), scores(t[:, 0], t[:, 1])
        heads = a.shape[1]
        expected += sum(np.mean((a[:, head] - b[:, head]) ** 2) for head in range(heads)) / heads
    assert value("attention_maps", ours, theirs) == pytest.approx(expected, rel=1e-12)


def test_attention_maps_of_other_numbers_of_heads_are_means() -> None:
    s, t = qkv(3, 5, 4, 1), qkv(12, 5, 8, 3)
    expected = np.mean((scores(s[:, 0], s[:, 1]).mean(1) - scores(t[:, 0], t[:, 1]).mean(1)) ** 2)
    assert value("attention_maps", [s], [t]) == pytest.approx(expected, rel=1e-12)


def test_minilm_is_wang_2020() -> None:
    """Distributions of the attention and of the value relation; the widths of the heads may differ."""
    s, t = qkv(3, 5, 4, 1), qkv(3, 5, 8, 3)
    expected = kl(scores(s[:, 0], s[:, 1]), scores(t[:, 0], t[:, 1])) + kl(
        scores(s[:, 2], s[:, 2]), scores(t[:, 2], t[:, 2])
    )
    assert value("minilm", [s], [t]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("options", "heads"), [({}, 4), ({"relation_heads": 6}, 6)])
def test_minilm_of_other_numbers_of_heads_is_v2(options: dict[str, int], heads: int) -> None:
    """3 heads of 4 and 4 heads of 6: widths 12 and 24, cut into 4 (the teacher's own), or as told."""
    s, t = qkv(3, 5, 4, 1), qkv(4, 5, 6, 3)

    def cut(x: Array) -> Array:
        tokens = np.concatenate([x[:, head] for head in range(x.shape[1])], axis=-1)  # N×L×width
        return np.stack(np.split(tokens, heads, axis=-1), axis=1)

    expected = sum(
        kl(scores(cut(s[:, i]), cut(s[:, i])), scores(cut(t[:, i]), cut(t[:, i]))) for i in range(3)
    )  # fmt: skip
    assert value("minilm", [s], [t], **options) == pytest.approx(expected, rel=1e-10)


def test_relation_heads_are_the_teachers_or_the_next_fewer_that_divide() -> None:
    """Widths 10 and 15: of the teacher's 3 heads none divides 5 but 1."""
    s, t = qkv(2, 5, 5, 1), qkv(3, 5, 5, 3)
    assert value("minilm", [s], [t]) == pytest.approx(value("minilm", [s], [t], relation_heads=1), rel=1e-12)


@pytest.mark.parametrize("kind", ["attention_maps", "minilm"])
def test_equal_attention_costs_nothing_and_dead_attention_is_finite(kind: str) -> None:
    t = qkv(3, 5, 4, 1)
    assert value(kind, [t], [t]) == pytest.approx(0.0, abs=1e-12)
    dead = torch.zeros(1, 3, 3, 5, 4, requires_grad=True)
    theirs = torch.tensor(t[:1], dtype=torch.float32)
    loss = losses.get(kind)()(Outputs(X, (dead,)), Outputs(X, (theirs,)), BATCH, None)
    loss.backward()
    assert torch.isfinite(loss)
    assert dead.grad is not None
    assert torch.isfinite(dead.grad).all()


@pytest.mark.parametrize("kind", ["attention_maps", "minilm"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_scores_that_half_precision_cannot_hold(kind: str, dtype: torch.dtype) -> None:
    """Queries and keys of 100 have products of 80,000 before these are scaled; attention itself does without them."""
    t = torch.tensor(100 * np.sign(qkv(3, 5, 8, 1))).to(dtype)
    s = (t.double() * torch.tensor(1 + 0.05 * qkv(3, 5, 8, 2))).to(dtype)

    def found(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        leaf = s.to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float64):
            loss = losses.get(kind)()(Outputs(X, (leaf,)), Outputs(X, (t.to(dtype),)), BATCH, None)
        loss.backward()
        assert leaf.grad is not None
        return loss.detach(), leaf.grad.double().flatten()

    (exact, expected), (value, gradient) = found(torch.float64), found(dtype)
    assert value.item() == pytest.approx(exact.item(), rel=1e-3)
    assert F.cosine_similarity(gradient, expected, dim=0) > 0.999


def test_other_tokens_are_refused() -> None:
    with pytest.raises(ModelError) as caught:
        value("attention_maps", [qkv(3, 5, 4, 1)], [qkv(3, 10, 4, 1)])
    assert str(caught.value) == (
        "attention_maps compares attention between the same tokens, but s of the student has 5 and t of the teacher 10\n"
        "  → choose the same patch size and the same class and register tokens; or fitnet or attention_transfer, which pool "
        "maps to one size"
    )


def test_relation_heads_that_do_not_divide() -> None:
    with pytest.raises(ModelError) as caught:
        value("minilm", [qkv(3, 5, 4, 1)], [qkv(4, 5, 6, 1)], relation_heads=8)
    assert str(caught.value) == (
        "minilm: 8 relation heads do not divide the widths 12 of the student and 24 of the teacher\n"
        "  → relation_heads has to divide 12"
    )


# --- queries, keys and values of real networks ------------------------------------------------------------------------


def kept(network: nn.Module, path: str) -> Tensor:
    """What the module at ``path`` was called with, by a hook: the independent way."""
    seen: list[Tensor] = []
    handle = network.get_submodule(path).register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    network(X)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_torchvisions_attention_is_what_torch_computes(mode: str) -> None:
    torch.manual_seed(0)
    network = torchvision_vit(heads=4).train(mode == "train")
    path = "encoder.layers.encoder_layer_1.self_attention"
    module = network.get_submodule(path)
    assert isinstance(module, nn.MultiheadAttention)
    nn.init.normal_(module.in_proj_bias)
    x = kept(network, path).transpose(0, 1)
    _, expected = F.multi_head_attention_forward(
        x, x, x, 16, 4, module.in_proj_weight, module.in_proj_bias, None, None, False, 0.0, module.out_proj.weight,
        module.out_proj.bias, need_weights=True, average_attn_weights=False,
    )  # fmt: skip
    logits, found = Tapped(network, (f"{path}:qkv",)).train(mode == "train")(X)
    assert found.shape == (2, 3, 4, 17, 4)
    query, key, value = found.unbind(1)
    torch.testing.assert_close(torch.softmax(query @ key.transpose(2, 3) / 4**0.5, -1), expected)
    out = module.out_proj((expected @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(out, module(x.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1))[0])
    torch.testing.assert_close(logits, network(X))


def test_attention_that_is_written_out() -> None:
    torch.manual_seed(0)
    network = OwnViT(heads=4).eval()
    module: Any = network.rows[1].attention
    module.scale = 0.3  # another one than the rule
    x = kept(network, "rows.1.attention")
    (found,) = Tapped(network, ("rows.1.attention:qkv",)).eval()(X)[1:]
    query, key = (layer(x).unflatten(2, (4, 4)).transpose(1, 2) for layer in (module.query, module.key))
    torch.testing.assert_close(found[:, 0] @ found[:, 1].transpose(2, 3) / 4**0.5, 0.3 * query @ key.transpose(2, 3))
    torch.testing.assert_close(found[:, 2].transpose(1, 2).flatten(2), module.value(x))


def test_timms_attention() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=24, num_heads=3, depth=2,
                                num_classes=4).eval()  # fmt: skip
    x = kept(network, "blocks.1.attn")
    (found,) = Tapped(network, ("blocks.1.attn:qkv",)).eval()(X)[1:]
    torch.testing.assert_close(found.permute(0, 3, 1, 2, 4).flatten(2), network.blocks[1].attn.qkv(x))
    assert [str(layer) for layer in survey(network, X[:1]).attentions] == [
        "blocks.0.attn (3 heads of 8 ch)", "blocks.1.attn (3 heads of 8 ch)",
    ]  # fmt: skip


class Masked(nn.Module):
    """Attention that other things decide as well: not that of its queries and keys alone."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("mask", torch.zeros(16, 16))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.attention(x, x, x, attn_mask=self.mask)[0]
        return self.head(x.mean(1))


@pytest.mark.parametrize("student", [Masked, lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(4))])
def test_a_network_without_attention(student: Callable[[], nn.Module]) -> None:
    network = student()
    network(X)
    with pytest.raises(ModelError) as caught:
        Terms(Distill(epochs=1, losses=[{"kind": "minilm"}]).losses, network, OwnViT(), X[:1], FACTS)
    assert caught.value.message.startswith("distill.losses[0] (minilm): the student has no self-attention that can be read")
    assert caught.value.hint == "fitnet and attention_transfer compare feature maps of any two networks"


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["attention_maps", "minilm"])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [(lambda: torchvision_vit(), lambda: torchvision_vit(depth=4, heads=4, width=32)), (OwnViT, lambda: OwnViT(3, 4, 32))],
    ids=["torchvision", "own"],
)
def test_gradients_reach_the_students_projections(
    kind: str, student: Callable[[], nn.Module], teacher: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    ours, theirs = student().train(), teacher().eval()
    terms = Terms(Distill(epochs=1, losses=[{"kind": kind}]).losses, ours, theirs, X[:1], FACTS)
    taught = Tapped(theirs, terms.teacher_paths).eval()(X)
    (term,) = terms(Tapped(ours, terms.student_paths).train()(X), tuple(t.detach() for t in taught), BATCH, 0)
    term.backward()
    assert all(p.grad is None for p in theirs.parameters())
    last = [p for name, p in ours.named_parameters() if "in_proj_weight" in name or "query.weight" in name][-1]
    assert last.grad is not None
    assert last.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "loss", [{"kind": "attention_maps"}, {"kind": "minilm"}, {"kind": "minilm", "layers": "auto", "relation_heads": 8}]
)
def test_two_epochs(loss: dict[str, Any], npz: Callable[..., str], fabric: Fabric) -> None:
    section = Data(source=npz(), image_size=16)
    torch.manual_seed(0)
    student, teacher = torchvision_vit(), torchvision_vit(depth=4, heads=4, width=32)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    start = {name: value.detach().clone() for name, value in student.named_parameters()}
    settings = Distill.model_validate({"epochs": 2, "batch_size": 16, "losses": [{"kind": "task"}, loss]})
    terms = Terms(settings.losses, student, teacher, X[:1], Facts(4, 72))
    trainable = Trainable.tapped("student", student, terms, settings, 0)
    fitted = fit(fabric, trainable, dataset.load(section), section, Silent(), Teaching.of(teacher, terms))
    curve = fitted.curve.terms[loss["kind"]]
    assert np.isfinite(curve).all()
    assert curve[1] < curve[0]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert not any(torch.equal(fitted.last[name], value) for name, value in start.items())


@pytest.mark.parametrize("student", [torchvision_vit, OwnViT], ids=["torchvision", "own"])
def test_attention_is_an_output_in_int8_training_too(student: Callable[[], nn.Module]) -> None:
    """The gradient of the tap reaches the weights that the logits are made with."""
    from edgekd.quantization import qat

    torch.manual_seed(0)
    network = student().eval()
    path = survey(network, X[:1]).attentions[-1].tap
    tapped = Tapped(network, (path,)).eval()
    prepared = qat.prepare(tapped, X[:1])
    prepared.module(X)
    qat.set_fake_quant(prepared.module, False)
    logits, found = prepared.module(X)
    torch.testing.assert_close((logits, found), tapped(X))
    parameters = dict(prepared.module.named_parameters())
    by_tap = torch.autograd.grad(found.sum(), list(parameters.values()), allow_unused=True, retain_graph=True)
    by_logits = torch.autograd.grad(logits.sum(), list(parameters.values()), allow_unused=True)
    reached = [name for name, a, b in zip(parameters, by_tap, by_logits, strict=True) if a is not None and b is None]
    assert reached == []
