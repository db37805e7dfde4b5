from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.distill.adapters.contrast import Contrast
from edgekd.distill.outputs import Batch, Facts, Outputs
from edgekd.models.torchvision import import_torchvision
from edgekd.registry import losses
from edgekd.taps.layer import Layer
from edgekd.taps.pairing import Pair

Array = NDArray[np.float64]

N, IMAGES, CLASSES = 4, 30, 3
PAIRS = (Pair(Layer("s", (5,)), Layer("t", (7,))),)
LABELS = torch.arange(IMAGES) % CLASSES
FACTS = Facts(CLASSES, IMAGES, LABELS)
INDICES = torch.tensor([3, 29, 0, 14])
NEGATIVES = torch.randint(IMAGES, (N, 6), generator=torch.Generator().manual_seed(9))


def embeddings(seed: int, width: int) -> Tensor:
    return torch.randn(N, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contrast(facts: Facts = FACTS, **options: float) -> Contrast:
    torch.manual_seed(0)
    adapter = losses.get("crd").model_validate({"negatives": 6, "width": 8, **options}).adapter(PAIRS, facts)
    assert isinstance(adapter, Contrast)
    return adapter.double()


def unit(x: Array) -> Array:
    result: Array = x / np.sqrt((x**2).sum(axis=-1, keepdims=True))
    return result


def test_crd_is_tian_2020() -> None:
    """h = p / (p + N/M) with p = e^(s·t/τ) / Z: −log h of the positive and −log(1 − h) of each negative, both ways."""
    adapter = contrast(temperature=0.5)
    before = adapter.memory.numpy().copy()
    s, t = embeddings(1, 5), embeddings(2, 7)
    for _ in range(2):  # the constants are the first batch's
        memory = adapter.memory.numpy().copy()
        value = adapter(s, t, INDICES, NEGATIVES)
        us, ut = (
            unit(x.numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
            for x, layer in ((s, adapter.student), (t, adapter.teacher))
        )
        expected = 0.0
        for own, other, first in ((us, memory[1], before[1]), (ut, memory[0], before[0])):
            chosen = np.concatenate([INDICES.numpy()[:, None], NEGATIVES.numpy()], axis=1)
            z = np.mean([np.exp(own[i] @ first[j] / 0.5) for i in range(N) for j in chosen[i]]) * IMAGES
            for i in range(N):
                p = np.array([np.exp(own[i] @ other[j] / 0.5) / z for j in chosen[i]])
                h = p / (p + 6 / IMAGES)
                expected -= (np.log(h[0]) + np.log(1 - h[1:]).sum()) / N
        assert value.item() == pytest.approx(expected, rel=1e-5)  # the authors' ε is 1e-7


def test_memory_moves_to_what_was_seen() -> None:
    adapter = contrast(momentum=0.25)
    before = adapter.memory.clone()
    s, t = embeddings(1, 5), embeddings(2, 7)
    adapter(s, t, INDICES, NEGATIVES)
    for row, (x, layer) in enumerate(((s, adapter.student), (t, adapter.teacher))):
        new = unit(layer(x).detach().numpy())
        expected = unit(0.25 * before[row, INDICES].numpy() + 0.75 * new)
        assert adapter.memory[row, INDICES].numpy() == pytest.approx(expected, rel=1e-9)
    others = np.setdiff1d(np.arange(IMAGES), INDICES.numpy())
    assert torch.equal(adapter.memory[:, others], before[:, others])


def test_crd_as_torchdistill() -> None:
    """Value, gradients and memories over two batches, from the same memory and the same drawn negatives."""
    import_torchvision()
    from torchdistill.losses.mid_level import CRDLoss

    adapter = contrast()
    other = CRDLoss("s", "e", "t", 8, IMAGES, 6, IMAGES).double()
    other.memory_v1.copy_(adapter.memory[0])
    other.memory_v2.copy_(adapter.memory[1])
    chosen = torch.cat((INDICES.unsqueeze(1), NEGATIVES), dim=1)
    for seed in (1, 3):
        s, t = embeddings(seed, 5).requires_grad_(), embeddings(seed + 1, 7)
        found = adapter(s, t, INDICES, NEGATIVES)
        theirs = other(
            {
                "s": {"output": torch.nn.functional.normalize(adapter.student(s))},
                "e": {"input": {"pos_idx": INDICES, "contrast_idx": chosen}},
            },
            {"t": {"output": torch.nn.functional.normalize(adapter.teacher(t))}},
        ).squeeze()
        parameters = (s, *adapter.parameters())
        torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-8)
        for a, b in zip(
            torch.autograd.grad(found, parameters), torch.autograd.grad(theirs, parameters), strict=True
        ):  # fmt: skip
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(adapter.memory, torch.stack((other.memory_v1, other.memory_v2)), rtol=1e-5, atol=1e-8)


# --- negatives --------------------------------------------------------------------------------------------------------


def test_negatives_are_all_images_of_other_classes() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([2, 0, 1, 1, 2, 2, 0, 2])
    adapter = contrast(Facts(3, 8, labels), negatives=7)
    drawn = torch.cat([adapter.draw(torch.arange(8)) for _ in range(40)], dim=1)
    for image in range(8):
        assert set(drawn[image].tolist()) == {other for other in range(8) if labels[other] != labels[image]}


@pytest.mark.parametrize("labels", [None, torch.zeros(IMAGES, dtype=torch.int64)])
def test_without_another_class_negatives_are_all_other_images(labels: Tensor | None) -> None:
    torch.manual_seed(0)
    adapter = contrast(Facts(CLASSES, IMAGES, labels), negatives=29)
    drawn = torch.cat([adapter.draw(torch.arange(IMAGES)) for _ in range(20)], dim=1)
    for image in range(IMAGES):
        assert set(drawn[image].tolist()) == set(range(IMAGES)) - {image}


def test_no_more_negatives_than_other_images() -> None:
    adapter = losses.get("crd")().adapter(PAIRS, FACTS)
    assert adapter.draw(INDICES).shape == (N, 29)
    assert losses.get("crd")(negatives=5).adapter(PAIRS, FACTS).draw(INDICES).shape == (N, 5)


# --- gradients and extremes -------------------------------------------------------------------------------------------


def test_gradients_reach_student_and_maps_and_not_the_teacher() -> None:
    adapter = contrast()
    s, t = embeddings(1, 5).requires_grad_(), embeddings(2, 7)
    logits = torch.zeros(N, CLASSES)
    value = losses.get("crd")()(Outputs(logits, (s,)), Outputs(logits, (t,)), Batch(LABELS[INDICES], INDICES), adapter)
    value.backward()
    for tensor in (s, *adapter.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() > 0
    assert t.grad is None


@pytest.mark.parametrize("n", [1, 4])
def test_dead_embeddings_are_finite(n: int) -> None:
    """All zero even behind the map: a vector of no length."""
    adapter = contrast()
    torch.nn.init.zeros_(adapter.student.bias)
    s = torch.zeros(n, 5, dtype=torch.float64, requires_grad=True)
    value = adapter(s, torch.zeros(n, 7, dtype=torch.float64), INDICES[:n], NEGATIVES[:n])
    value.backward()
    assert torch.isfinite(value)
    assert s.grad is not None
    assert torch.isfinite(s.grad).all()
    assert torch.isfinite(adapter.memory).all()


def test_half_precision_is_left_to_the_map() -> None:
    """Under autocast the value is that of float32: e to the power of x/0.07 would magnify a rounding by 14."""
    adapter, s, t = contrast().float(), embeddings(1, 5).float(), embeddings(2, 7).float()
    memory = adapter.memory.clone()
    plain = adapter(s, t, INDICES, NEGATIVES)
    adapter.memory.copy_(memory)
    adapter.constants.zero_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(adapter(s, t, INDICES, NEGATIVES), plain)


def _in_process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    adapter, half = contrast(), slice(2 * rank, 2 * rank + 2)
    adapter(embeddings(1, 5)[half], embeddings(2, 7)[half], INDICES[half], NEGATIVES[half])
    np.savez(f"{folder}/{rank}.npz", memory=adapter.memory.numpy(), constants=adapter.constants.numpy())
    torch.distributed.destroy_process_group()


def test_two_processes_have_one_memory(tmp_path: Path) -> None:
    """That of one process that sees both halves of the batch."""
    torch.multiprocessing.spawn(_in_process, (str(tmp_path),), nprocs=2)
    adapter = contrast()
    adapter(embeddings(1, 5), embeddings(2, 7), INDICES, NEGATIVES)
    for rank in (0, 1):
        found = np.load(tmp_path / f"{rank}.npz")
        assert found["memory"] == pytest.approx(adapter.memory.numpy(), rel=1e-12)
        assert found["constants"] == pytest.approx(adapter.constants.numpy(), rel=1e-12)
