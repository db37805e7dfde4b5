"""Weights from checkpoints, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.unit.models.given import DATA, same, small, stored, text_of
from torch import nn

from edgekd.errors import CheckpointError, ModelError
from edgekd.models import build, checkpoints
from edgekd.models.checkpoints import Checkpoint
from edgekd.task.image_classification import purpose

WRAPPED: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "data parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
}


@pytest.mark.parametrize("form", WRAPPED)
def test_weights_from_torch_files(tmp_path: Path, form: str) -> None:
    source, target = small(), small(5)
    with torch.no_grad():
        source[0].weight.add_(1)
    torch.save(WRAPPED[form](source.state_dict()), tmp_path / "w.pt")
    assert build.load_weights(target, tmp_path / "w.pt") == []
    assert same(source, target)


def test_weights_from_safetensors_in_half(tmp_path: Path) -> None:
    source, target = small(), small()
    with torch.no_grad():
        source[3].weight.add_(1)
    halves = {name: v.half() if v.is_floating_point() else v for name, v in source.state_dict().items()}
    save_file(halves, tmp_path / "w.safetensors")
    build.load_weights(target, tmp_path / "w.safetensors")
    assert target[3].weight.dtype == torch.float32
    assert torch.equal(target[3].weight, source[3].weight.half().float())


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": small().state_dict(), "config": Trap()}, tmp_path / "w.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("w.pt", "plain.pt"):
        assert text_of(CheckpointError, lambda name=name: checkpoints.read(tmp_path / name)) == (
            f"{tmp_path}/{name} holds Python objects, not only tensors; loading it could run code, so edgekd does not\n"
            "  → save only the weights: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        )
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "w.pt")
    assert "holds Python objects" in text_of(CheckpointError, lambda: checkpoints.read(tmp_path / "w.pt"))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("how", ["truncated", "empty", "text"])
def test_damaged_checkpoint(tmp_path: Path, suffix: str, how: str) -> None:
    path = tmp_path / f"w.{suffix}"
    state = small().state_dict()
    if suffix == "pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"<html>not found</html>"}[how])
    assert text_of(CheckpointError, lambda: checkpoints.read(path)).startswith(f"{path} ")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3, "w": torch.zeros(1)}, torch.zeros(2)])
def test_what_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert text_of(CheckpointError, lambda: checkpoints.read(tmp_path / "w.pt")) == (
        f"{tmp_path}/w.pt is not a state_dict\n  → save model.state_dict()"
    )


def test_weights_of_another_model(tmp_path: Path) -> None:
    state = small().state_dict()
    del state["0.bias"], state["3.bias"]
    path = stored(tmp_path, state | {"4.weight": torch.zeros(1)})
    assert text_of(CheckpointError, lambda: build.load_weights(small(), path)) == (
        f"{path} does not fit the model: 2 weights of the model are not in it (first: 0.bias); "
        "1 are not in the model (first: 4.weight)\n"
        "  → is it of another architecture, or with other args? correct model, args or weights"
    )


def test_weights_of_before_num_batches_tracked(tmp_path: Path) -> None:
    """Checkpoints of torch 0.4 lack the counter; nothing depends on it."""
    source, target = small(), small()
    state = source.state_dict()
    del state["1.num_batches_tracked"]
    assert build.load_weights(target, stored(tmp_path, state)) == []


def test_weights_of_another_shape(tmp_path: Path) -> None:
    path = stored(tmp_path, small(7).state_dict())
    target = small(5)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    assert text_of(CheckpointError, lambda: build.load_weights(target, path)) == (
        f"{path} does not fit the model: 3.weight is (7, 4) in the file and (5, 4) in the model\n"
        "  → is it for the same number of classes? correct model, args or weights"
    )
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_weights_of_another_width(tmp_path: Path) -> None:
    """The number of classes is the same: what the next layer reads is not."""

    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    path = stored(tmp_path, net(6).state_dict())
    assert text_of(CheckpointError, lambda: build.load_weights(net(5), path)) == (
        f"{path} does not fit the model: 0.weight is (6, 4) in the file and (5, 4) in the model\n"
        "  → is it of another architecture, or with other args? correct model, args or weights"
    )


def test_a_student_may_have_another_head(tmp_path: Path) -> None:
    source, target = small(7), small(5)
    head = target[3].weight.clone()
    path = stored(tmp_path, source.state_dict())
    assert build.load_weights(target, path, other_head=True) == ["3.weight", "3.bias"]
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[3].weight, head)


def test_another_head_is_not_another_network(tmp_path: Path) -> None:
    """Weights of another width must not be dropped one and all: the student would start from nothing, unsaid."""
    path = stored(tmp_path, small(5, width=8).state_dict())
    text = text_of(CheckpointError, lambda: build.load_weights(small(5, width=4), path, other_head=True))
    assert text.startswith(f"{path} does not fit the model: 0.weight is (8, 3, 3, 3) in the file and (4, 3, 3, 3) in")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = small().state_dict()
    state["3.bias"][2] = value
    path = stored(tmp_path, state)
    target = small()
    with torch.no_grad():
        target[0].weight.zero_()
    assert text_of(CheckpointError, lambda: build.load_weights(target, path)) == (
        f"{path}: 3.bias holds NaN or infinity\n  → use another checkpoint"
    )
    assert not target[0].weight.any()


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "net.backbone."])
def test_weights_with_a_prefix(tmp_path: Path, prefix: str) -> None:
    """Lightning, torch.compile and DataParallel put something before every name."""
    state = small().state_dict()
    path = stored(tmp_path, {f"{prefix}{name}": value for name, value in state.items()})
    model = small()
    assert build.load_weights(model, path) == []
    assert torch.equal(model.state_dict()["0.weight"], state["0.weight"])


def test_the_number_of_classes_is_read_from_the_head(tmp_path: Path) -> None:
    seven = build.network("torchvision:resnet18", {}, purpose(DATA, 7))
    path = stored(tmp_path, seven.state_dict())
    assert build.classes_of("torchvision:resnet18", {}, Checkpoint(path), purpose(DATA)) == 7
    assert build.classes_of("torchvision:resnet18", {"num_classes": 7}, Checkpoint(path), purpose(DATA)) == 7


def test_one_output_cannot_be_compared(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef one():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 1))\n"
    )
    path = stored(tmp_path, {"1.weight": torch.zeros(1, 3072), "1.bias": torch.zeros(1)})
    assert "has one output" in text_of(
        ModelError, lambda: build.classes_of(f"{tmp_path}/net.py:one", {}, Checkpoint(path), purpose(DATA))
    )
