"""What a file with weights is, by its content: read under any name, or refused with what it is and what to do."""

from __future__ import annotations

import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tests.unit.models.test_checkpoints import Net, adam, same

from edgekd.errors import CheckpointError
from edgekd.models import build, checkpoints


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.safetensors", "w.onnx", "w"])
@pytest.mark.parametrize("form", ["torch", "torch before its archives", "safetensors"])
def test_a_file_is_what_it_holds_whatever_it_is_called(tmp_path: Path, form: str, name: str) -> None:
    state, path = Net(3).state_dict(), tmp_path / name
    with path.open("wb") as file:
        if form == "safetensors":
            file.write(save(state))
        else:
            torch.save({"state_dict": state}, file, _use_new_zipfile_serialization=form == "torch")
    target = Net()
    build.load_weights(target, path)
    assert same(target, state)


class Custom:
    """A type of somebody's."""


def write_script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(Net().eval(), torch.zeros(1, 3, 8, 8)), path)


def write_program(path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(torch.export.export(Net().eval(), (torch.zeros(1, 3, 8, 8),)), file)


def write_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no weights")


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("best.pt"))


REFUSED: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "whole model": ("w.pt", lambda p: torch.save(Net(), p), "holds Python objects", "save only the weights"),
    "custom type": (
        "w.pt", lambda p: torch.save({"state_dict": Net().state_dict(), "cfg": Custom()}, p),
        r"holds Python objects \(.*Custom\), not only tensors", "save only the weights",
    ),
    "pickle": ("w.pkl", lambda p: p.write_bytes(pickle.dumps(Custom())), "holds Python objects", "save only the weights"),
    "git-lfs": (
        "w.pt", lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        "is a pointer of git-lfs", "git lfs pull",
    ),
    "web page": ("w.pth", lambda p: p.write_text("\n<!DOCTYPE html><html>"), "is a web page", "download the file itself"),
    "TorchScript": ("w.pt", write_script, "is a TorchScript program", r"torch.jit.load\('w.pt'\).state_dict"),
    "onnx": ("w.onnx", lambda p: p.write_bytes(b"\x08\x07"), "is a model of another format", "model: onnx:w.onnx"),
    "gzip": ("w.pt.gz", lambda p: p.write_bytes(b"\x1f\x8b\x08"), "is compressed", "unpack it"),
    "numpy": ("w.npz", lambda p: np.savez(p, a=np.zeros(3)), "holds numpy arrays, not tensors", "numpy.load"),
    "archive": ("w.zip", write_archive, "is an archive without weights", "unpack it"),
    "old archive": ("w.tar", write_tar, "is an archive", "unpack it"),
    "arrays": (
        "w.pkl", lambda p: p.write_bytes(pickle.dumps({"model": {"a.weight": np.zeros(3), "b": np.float64(1)}, "by": "x"})),
        "is a pickle of numpy arrays, not of tensors", "torch.from_numpy",
    ),
    "arrays beside objects": (
        "w.pkl", lambda p: p.write_bytes(pickle.dumps({"a": np.zeros(3), "b": Custom()})),
        "holds Python objects", "save only the weights",
    ),
    "arrays of torch.save": (
        "w.pt", lambda p: torch.save({"model": {"a": np.zeros(3)}}, p), "holds numpy arrays", "torch.from_numpy",
    ),
    "JSON": ("w.pt", lambda p: p.write_text('{"error": "Not found"}'), 'is JSON, not weights: {"error": "Not', "download"),
    "text": ("w.safetensors", lambda p: p.write_text("Entry not found"), "is text, not weights: Entry not", "download"),
    "list of parts": ("index.json", lambda p: p.write_text('{"weight_map": {}}'), "is a list of the parts", "index.json"),
    "exported program": ("w.pt", write_program, "is an exported program", r"torch.export.load\('w.pt'\).state_dict"),
    "empty": ("w.pt", lambda p: p.write_bytes(b""), "is not a readable checkpoint: it is empty", "save it again"),
    "pickle called safetensors": (
        "w.safetensors", lambda p: p.write_bytes(pickle.dumps(Custom())), "holds Python objects", "save only the weights",
    ),
    "optimizer": ("w.pt", lambda p: torch.save({"optimizer": adam({})}, p), "is not a state_dict", "save model.state_dict"),
    "cut off": ("w.pt", lambda p: p.write_bytes(b"PK\x03\x04" + bytes(99)), "is not a readable checkpoint", "save it again"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", REFUSED)
def test_forms_that_are_refused_with_what_they_are(tmp_path: Path, form: str) -> None:
    name, write, message, hint = REFUSED[form]
    write(tmp_path / name)
    with pytest.raises(CheckpointError, match=message) as error:
        build.load_weights(Net(), tmp_path / name)
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
