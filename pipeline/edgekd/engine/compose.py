"""A recipe from a command line: what ``edgekd quantize`` and ``edgekd export`` run.

The text is what a user would have written, so that it can be kept and grown.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import PydanticCustomError

from edgekd import reads
from edgekd.engine.options import in_python
from edgekd.errors import CheckpointError, EdgekdError, Problem, RecipeError, UsageError, did_you_mean
from edgekd.exporting.exporter import Supported
from edgekd.loading import load_text
from edgekd.loading.loaded import Loaded
from edgekd.loading.overrides import KeySyntaxError, apply, parse_key
from edgekd.loading.places import Places
from edgekd.loading.source import parse
from edgekd.models import checkpoints
from edgekd.recipe import SCHEMA_VERSION
from edgekd.recipe.base import need
from edgekd.recipe.data import NORMALIZATIONS
from edgekd.recipe.export import int8_io
from edgekd.recipe.model import model_source
from edgekd.recipe.source import declared, hint, is_source, parts
from edgekd.registry import exporters
from edgekd.runtimes import base

PHOTO_SIZE = 224
OWN = "data"
"""What ``--normalize`` is to use the images' own mean and deviation."""

_OPTIONS = {
    "student.model": "MODEL", "student.weights": "--weights", "data.source": "--data", "data.image_size": "--size",
    "data.channels": "--channels", "data.mean": "--normalize", "data.std": "--normalize", "data.classes": "--classes",
    "quantize.method": "--method", "quantize.epochs": "--epochs", "export": "--format", "profile.devices": "--device",
}  # fmt: skip
"""Keys of the recipe and what is typed for them."""


def check_model(command: str, model: str) -> str:
    """Return what ``student.model`` is for a model as it was given.

    Args:
        command: Such as ``edgekd quantize``.
        model: ``FILE.py:CALLABLE``, ``torchvision:NAME``, ``timm:NAME`` or ``edgekd:NAME``.

    Raises:
        RecipeError: It names no torch module.
    """
    if model.lower().endswith((*base.suffixes(), ".bin")):
        done = "quantized" if command.endswith("quantize") else "exported"
        message = f"{model} can be profiled (edgekd profile {model}), not {done}"
        hint = "give the torch module that it was made from: FILE.py:CALLABLE, torchvision:NAME, timm:NAME or edgekd:NAME"
        raise RecipeError([Problem(command, "MODEL", message, hint)])
    try:
        return model_source(model)
    except PydanticCustomError as error:
        known = error.context or {}
        raise RecipeError([Problem(command, "MODEL", known["message"], known["hint"])]) from error


def quantize_sections(
    method: str | None = None, epochs: int | None = None, formats: Sequence[str] = (), io: str | None = None,
    devices: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Return the sections of a recipe that quantizes.

    Args:
        method: ``ptq`` or ``qat``; None: qat where there are epochs.
        epochs: Epochs of qat.
        formats: Files to write; empty: all formats that have int8.
        io: Type of the input and the output of the formats that have a choice.
        devices: Where to measure the files.
    """
    method = method or ("qat" if epochs else "ptq")
    names, having = _listed(formats) or int8_formats(), int8_io() if io == "int8" else ()
    asked = set(having) & set(names) or names if io == "int8" else ()  # where none has it, the recipe is refused with that
    files = [{"format": name, "io": io} if name in asked else name for name in names]
    return {"quantize": {"method": method} | ({"epochs": epochs} if epochs else {}), "export": files, **_measured(devices)}


def int8_formats() -> list[str]:
    """Return the formats that ``edgekd quantize`` writes where none is asked for: all that have int8."""
    found = []
    for name in exporters.names():
        with suppress(UsageError):  # a third party's package that is broken, and was not asked for
            if isinstance(getattr(exporters.get(name), "precisions", {}).get("int8"), Supported):
                found.append(name)
    return found


def export_sections(
    formats: Sequence[str] = (), precisions: Sequence[str] = (), devices: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the sections of a recipe that exports without int8 activations.

    Args:
        formats: Files to write; empty: ONNX.
        precisions: As in ``export.precision``, or ``fp32`` and ``fp16``; each of each format. Empty: float32.
        devices: Where to measure the files.
    """
    names = _listed(formats) or ["onnx"]
    wanted = [{"fp32": "float32", "fp16": "float16"}.get(name, name) for name in _listed(precisions)]
    files = [{"format": name, "precision": precision} for name in names for precision in wanted]
    return {"export": files or names, **_measured(devices)}


def _measured(devices: Sequence[str]) -> dict[str, Any]:
    return {"profile": {"devices": list(dict.fromkeys(devices))}} if devices else {}


def _listed(names: Sequence[str]) -> list[str]:
    return [name.strip() for text in names for name in text.split(",") if name.strip()]


@dataclass(frozen=True)
class Given:
    """A trained model and its images, as a user gives them.

    Attributes:
        command: Such as ``edgekd quantize``, which problems are told of.
        model: As in ``student.model``.
        weights: Checkpoint.
        data: A folder, an .npz file or a data source of a recipe; None for random images.
        size: Height and width of the images in pixels, or both; None for the usual one.
        channels: 1 or 3.
        normalize: ``imagenet``, ``half``, ``none``, ``MEAN/STD`` or ``data``, the images' own, which None is too if labels
            show whether it is right.
        classes: Number of classes; None asks the checkpoint where the images have no labels.
        sections: The rest of the recipe: quantize, export, profile.
        overrides: ``KEY=VALUE`` of each ``--set``.
    """

    command: str
    model: str
    weights: Path
    data: str | None = None
    size: int | tuple[int, int] | None = None
    channels: int = 3
    normalize: str | None = None
    classes: int | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()


def text_of(given: Given, classes: int | None = None) -> str:
    """Return the recipe as YAML.

    Raises:
        UsageError: The data or the normalization is not understood.
    """
    source = data_source(given.data)
    data: dict[str, Any] = {"source": source}
    written = set(_keys(given.overrides))  # what a --set gives is not asked for
    if given.size is None and not written & {("data",), ("data", "image_size")}:
        _check_size(source)
    if given.normalize is None and not written & {("data",), ("data", "mean")}:
        _check_normalization(source)
    size = given.size or (PHOTO_SIZE if parts(source)[0] in {"random", "images", "imagefolder"} else None)
    if size is not None:
        data["image_size"] = list(size) if isinstance(size, tuple) else size
    if given.channels != 3:
        data["channels"] = given.channels
    if not declared(source).labelled:
        data["classes"] = given.classes or classes
    elif given.classes is not None:
        data["classes"] = given.classes
    if given.normalize not in (None, OWN):
        data["mean"], data["std"] = normalization(given.normalize)
    recipe = {
        "edgekd": SCHEMA_VERSION,
        "data": data,
        "student": {"model": given.model, "weights": str(given.weights)},
        **given.sections,
    }
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=1000)


def _keys(overrides: Sequence[str]) -> Iterator[tuple[str | int, ...]]:
    """Yield the key of each ``--set``; what is no key is told when the settings are applied."""
    for text in overrides:
        with suppress(KeySyntaxError):
            yield parse_key(text.partition("=")[0].strip())


def load(given: Given) -> tuple[Loaded, str]:
    """Compose and check the recipe; returns it with its text, overrides included.

    Raises:
        RecipeError: It cannot be run as it is.
        UsageError: The command line is not understood, or the weights are not there.
        StageError: The number of classes had to be read from the model, which cannot be built.
    """
    try:
        checkpoints.locate(given.weights)
    except CheckpointError as error:
        if not error.message.endswith("does not exist"):
            raise UsageError(f"--weights {error.message}", error.hint) from error
        file = checkpoints.divided(str(given.weights)).path
        hint = did_you_mean(file.name, [path.name for path in file.parent.glob("*.[ps]*t*")])
        hint = hint if hint.startswith("did you mean") else "give the checkpoint of the trained model"
        raise UsageError(f"--weights {file} does not exist", hint) from error
    path = Path.cwd() / f"{given.model.rpartition(':')[2] or 'model'}.yaml"
    text = text_of(given, classes=2)
    loaded = load_text(text, path, given.command, given.overrides)
    student, data = need(loaded.recipe.student, "student"), loaded.recipe.data
    if not data.has_labels and given.classes is None:
        from edgekd.models.build import classes_of
        from edgekd.task.image_classification import purpose

        weights = checkpoints.locate(need(student.weights, "student.weights"))
        text = text_of(given, classes_of(student.model, student.args, weights, purpose(data)))
        loaded = load_text(text, path, given.command, given.overrides)
    return loaded, _with(text, given.overrides)


@contextmanager
def in_options(given: Given) -> Iterator[None]:
    """Tell what is wrong in the words of the command: of its options, not of a recipe that nobody wrote."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError(_problem(problem, given) for problem in error.problems) from error
    except EdgekdError as error:
        error.hint = _said(_hint(error.hint, given), given)
        error.message = _said(error.message, given)
        raise


def _said(text: str, given: Given) -> str:
    """Return a text in the words of who called: a command has options, a function has arguments."""
    return in_python(text) if given.command.startswith("edgekd.") else text


def _problem(problem: Problem, given: Given) -> Problem:
    if not problem.where.startswith(f"{given.command}:"):  # a --set, which was typed
        where, hint = _said(problem.where, given), _said(problem.hint, given)
        return Problem(where, problem.key, problem.message, hint, problem.snippet)
    begins = (name for name in _OPTIONS if re.match(rf"{re.escape(name)}(\W|$)", problem.key))
    key = max(begins, key=len, default="")
    option = _OPTIONS.get(key, "" if problem.key == "quantize" else problem.key)  # the command itself is called so
    if of_files := re.fullmatch(r"export\[\d+\]\.(precision|io)", problem.key):
        option = f"--{of_files[1]}"
    hint = _hint(problem.hint, given)
    if hint == f"remove {key.rpartition('.')[2]}":
        hint = f"remove {option}" + (", which is for images without labels" if option == "--classes" else "")
    return Problem(given.command, _said(option, given), _said(problem.message, given), _said(hint, given))


def _hint(hint: str, given: Given) -> str:
    file = checkpoints.divided(str(given.weights)).path
    typed = shlex.quote(str(file))
    hint = hint.replace(os.path.abspath(file), typed)  # noqa: PTH100  # as a recipe's paths are made
    hint = hint.replace(f"weights: {typed}#", f"--weights {typed}#")
    hint = hint.replace("remove io here", "remove --io")
    hint = hint.replace("add quantize: {method: ptq}", f"use {given.command.replace('export', 'quantize')}")
    # What a recipe would say, with the option after it in brackets.
    hint = re.sub(r"\bwrite data: \{[^}]*\} \((--[^)]+)\)", r"add \1", hint)
    hint = re.sub(r"\bwrite data: \{(\w+): (\w+)\}", lambda found: f"add {_option(found[1])} {found[2]}", hint)
    hint = re.sub(r"\bdata\.(\w+)", lambda found: _option(found[1]), hint)
    return re.sub(r"(?<![\w.])(source|classes): (?=\S)", lambda found: f"{_option(found[1])} ", hint)


def _option(key: str) -> str:
    return _OPTIONS.get(f"data.{key}", f"data.{key}")


def _check_normalization(source: str) -> None:
    """See that the images' own mean and deviation are nobody's silent choice.

    Raises:
        UsageError: There are images, and they have no labels.
    """
    from edgekd.data import image_folders

    kind, _, rest = source.partition(":")
    if kind == "images" and Path(rest).is_dir() and image_folders.sizes(Path(rest), most=1):
        raise UsageError(
            "--normalize is not given, and without labels nothing shows what the network was trained with",
            f"add --normalize {', '.join(NORMALIZATIONS)}, MEAN/STD, or {OWN} (the mean and deviation of these images)",
        )


def _check_size(source: str) -> None:
    """See that the usual size of photographs is not taken for small images.

    Raises:
        UsageError: All images that were looked at have one other size.
    """
    from edgekd.data import image_folders

    kind, _, rest = source.partition(":")
    if kind not in ("images", "imagefolder") or not Path(rest).is_dir():
        return
    sizes = image_folders.sizes(Path(rest))
    if len(sizes) == 1 and sizes != {(PHOTO_SIZE, PHOTO_SIZE)}:
        ((width, height),) = sizes
        side = width if width == height else f"{height}x{width}"
        also = f" or --size {PHOTO_SIZE}" if min(width, height) < PHOTO_SIZE else ""
        order = "" if width == height else " (height × width)"
        raise UsageError(
            f"--size is not given, and all images in {rest} are {height}×{width}{order}, not {PHOTO_SIZE}×{PHOTO_SIZE}",
            f"add the size that the network was trained on: --size {side}{also}",
        )


def _with(text: str, overrides: Sequence[str]) -> str:
    """Write overrides that were checked into the text of a recipe."""
    if not overrides:
        return text
    value = yaml.safe_load(text)
    apply(overrides, value, Places(parse(text, "")))
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)


def data_source(data: str | None) -> str:
    """Return the recipe's source for what was typed.

    Raises:
        UsageError: It is no source, and nothing is at that path.
    """
    if data is None:
        return "random"
    if is_source(data):
        return data
    path = Path(data)
    reason = reads.unreadable(path)
    if reason == "is a folder":
        from edgekd.data.image_folders import class_folders

        return f"imagefolder:{path}" if class_folders(path) else f"images:{path}"
    if path.suffix == ".npz" and not reason:
        return f"npz:{path}"
    otherwise = "give a folder of images, an .npz file, or one of "
    raise UsageError(f"--data {data} {reason or 'is not a folder or an .npz file'}", hint(data, otherwise))


def normalization(text: str) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation from ``imagenet``, ``half``, ``none`` or ``0.5,0.5,0.5/0.25,0.25,0.25``.

    Raises:
        UsageError: It is none of these.

    Example:
        >>> normalization("0.5/0.25")
        ([0.5], [0.25])
    """
    if text in NORMALIZATIONS:
        mean, std = NORMALIZATIONS[text]
        return list(mean), list(std)
    try:
        first, second = ([float(number) for number in part.split(",")] for part in text.split("/"))
    except ValueError:
        raise UsageError(
            f"--normalize {text} is not understood",
            f"allowed: {', '.join(NORMALIZATIONS)}, {OWN}, or MEAN/STD: 0.5/0.25, or a number for each channel, as in "
            "0.5,0.5,0.5/0.25,0.25,0.25",
        ) from None
    return first, second
