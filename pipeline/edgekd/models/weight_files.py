"""Files with weights: what one is by its content, and the dictionaries of tensors in it.

Nothing is unpickled but by torch's ``weights_only`` with the types of ``_safe_types``. A file's name does not decide what is
in it: safetensors are read under any name, and what holds no weights is named as what it is.
"""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import tarfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import reads
from edgekd.errors import CheckpointError, cause_of
from edgekd.models import tied

if TYPE_CHECKING:
    from torch import Tensor

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.\w+)")
_ALONE = "save only the weights: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
_ARRAYS = (
    "write them with torch: torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, 'weights.pt')"
)
_AGAIN = "copy, download or save it again"
_NUMPY = re.compile(r"numpy(\._?core\.(multiarray|numeric))? (_reconstruct|_frombuffer|scalar|ndarray|dtype)")
_DEPTH = 8


@dataclass(frozen=True)
class Stored:
    """A dictionary of a file that holds tensors.

    Attributes:
        name: The keys that lead to it, with dots between them; empty for the file's own dictionary.
        tensors: Its tensors.
        values: Keys of what else is in it: numbers, text, other dictionaries.
        numbered: Whether a list or a number leads to it, as in an optimizer's state.
    """

    name: str
    tensors: dict[str, Tensor]
    values: tuple[str, ...] = ()
    numbered: bool = False


def stored(path: Path) -> tuple[Stored, ...]:
    """Read a file and return the dictionaries in it that hold tensors, in the file's order.

    Raises:
        CheckpointError: It cannot be read, is something else, or would have to be unpickled with code.
    """
    import torch

    with reads.in_key(path), torch.no_grad():  # it is there by its bytes
        value = _opened(path)
    found = tuple(_dictionaries(value))
    if not found and _has_arrays(value):
        raise CheckpointError(f"{path} holds numpy arrays, not tensors", _ARRAYS)
    return found


def index(path: Path) -> dict[str, str]:
    """Return which file beside an ``.index.json`` has which tensor.

    Raises:
        CheckpointError: It is no such list.
    """
    try:
        with reads.in_key(path):
            found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = {str(name): Path(str(file)).name for name, file in found.items()}
        if not files:
            raise ValueError("it lists nothing")
        return files
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "give the .index.json of its folder"
        raise CheckpointError(f"{path} is no list of the parts of a checkpoint", hint) from error


def _dictionaries(value: Any, name: str = "", depth: int = 0, *, numbered: bool = False) -> Iterator[Stored]:
    import torch

    if depth > _DEPTH:
        return
    if isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _dictionaries(item, f"{name}.{number}" if name else str(number), depth + 1, numbered=True)
    if not isinstance(value, Mapping):
        return
    tensors = {key: item for key, item in value.items() if isinstance(key, str) and isinstance(item, torch.Tensor)}
    if tensors or not (depth or value):  # a network may have no tensors
        yield Stored(name, tensors, tuple(str(key) for key in value if key not in tensors), numbered)
    for key, item in value.items():
        if isinstance(key, str | int):
            inside = f"{name}.{key}" if name else str(key)
            yield from _dictionaries(item, inside, depth + 1, numbered=numbered or isinstance(key, int))


def _has_arrays(value: Any, depth: int = 0) -> bool:
    import numpy as np

    if not isinstance(value, Mapping) or depth > _DEPTH:
        return False
    return any(isinstance(item, np.ndarray) or _has_arrays(item, depth + 1) for item in value.values())


def _opened(path: Path) -> Any:
    if path.name.endswith(".index.json"):
        return _parts(path)
    shard = _SHARD.fullmatch(path.name)
    if shard and int(shard[3]) > 1:
        listed = path.with_name(f"{shard[1]}{shard[4]}.index.json")
        raise CheckpointError(f"{path} is part {int(shard[2])} of {int(shard[3])}", f"give the list of all parts: {listed}")
    return _load(path)


def _parts(path: Path) -> dict[str, Any]:
    """The tensors of a checkpoint in several files, each from the file that the list names for it.

    Raises:
        CheckpointError: That file does not have it, or a file cannot be read.
    """
    files = index(path)
    state: dict[str, Any] = {}
    for file in sorted(set(files.values())):
        part = path.with_name(file)
        with reads.in_key(part):
            inside = _load(part)
        inside = inside if isinstance(inside, Mapping) else {}
        names = [name for name, holder in files.items() if holder == file]
        lost = next((name for name in names if name not in inside), None)
        if lost is not None:
            raise CheckpointError(
                f"{path} lists {lost} in {file}, which does not have it", "put the list and the files of one save there"
            )
        listed = {name: inside[name] for name in names}
        # A tied weight is in the list once; its other names are one object with it.
        kept = {id(value) for value in listed.values()}
        ties = {name: value for name, value in inside.items() if id(value) in kept and name not in files}
        state |= listed | ties
    return state


def _load(path: Path) -> Any:
    import torch

    safetensors = _check(path)
    try:
        if safetensors:
            return tied.load(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_safe_types()), path.open("rb") as file:
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what cannot be read then fails below
            warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # torch's own, of quantized tensors
            warnings.filterwarnings("ignore", "TypedStorage is deprecated")  # torch's own, of quantized tensors
            return torch.load(file, map_location="cpu", weights_only=True)  # the file: a path is judged by its suffix
    except pickle.UnpicklingError as error:
        if _is_of_arrays(path):
            raise CheckpointError(f"{path} is a pickle of numpy arrays, not of tensors", _ARRAYS) from error
        kind = re.search(r"GLOBAL (\w+\.[\w.]+)", str(error))
        what = f" ({kind[1]})" if kind else ""
        raise CheckpointError(
            f"{path} holds Python objects{what}, not only tensors; loading it could run code, so edgekd does not", _ALONE
        ) from error
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise CheckpointError(f"{path} is not a readable checkpoint: {cause_of(error)}", _AGAIN) from error


def _check(path: Path) -> bool:
    """Say what a file is that holds no weights; return whether it is safetensors.

    Raises:
        CheckpointError: It is something else than weights.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path} is not a readable checkpoint: it is empty", _AGAIN)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 0 < length <= max(path.stat().st_size, 100_000_000):
        return True
    if zipfile.is_zipfile(path):
        _check_archive(path)
        return False
    if head.startswith(b"\x80"):  # a pickle, as torch wrote them before its archives
        return False
    _refuse_text(path, head)
    _refuse_others(path, head)
    return path.suffix == ".safetensors"


def _refuse_text(path: Path, head: bytes) -> None:
    text = head.lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a pointer of git-lfs, not the weights", "git lfs pull")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(f"{path} is a web page, not the weights", "download the file itself, not the page about it")
    shown = head.decode("utf-8", "ignore")
    if len(shown.encode()) < len(head) - 3 or not all(sign.isprintable() or sign in "\t\r\n" for sign in shown):
        return  # no text; the head may end inside a letter
    if '"weight_map"' in shown:
        raise CheckpointError(f"{path} is a list of the parts of a checkpoint", "call it NAME.index.json, beside its files")
    kind = "JSON" if text.startswith((b"{", b"[")) else "text"
    words = " ".join(shown.split())
    words = words if len(words) <= 60 else words[:60].rstrip() + " …"
    raise CheckpointError(f"{path} is {kind}, not weights: {words}", "download the checkpoint again, or give another file")


def _refuse_others(path: Path, head: bytes) -> None:
    if head[4:8] == b"TFL3" or head.startswith(b"\x89HDF") or path.suffix in (".onnx", ".tflite", ".keras", ".h5", ".pb"):
        kind = {".onnx": "onnx", ".tflite": "tflite", ".keras": "keras"}.get(path.suffix, "")
        hint = f"as a teacher: model: {kind}:{path.name}; else " if kind else ""
        raise CheckpointError(f"{path} is a model of another format", f"{hint}give the weights of the torch network")
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd")):
        raise CheckpointError(f"{path} is compressed", "unpack it and give the checkpoint in it")
    if head.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"{path} is not a readable checkpoint: its end is missing", _AGAIN)
    if head[257:262] == b"ustar":
        with tarfile.open(path) as archive:
            names = archive.getnames()
        if {"pickle", "storages", "tensors"} <= set(names):
            hint = "read it with the torch that wrote it, and save it with a newer one"
            raise CheckpointError(f"{path} is a checkpoint of torch before 0.4, which cannot be read without code", hint)
        raise CheckpointError(f"{path} is an archive", "unpack it and give the checkpoint in it")


def _check_archive(path: Path) -> None:
    """See that an archive is one of torch's with tensors.

    Raises:
        CheckpointError: It is a program, of another format, or of something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}", _AGAIN) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(
            f"{path} is a TorchScript program",
            f"write its weights into a file: torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')",
        )
    if any(re.search(r"(^|/)(serialized_exported_program\.json|models/[^/]+\.json)$", name) for name in names):
        raise CheckpointError(
            f"{path} is an exported program",
            f"write its weights into a file: torch.save(torch.export.load({path.name!r}).state_dict, 'weights.pt')",
        )
    if any(name.endswith("data.pkl") for name in names):
        return
    if names and all(name.endswith(".npy") for name in names):
        raise CheckpointError(
            f"{path} holds numpy arrays, not tensors",
            "write them with torch: torch.save({name: torch.from_numpy(array) for name, array in "
            f"numpy.load({path.name!r}).items()}}, 'weights.pt')",
        )
    if "model.weights.h5" in names:
        hint = f"as a teacher: model: keras:{path.name}; else give the weights of the torch network"
        raise CheckpointError(f"{path} is a model of another format", hint)
    raise CheckpointError(f"{path} is an archive without weights", "unpack it and give the checkpoint in it")


def _is_of_arrays(path: Path) -> bool:
    """Return whether a pickle makes numpy arrays and nothing else, as far as its instructions say; none of them is run."""
    names: list[str] = []
    pushed: list[str] = []
    memo: dict[int, str] = {}
    try:
        with path.open("rb") as file:
            for code, value, _ in pickletools.genops(file):
                if code.name in ("GLOBAL", "INST"):
                    names.append(str(value))
                elif code.name == "STACK_GLOBAL":
                    names.append(" ".join(pushed[-2:]))
                elif code.name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
                    memo[len(memo) if value is None else int(value)] = pushed[-1] if pushed else ""
                    continue
                text = memo.get(int(value or 0), "") if code.name.endswith("BINGET") else value
                pushed = [*pushed[-1:], text if isinstance(text, str) else ""]
    except Exception:  # pickletools raises what it meets in bytes that are no pickle
        return False
    arrays = [name for name in names if _NUMPY.fullmatch(name)]
    return bool(arrays) and all(name in arrays or name in ("collections OrderedDict", "_codecs encode") for name in names)


def _safe_types() -> list[Any]:
    """Types that training scripts store beside weights and that run no code when they are read."""
    import argparse
    import collections
    import datetime
    import pathlib
    import types

    import numpy as np
    from numpy._core import multiarray

    names: list[Any] = [argparse.Namespace, types.SimpleNamespace, collections.defaultdict, datetime.datetime]
    names += [datetime.date, datetime.timedelta, set, frozenset, np.ndarray, np.dtype]
    names += [type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdUSO"]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # numpy 1 and 2
        names += [(multiarray.scalar, f"{module}.scalar"), (multiarray._reconstruct, f"{module}._reconstruct")]
    for module in ("pathlib", "pathlib._local"):  # Python 3.13 and others
        names += [(pathlib.PurePosixPath, f"{module}.PosixPath"), (pathlib.PureWindowsPath, f"{module}.WindowsPath")]
    return names
