"""Checkpoints as other tools write them: loaded right, or refused with what they are and what to type."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgekd import checkpoints, models, reads
from edgekd.checkpoints import Checkpoint
from edgekd.errors import CheckpointError

State = dict[str, Tensor]


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x).mean((2, 3)))
        return out


def same(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    ours = model.state_dict()
    return ours.keys() == state.keys() and all(torch.equal(ours[name], state[name]) for name in ours)


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def lightning(state: State) -> dict[str, Any]:
    beside = {"criterion.weight": torch.ones(5), "metric.confusion": torch.zeros(5, 5)}
    return {
        "state_dict": prefixed("model.", state) | beside, "epoch": 3, "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"lr": 0.1}, "optimizer_states": [adam(state)],
    }  # fmt: skip


def adam(state: State) -> dict[str, Any]:
    return {
        "state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    }


def torchvision_reference(state: State) -> dict[str, Any]:
    args = argparse.Namespace(lr=0.1, output_dir=Path("out"), epochs=90)
    return {"model": state, "optimizer": adam(state), "epoch": 9, "args": args, "scaler": {"scale": 65536.0}}


def averaged(state: State) -> State:
    net = Net()
    net.load_state_dict(state)
    return AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9)).state_dict()


LOADED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": adam(state)},
    "net": lambda state: {"net": state, "acc": np.float64(93.1), "epoch": np.int64(9)},
    "timm": lambda state: {"epoch": 3, "arch": "net", "state_dict": state, "args": argparse.Namespace(model="net")},
    "torchvision reference": torchvision_reference,
    "lightning": lightning,
    "data parallel": lambda state: prefixed("module.", state),
    "compiled": lambda state: {"model": prefixed("_orig_mod.", state)},
    "compiled in parallel": lambda state: prefixed("module._orig_mod.", state),
    "a compiled part": lambda state: {name.replace("features.", "features._orig_mod."): v for name, v in state.items()},
    "averaged": averaged,
    "params_ema alone": lambda state: {"params_ema": state},
    "mmengine": lambda state: {"meta": {"epoch": 3, "time": "now"}, "state_dict": state, "param_schedulers": []},
    "mmpretrain": lambda state: {"state_dict": prefixed("backbone.", state) | {"data_preprocessor.mean": torch.zeros(3)}},
    "thop": lambda state: state | {"total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1)},
    "accelerate": lambda state: {"module": state, "step": 3},
    "nested": lambda state: {"checkpoint": {"model": {"state_dict": state}}},
    "twice the same": lambda state: {"state_dict": state, "best_state_dict": dict(state)},
}


@pytest.mark.parametrize("form", LOADED)
def test_forms_that_are_loaded(tmp_path: Path, form: str) -> None:
    state = Net(3).state_dict()
    torch.save(LOADED[form](state), tmp_path / "w.pt")
    target = Net()
    assert models.load_weights(target, tmp_path / "w.pt") == []
    assert same(target, state)


def test_parts_of_safetensors(tmp_path: Path) -> None:
    state = Net(3).state_dict()
    names = [*state]
    files = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for file, inside in files.items():
        save_file({name: state[name] for name in inside}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, inside in files.items() for name in inside}}))
    target = Net()
    models.load_weights(target, index)
    assert same(target, state)
    key = Checkpoint(index).key()
    with pytest.raises(CheckpointError, match="is part 1 of 2") as error:
        checkpoints.read(tmp_path / "model-00001-of-00002.safetensors")
    assert str(index) in str(error.value)
    save_file({name: state[name] + 1 for name in names[3:]}, tmp_path / "model-00002-of-00002.safetensors")
    assert Checkpoint(index).key() != key
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lists model-00002-of-00002.safetensors, which is not beside it"):
        Checkpoint(index).key()


TWICE: dict[str, Callable[[State, State], Any]] = {
    "state_dict_ema": lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
    "model_ema": lambda raw, ema: {"model": raw, "model_ema": prefixed("module.", ema) | {"n_averaged": torch.tensor(9)}},
    "ema": lambda raw, ema: {"state_dict": prefixed("model.", raw) | prefixed("ema.module.", ema)},
}


@pytest.mark.parametrize("part", TWICE)
def test_of_two_sets_the_recipe_chooses(tmp_path: Path, part: str) -> None:
    """Nothing is chosen silently: raw weights had 11 %, their average 65.7 %."""
    raw, ema = Net(3).state_dict(), Net(4).state_dict()
    path = tmp_path / "w.pt"
    torch.save(TWICE[part](raw, ema), path)
    with pytest.raises(CheckpointError, match="holds 2 sets of weights of this network") as error:
        models.load_weights(Net(), path)
    label = "state_dict.ema" if part == "ema" else part
    assert f"choose one: weights: w.pt#{label}, a moving average" in str(error.value)
    target = Net()
    models.load_weights(target, checkpoints.locate(f"{path}#{part}"))
    assert same(target, ema)
    other = {"state_dict_ema": "state_dict", "model_ema": "model", "ema": "model"}[part]
    models.load_weights(target, checkpoints.locate(f"{path}#{other}"))
    assert same(target, raw)
    assert checkpoints.locate(f"{path}#{part}").key() != checkpoints.locate(f"{path}#{other}").key()
    with pytest.raises(CheckpointError, match="has no weights called 'no'"):
        models.load_weights(target, checkpoints.locate(f"{path}#no"))


def test_a_counter_in_only_one_of_two_sets_makes_no_difference(tmp_path: Path) -> None:
    """Checkpoints of torch 0.4 lack it; two sets that differ in it alone are one."""
    state = Net(3).state_dict()
    short = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    for sets in ({"state_dict": state, "best": short}, {"state_dict": short, "best": state}):
        torch.save(sets, tmp_path / "w.pt")
        target = Net()
        models.load_weights(target, tmp_path / "w.pt")
        assert same(target, state)
    torch.save({"state_dict": state, "best": {name: value + 1 for name, value in short.items()}}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="holds 2 sets"):
        models.load_weights(Net(), tmp_path / "w.pt")


def test_a_set_that_does_not_fit_is_said_and_not_passed_over(tmp_path: Path) -> None:
    """A moving average of the parameters alone, without the statistics of batch norm."""
    state = Net(3).state_dict()
    torch.save({"model": state, "model_ema": dict(Net(4).named_parameters())}, tmp_path / "w.pt")
    said: list[str] = []
    models.load_weights(Net(), tmp_path / "w.pt", say=said.append)
    assert said == ["  w.pt: reads model; not read: model_ema, which lacks 2 of 9 names"]


def test_a_set_is_meant_by_its_whole_name_first(tmp_path: Path) -> None:
    raw, ema = Net(3).state_dict(), Net(4).state_dict()
    torch.save({"model": {"a": raw, "model": ema}, "best": {"model": raw}}, tmp_path / "w.pt")
    target = Net()
    models.load_weights(target, checkpoints.locate(f"{tmp_path}/w.pt#model.model"))
    assert same(target, ema)


def test_a_checkpoint_is_in_the_key_and_not_among_the_reads(tmp_path: Path) -> None:
    """So that it may lie somewhere else the next time."""
    state = Net(3).state_dict()
    torch.save(state, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    save_file(state, tmp_path / "a-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(state, "a-00001-of-00001.safetensors")}
    (tmp_path / "a.safetensors.index.json").write_text(json.dumps(index))
    with reads.recording() as recorder:
        for name in ("w.pt", "w.safetensors", "a.safetensors.index.json"):
            checkpoints.locate(tmp_path / name).key()
            models.load_weights(Net(), tmp_path / name)
    assert recorder.reads(tmp_path) == ()


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    torch.save(lightning(Net(3).state_dict()), tmp_path / "w.ckpt")
    said: list[str] = []
    models.load_weights(Net(), tmp_path / "w.ckpt", say=said.append)
    assert said == ["  w.ckpt: not read: 2 tensors of something else, such as criterion.weight"]


@pytest.mark.parametrize("newer", [True, False])
def test_weight_norm_of_another_torch(tmp_path: Path, newer: bool) -> None:
    def made(seed: int, new: bool) -> nn.Module:
        torch.manual_seed(seed)
        layer = nn.Linear(3, 4)
        return nn.Sequential(weight_norm(layer) if new else old_weight_norm(layer), nn.Linear(4, 5))

    source, target = made(1, newer), made(2, not newer)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    models.load_weights(target, tmp_path / "w.pt")
    x = torch.randn(2, 3)
    assert torch.equal(source(x), target(x))


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nn.utils.weight_norm(layer)


class Custom:
    """A type of somebody's."""


def write_script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(Net().eval(), torch.zeros(1, 3, 8, 8)), path)


REFUSED: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "whole model": ("w.pt", lambda p: torch.save(Net(), p), "holds Python objects", "save the weights alone"),
    "custom type": (
        "w.pt", lambda p: torch.save({"state_dict": Net().state_dict(), "cfg": Custom()}, p),
        r"holds Python objects \(.*Custom\), not only tensors", "save the weights alone",
    ),
    "pickle": ("w.pkl", lambda p: p.write_bytes(pickle.dumps(Custom())), "holds Python objects", "save the weights alone"),
    "git-lfs": (
        "w.pt", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a pointer of git-lfs", "git lfs pull",
    ),
    "web page": ("w.pth", lambda p: p.write_text("\n<!DOCTYPE html><html>"), "is a web page", "download the file itself"),
    "TorchScript": ("w.pt", write_script, "is a TorchScript program", r"torch.jit.load\('w.pt'\).state_dict"),
    "onnx": ("w.onnx", lambda p: p.write_bytes(b"\x08\x07"), "is a model of another format", "model: onnx:w.onnx"),
    "gzip": ("w.pt.gz", lambda p: p.write_bytes(b"\x1f\x8b\x08"), "is compressed", "unpack it"),
    "numpy": ("w.npz", lambda p: np.savez(p, a=np.zeros(3)), "is an archive without weights", "unpack it"),
    "optimizer": ("w.pt", lambda p: torch.save({"optimizer": adam({})}, p), "is not a state_dict", "save model.state_dict"),
    "cut off": ("w.pt", lambda p: p.write_bytes(b"PK\x03\x04" + bytes(99)), "is not a readable checkpoint", "save it again"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", REFUSED)
def test_forms_that_are_refused_with_what_they_are(tmp_path: Path, form: str) -> None:
    name, write, message, hint = REFUSED[form]
    write(tmp_path / name)
    with pytest.raises(CheckpointError, match=message) as error:
        models.load_weights(Net(), tmp_path / name)
    assert error.value.message.startswith(str(tmp_path / name))
    assert re.search(hint, error.value.hint)


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ("https://host/net.pt", "is a URL", "download it"),
        ("IMAGENET1K_V1", "is torchvision's name for weights, not a file", "get_model"),
        ("ResNet18_Weights.DEFAULT", "is torchvision's name for weights, not a file", "get_model"),
        ("no.pt", "does not exist", "correct the path"),
        (".", "is a folder", "give a file in it: best.ckpt"),
    ],
)
def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str, hint: str) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for text in (given, str(tmp_path / given)):  # as typed, and as a recipe has made it
        with pytest.raises(CheckpointError, match=message) as error:
            checkpoints.locate(text)
        assert hint in error.value.hint


def test_weights_that_ship_with_edgekd() -> None:
    assert checkpoints.locate("edgekd:fashion-mnist-resnet10").path.is_file()
    with pytest.raises(CheckpointError, match="no weights 'edgekd:no-such-weights' ship with edgekd") as error:
        checkpoints.locate("edgekd:no-such-weights")
    assert error.value.hint == "allowed: edgekd:fashion-mnist-resnet10, or a file"


def test_a_file_with_a_number_sign_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "run#3.pt").write_bytes(b"")
    assert checkpoints.locate(tmp_path / "run#3.pt") == Checkpoint(tmp_path / "run#3.pt")
    assert checkpoints.locate(f"{tmp_path}/run#3.pt#ema") == Checkpoint(tmp_path / "run#3.pt", "ema")
