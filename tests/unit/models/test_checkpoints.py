"""Checkpoints as other tools write them: loaded right, or refused with what they are and what to type."""

from __future__ import annotations

import argparse
import json
import random
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

from edgekd.errors import CheckpointError
from edgekd.models import build, checkpoints
from edgekd.models.checkpoints import Checkpoint
from edgekd.reads import watch

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


def in_type(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


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
    "beside plain values": lambda state: {**state, "epoch": 3, "arch": "net"},
    "extra state": lambda state: {**state, "features._extra_state": {"a": 1}, "head._extra_state": None},
    "extra state of tensors": lambda state: {
        "state_dict": {**prefixed("model.", state), "model._extra_state": torch.ones(3)}
    },
    "deep": lambda state: {"a": {"b": {"c": {"d": {"e": state}}}}},
    "float64": lambda state: {name: in_type(value, torch.float64) for name, value in state.items()},
}


@pytest.mark.parametrize("form", LOADED)
def test_forms_that_are_loaded(tmp_path: Path, form: str) -> None:
    state = Net(3).state_dict()
    torch.save(LOADED[form](state), tmp_path / "w.pt")
    target = Net()
    assert build.load_weights(target, tmp_path / "w.pt") == []
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
    build.load_weights(target, index)
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


def test_the_list_of_parts_decides_which_file_a_name_is_from(tmp_path: Path) -> None:
    state, old = Net(3).state_dict(), Net(4).state_dict()
    files = {"m-1.safetensors": [*state][:3], "m-2.safetensors": [*state][3:]}
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, names in files.items() for name in names}}))
    for file, names in files.items():  # each has all names, those of the other with old values
        save_file({name: state[name] if name in names else old[name] for name in state}, tmp_path / file)
    target = Net()
    build.load_weights(target, index)
    assert same(target, state)
    save_file({name: state[name] for name in files["m-2.safetensors"]}, tmp_path / "m-1.safetensors")
    with pytest.raises(CheckpointError, match=r"lists features.0.weight in m-1.safetensors, which does not have it"):
        build.load_weights(Net(), index)


TWICE: dict[str, Callable[[State, State], Any]] = {
    "state_dict_ema": lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
    "model_ema": lambda raw, ema: {"model": raw, "model_ema": prefixed("module.", ema) | {"n_averaged": torch.tensor(9)}},
    "ema": lambda raw, ema: {"state_dict": prefixed("model.", raw) | prefixed("ema.module.", ema)},
    "callbacks.EMA.ema_weights": lambda raw, ema: {
        "state_dict": prefixed("model.", raw),
        "callbacks": {"EMA": {"ema_weights": prefixed("model.", ema)}},
    },
}


@pytest.mark.parametrize("part", TWICE)
def test_of_two_sets_the_recipe_chooses(tmp_path: Path, part: str) -> None:
    """Nothing is chosen silently: raw weights had 11 %, their average 65.7 %."""
    raw, ema = Net(3).state_dict(), Net(4).state_dict()
    path = tmp_path / "w.pt"
    torch.save(TWICE[part](raw, ema), path)
    with pytest.raises(CheckpointError, match="holds 2 sets of weights of this network") as error:
        build.load_weights(Net(), path)
    label = {"ema": "state_dict.ema", "callbacks.EMA.ema_weights": f"{part}.model"}.get(part, part)
    assert f"choose one: weights: {path}#{label}, a moving average" in str(error.value)
    target = Net()
    build.load_weights(target, checkpoints.locate(f"{path}#{part}"))
    assert same(target, ema)
    other = {"state_dict_ema": "state_dict", "model_ema": "model", "ema": "model"}.get(part, "state_dict")
    build.load_weights(target, checkpoints.locate(f"{path}#{other}"))
    assert same(target, raw)
    assert checkpoints.locate(f"{path}#{part}").key() != checkpoints.locate(f"{path}#{other}").key()
    with pytest.raises(CheckpointError, match="has no weights called 'no'"):
        build.load_weights(target, checkpoints.locate(f"{path}#no"))


def test_a_set_may_have_a_prefix_also_when_it_is_named(tmp_path: Path) -> None:
    state = Net(3).state_dict()
    torch.save(lightning(state), tmp_path / "lit.ckpt")
    for part in ("state_dict", "model", "state_dict.model"):
        target = Net()
        build.load_weights(target, checkpoints.locate(f"{tmp_path}/lit.ckpt#{part}"))
        assert same(target, state)


def choices(path: Path) -> list[str]:
    """What a refusal says to type, in the order of its hint; each once."""
    with pytest.raises(CheckpointError, match=r"holds \d sets of weights of this network") as error:
        build.load_weights(Net(), path)
    found = re.findall(rf"{re.escape(str(path))}#([^\s,]*)", error.value.hint)
    assert len(set(found)) == len(found) == int(re.search(r"holds (\d) sets", error.value.message)[1])  # type: ignore[index]
    return found


@pytest.mark.parametrize(
    ("prefix", "label"),
    [("ema.", "ema"), ("module.", "module"), ("ema_model.module.", "ema_model"), ("_orig_mod.", "_orig_mod"),
     ("a.b.", "a.b"), ("plain.", "plain")],
)  # fmt: skip
def test_names_without_a_prefix_beside_others_in_one_dictionary(tmp_path: Path, prefix: str, label: str) -> None:
    raw, other = Net(3).state_dict(), Net(4).state_dict()
    path = tmp_path / "w.pt"
    torch.save({**raw, **prefixed(prefix, other)}, path)
    without = "set1" if label == "plain" else "plain"
    other_label = "set2" if label == "plain" else label
    assert sorted(choices(path)) == sorted((other_label, without))
    said: list[str] = []
    for part, state in ((without, raw), (other_label, other)):
        target = Net()
        build.load_weights(target, checkpoints.locate(f"{path}#{part}"), say=said.append)
        assert same(target, state)
    assert not said  # the other set is no "something else"


WORDS = ("ema", "ema#1", "", "model", "a.b", "a", "b", "my ema", "plain", "set1", "set2", "module", "x/y", "..", "a: b", "é",
         "#", "a\nb", "'", "state_dict", "-", "[x]")  # fmt: skip


@pytest.mark.parametrize("seed", range(60))
def test_each_hint_works_when_it_is_typed(tmp_path: Path, seed: int) -> None:
    """Sets of any names, with and without prefixes, side by side and in one another."""
    chance = random.Random(seed)
    states = [Net(seed + number).state_dict() for number in range(chance.choice((2, 3, 4)))]
    content: dict[str, Any] = {}
    for state in states:
        inside, words = content, chance.choices(WORDS, k=chance.choice((0, 1, 1, 2)))
        for word in words:
            inside = inside.setdefault(word, {})
        prefix = "".join(
            f"{word}." for word in chance.choices(("model", "module", "ema", "plain", "a#b"), k=chance.choice((0, 0, 1, 2)))
        )
        inside.update(prefixed(prefix, state))
    path = tmp_path / "w#1.pt"
    torch.save(content, path)
    kept = [state for state in states if any(state["head.bias"] is value for value in tensors(content))]
    if len(kept) < 2:  # one was written over
        return
    loaded = []
    for label in choices(path):
        target = Net()
        build.load_weights(target, checkpoints.locate(f"{path}#{label}"))
        loaded += [number for number, state in enumerate(kept) if same(target, state)]
    assert sorted(loaded) == [*range(len(kept))]


def tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [one for item in value.values() for one in tensors(item)]


def test_a_counter_in_only_one_of_two_sets_makes_no_difference(tmp_path: Path) -> None:
    """Checkpoints of torch 0.4 lack it; two sets that differ in it alone are one."""
    state = Net(3).state_dict()
    short = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    for sets in ({"state_dict": state, "best": short}, {"state_dict": short, "best": state}):
        torch.save(sets, tmp_path / "w.pt")
        target = Net()
        build.load_weights(target, tmp_path / "w.pt")
        assert same(target, state)
    torch.save({"state_dict": state, "best": {name: value + 1 for name, value in short.items()}}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="holds 2 sets"):
        build.load_weights(Net(), tmp_path / "w.pt")


def test_a_set_that_does_not_fit_is_said_and_not_passed_over(tmp_path: Path) -> None:
    """A moving average of the parameters alone, without the statistics of batch norm."""
    state = Net(3).state_dict()
    torch.save({"model": state, "model_ema": dict(Net(4).named_parameters())}, tmp_path / "w.pt")
    said: list[str] = []
    build.load_weights(Net(), tmp_path / "w.pt", say=said.append)
    assert said == ["  w.pt: reads model; not read: model_ema, which lacks 2 of 9 names"]


def test_a_set_with_more_is_said_and_not_passed_over(tmp_path: Path) -> None:
    torch.save(
        {**Net(3).state_dict(), "criterion.weight": torch.ones(5), **prefixed("ema.", Net(4).state_dict())},
        tmp_path / "w.pt",
    )
    said: list[str] = []
    build.load_weights(Net(), tmp_path / "w.pt", say=said.append)
    assert said[0] == "  w.pt: reads ema; not read: the names without a prefix, which has 1 more, such as criterion.weight"


def test_a_part_of_the_network_that_is_like_it_is_no_set(tmp_path: Path) -> None:
    def network() -> nn.Module:
        return nn.ModuleDict({"a": nn.Linear(2, 2), "ema": nn.ModuleDict({"a": nn.Linear(2, 2)})})

    state, path = network().state_dict(), tmp_path / "w.pt"
    for content in (state, prefixed("model.", state), {"model": prefixed("module.", state)}):
        torch.save(content, path)
        target, said = network(), list[str]()
        build.load_weights(target, path, say=said.append)
        assert same(target, state)
        assert not said


def test_plain_values_beside_the_tensors_are_said(tmp_path: Path) -> None:
    values = {"epoch": 3, "arch": "net", "best": 0.9, "lr": 0.1, "features._extra_state": None}
    torch.save({**Net(3).state_dict(), **values}, tmp_path / "w.pt")
    said: list[str] = []
    build.load_weights(Net(), tmp_path / "w.pt", say=said.append)
    assert said == ["  w.pt: not read: epoch, arch, best and 2 more, beside the tensors"]


def test_a_set_is_meant_by_its_whole_name_first(tmp_path: Path) -> None:
    raw, ema = Net(3).state_dict(), Net(4).state_dict()
    torch.save({"model": {"a": raw, "model": ema}, "best": {"model": raw}}, tmp_path / "w.pt")
    target = Net()
    build.load_weights(target, checkpoints.locate(f"{tmp_path}/w.pt#model.model"))
    assert same(target, ema)


def test_a_checkpoint_is_in_the_key_and_not_among_the_reads(tmp_path: Path) -> None:
    """So that it may lie somewhere else the next time."""
    state = Net(3).state_dict()
    torch.save(state, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    save_file(state, tmp_path / "a-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(state, "a-00001-of-00001.safetensors")}
    (tmp_path / "a.safetensors.index.json").write_text(json.dumps(index))
    with watch.recording() as recorder:
        for name in ("w.pt", "w.safetensors", "a.safetensors.index.json"):
            checkpoints.locate(tmp_path / name).key()
            build.load_weights(Net(), tmp_path / name)
    assert recorder.reads(tmp_path) == ()


def test_a_file_without_tensors_is_the_state_of_a_network_without(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    assert checkpoints.read(tmp_path / "w.safetensors") == {}
    assert build.load_weights(nn.Flatten(), tmp_path / "w.safetensors") == []
    with pytest.raises(CheckpointError, match="does not fit the model: 8 weights of the model are not in it"):
        build.load_weights(Net(), tmp_path / "w.safetensors")


def test_extra_state_of_the_network_is_left_alone(tmp_path: Path) -> None:
    class Stateful(Net):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

        def set_extra_state(self, state: Any) -> None:
            raise AssertionError("it may be anything, and is not read")

    torch.save(Stateful().state_dict(), tmp_path / "w.pt")
    said: list[str] = []
    build.load_weights(Stateful(), tmp_path / "w.pt", say=said.append)
    assert said == ["  w.pt: not read: _extra_state, beside the tensors"]


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    torch.save(lightning(Net(3).state_dict()), tmp_path / "w.ckpt")
    said: list[str] = []
    build.load_weights(Net(), tmp_path / "w.ckpt", say=said.append)
    assert said == ["  w.ckpt: not read: 2 tensors of something else, such as criterion.weight"]


KINDS: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "int8": (lambda value: (10 * value).to(torch.int8), "is torch.int8 in the file and torch.float32", "save the float"),
    "uint8": (lambda value: value.to(torch.uint8), "is torch.uint8 in the file and torch.float32", "whose scales"),
    "bool": (lambda value: value > 0, "is torch.bool in the file and torch.float32 in the model", "save the float weights"),
    "complex": (lambda value: value.to(torch.complex64), "is torch.complex64 in the file", "save the float weights"),
    "sparse": (lambda value: value.to_sparse(), r"is sparse \(torch.sparse_coo\)", "to_dense"),
    "meta": (lambda value: value.to("meta"), "has no values: it was saved from the device meta", "load the weights before"),
    "quantized": (
        lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        r"is quantized \(torch.qint8\)", "before they are quantized",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore:.*torch.ao.quantization:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_are_no_float_weights(tmp_path: Path, kind: str) -> None:
    make, message, hint = KINDS[kind]
    state, path = Net(3).state_dict(), tmp_path / "w.pt"
    torch.save({"state_dict": state | {"head.weight": make(state["head.weight"])}, "scales": {"head": torch.ones(1)}}, path)
    with pytest.raises(CheckpointError, match=f"w.pt: head.weight {message}") as error:
        build.load_weights(Net(), path)
    assert hint in error.value.hint
    torch.save({"model": state, "other": {name: make(v) if v.ndim else v for name, v in state.items()}}, path)
    assert choices(path) == ["model", "other"]


def test_fractions_for_whole_numbers_are_refused(tmp_path: Path) -> None:
    counter = "features.1.num_batches_tracked"
    state = Net(3).state_dict()
    torch.save(state | {counter: torch.tensor(7.0)}, tmp_path / "w.pt")
    target = Net()
    build.load_weights(target, tmp_path / "w.pt")
    assert target.state_dict()[counter] == 7
    torch.save(state | {counter: torch.tensor(7.5)}, tmp_path / "w.pt")
    with pytest.raises(
        CheckpointError, match="is torch.float32 in the file and torch.int64 in the model, and has fractions"
    ):
        build.load_weights(target, tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_floats_of_8_bits_are_converted_and_said(tmp_path: Path, name: str) -> None:
    state = {name: in_type(value, torch.float8_e4m3fn) for name, value in Net(3).state_dict().items()}
    (save_file if name == "w.safetensors" else torch.save)(state, tmp_path / name)
    target, said = Net(), list[str]()
    build.load_weights(target, tmp_path / name, say=said.append)
    assert same(target, {name: in_type(value, torch.float32) for name, value in state.items()})
    assert said == [f"  {name}: converts torch.float8_e4m3fn; scales, if there are any, are not applied"]


def test_values_that_the_networks_type_cannot_hold(tmp_path: Path) -> None:
    state = Net(3).state_dict()
    torch.save(state | {"head.bias": torch.full((5,), 1e300, dtype=torch.float64)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="head.bias is float64 and holds values beyond float32"):
        build.load_weights(Net(), tmp_path / "w.pt")


RENAMED: dict[str, tuple[Callable[[State], State], str]] = {
    "another head": (
        lambda state: {name.replace("head.", "fc."): value for name, value in state.items()},
        "what the model calls head.bias is fc.bias in the file, and 1 more of the 2 likewise: rename them",
    ),
    "all of a part": (
        lambda state: {name.replace("features.", "stem.body."): value for name, value in state.items()},
        "what the model calls features.0.bias is stem.body.0.bias in the file, and 5 more of the 6 likewise: rename them",
    ),
    "another network": (
        lambda state: {"conv1.weight": torch.ones(3), "layer4.1.bn2.bias": torch.ones(5), "fc.weight": torch.ones(5, 4)},
        "it is of another architecture: it has 0 of the model's 8 names; correct model or weights",
    ),
    "a few names alike": (
        lambda state: {"head.weight": torch.ones(5, 4), "stem.0.weight": torch.ones(4, 3, 3, 3)},
        "it is of another architecture: it has 1 of the model's 8 names; correct model or weights",
    ),
}


@pytest.mark.parametrize("form", RENAMED)
def test_names_are_suggested_where_most_correspond(tmp_path: Path, form: str) -> None:
    make, hint = RENAMED[form]
    torch.save(make(Net(3).state_dict()), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="w.pt does not fit the model: ") as error:
        build.load_weights(Net(), tmp_path / "w.pt")
    assert error.value.hint.startswith(hint)


@pytest.mark.parametrize("newer", [True, False])
def test_weight_norm_of_another_torch(tmp_path: Path, newer: bool) -> None:
    def made(seed: int, new: bool) -> nn.Module:
        torch.manual_seed(seed)
        layer = nn.Linear(3, 4)
        return nn.Sequential(weight_norm(layer) if new else old_weight_norm(layer), nn.Linear(4, 5))

    source, target = made(1, newer), made(2, not newer)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    build.load_weights(target, tmp_path / "w.pt")
    x = torch.randn(2, 3)
    assert torch.equal(source(x), target(x))


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nn.utils.weight_norm(layer)


def test_weights_that_ship_with_edgekd() -> None:
    assert checkpoints.locate("edgekd:fashion-mnist-resnet10").path.is_file()
    with pytest.raises(CheckpointError, match="no weights 'edgekd:no-such-weights' ship with edgekd") as error:
        checkpoints.locate("edgekd:no-such-weights")
    assert error.value.hint == "allowed: edgekd:fashion-mnist-resnet10, or a file"


def test_a_file_with_a_number_sign_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "run#3.pt").write_bytes(b"")
    assert checkpoints.locate(tmp_path / "run#3.pt") == Checkpoint(tmp_path / "run#3.pt")
    assert checkpoints.locate(f"{tmp_path}/run#3.pt#ema") == Checkpoint(tmp_path / "run#3.pt", "ema")
    (tmp_path / "20.pt").write_bytes(b"")
    assert checkpoints.locate(f"{tmp_path}/20.pt#ema#1") == Checkpoint(tmp_path / "20.pt", "ema#1")
    with pytest.raises(CheckpointError, match="no.pt does not exist"):
        checkpoints.locate(f"{tmp_path}/no.pt#ema")
