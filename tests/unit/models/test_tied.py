"""Tied weights through copies, conversions and files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file, save_model
from torch import nn

from edgekd.errors import CheckpointError
from edgekd.models import build, checkpoints, tied


class Tied(nn.Module):
    """Two layers with one weight, and biases of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.b(self.a(x))
        return y


def test_saved_once_and_loaded_tied(tmp_path: Path) -> None:
    net, other = Tied(), Tied()
    tied.save(net.state_dict(), tmp_path / "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["a.bias", "a.weight", "b.bias"]
    state = checkpoints.read(tmp_path / "w.safetensors")
    assert sorted(state) == ["a.bias", "a.weight", "b.bias", "b.weight"]
    assert tied.aliases(state) == {"b.weight": "a.weight"}
    build.load_weights(other, tmp_path / "w.safetensors")
    assert other.b.weight is other.a.weight
    x = torch.randn(3, 4)
    assert torch.equal(net(x), other(x))


def test_a_file_of_save_model_and_one_without_the_second_name(tmp_path: Path) -> None:
    net = Tied()
    save_model(net, str(tmp_path / "a.safetensors"))
    save_file({k: v for k, v in net.state_dict().items() if k != "a.weight"}, tmp_path / "b.safetensors")
    torch.save(net.state_dict(), tmp_path / "c.pt")
    for name in ("a.safetensors", "b.safetensors", "c.pt"):
        other = Tied()
        build.load_weights(other, tmp_path / name)
        assert torch.equal(other.a.weight, net.a.weight), name


def test_two_different_tensors_do_not_fit_one(tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in Tied().state_dict().items()}
    state["b.weight"] += 1
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.weight and b\.weight are one tensor in the model and differ in the file"):
        build.load_weights(Tied(), tmp_path / "w.safetensors")


def test_copies_and_conversions_stay_tied() -> None:
    state = Tied().state_dict()
    for made in (tied.copied(state), tied.converted(tied.copied(state), torch.float16)):
        assert list(made) == list(state)
        assert tied.aliases(made) == {"b.weight": "a.weight"}
    assert made["a.bias"].dtype == torch.float16
    assert tied.copied(state)["a.weight"].data_ptr() != state["a.weight"].data_ptr()


def test_a_part_of_another_tensor_is_a_tensor_in_the_file(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    tied.save(
        {"whole": whole, "part": whole[:3], "none": torch.zeros(0), "empty": torch.zeros(0)}, tmp_path / "w.safetensors"
    )
    state = checkpoints.read(tmp_path / "w.safetensors")
    assert state["part"].tolist() == [0, 1, 2]
    assert sorted(state) == ["empty", "none", "part", "whole"]
    tied.save({"alone": torch.ones(2)}, tmp_path / "alone.safetensors")
    save_file({"alone": torch.ones(2)}, tmp_path / "before.safetensors")
    assert (tmp_path / "alone.safetensors").read_bytes() == (tmp_path / "before.safetensors").read_bytes()
