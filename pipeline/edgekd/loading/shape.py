"""Allowed values at a place of a recipe, read from the annotations of the schema."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgekd.errors import UsageError
from edgekd.loading.source import Path
from edgekd.recipe import Recipe
from edgekd.recipe.loss import Loss
from edgekd.recipe.study import Study
from edgekd.registry import losses


def arms(annotation: Any) -> Iterator[Any]:
    """Yield what an annotation allows, without ``Annotated`` and ``Union``; ``None`` is left out."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from arms(typing.get_args(annotation)[0])
    elif origin in (types.UnionType, typing.Union):
        for arm in typing.get_args(annotation):
            yield from arms(arm)
    elif annotation is not type(None):
        yield annotation


def model_of(annotation: Any, raw: Any) -> type[BaseModel] | None:
    """Return the model an annotation allows.

    For a loss the one of the kind that ``raw`` names; of several models the one that ``raw`` names by ``method``, or the
    first.
    """
    models = models_of(annotation)
    if not models:
        return None
    if models[0] is Loss:
        return _loss(raw)
    return next((model for model in models if method_of(model) == _method(raw)), models[0])


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """List all models an annotation allows, such as one for each method of quantization."""
    return [arm for arm in arms(annotation) if isinstance(arm, type) and issubclass(arm, BaseModel)]


def method_of(model: type[BaseModel]) -> str:
    """Return the one ``method`` that a model is for, or nothing."""
    info = model.model_fields.get("method")
    return str(typing.get_args(info.annotation)[0]) if info else ""


def _method(raw: Any) -> Any:
    return raw.get("method") if isinstance(raw, dict) else None


def _loss(raw: Any) -> type[BaseModel]:
    kind = raw.get("kind") if isinstance(raw, dict) else None
    try:
        return losses.get(kind) if isinstance(kind, str) else Loss
    except UsageError:
        return Loss


def inner(annotation: Any, part: str | int, raw: Any) -> Any:
    """Return the annotation of what is at ``part`` inside, or ``None`` if nothing can be there.

    Args:
        annotation: What may stand at the outer place.
        part: A key or an index.
        raw: What does stand at the outer place.
    """
    for arm in arms(annotation):
        if arm is Any:
            return Any
        origin, args = typing.get_origin(arm), typing.get_args(arm)
        if isinstance(part, int) and isinstance(origin, type) and issubclass(origin, Sequence):
            return args[0]
        if isinstance(part, str) and isinstance(origin, type) and issubclass(origin, Mapping):
            return args[1]
    model = model_of(annotation, raw)
    if isinstance(part, str) and model and part in model.model_fields:
        return annotation_of(model.model_fields[part])
    return None


def annotation_of(info: FieldInfo) -> Any:
    """Return a field's annotation with what pydantic moved out of ``Annotated`` put back."""
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation


def at(value: Any, path: Path) -> Any:
    """Return what stands at a path of a plain value, or ``None``."""
    for part in path:
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def is_study(value: Any) -> bool:
    """Return whether a plain value is a study's and not a recipe's: by what only a study has."""
    return isinstance(value, dict) and not value.keys().isdisjoint({"study", "methods"})


class Rooted(dict[str, Any]):
    """The plain value of a file that is neither a recipe nor a study, with its model."""

    def __init__(self, value: Mapping[str, Any], model: type[BaseModel]) -> None:
        super().__init__(value)
        self.model = model


def root(value: Any) -> type[BaseModel]:
    """Return the model of the whole value."""
    if isinstance(value, Rooted):
        return value.model
    return Study if is_study(value) else Recipe


def annotation_at(value: Any, path: Path) -> Any:
    """Return what may stand at a path of a recipe, or ``None`` if nothing can be there."""
    annotation: Any = root(value)
    for depth, part in enumerate(path):
        annotation = inner(annotation, part, at(value, path[:depth]))
    return annotation


def homes(key: str) -> list[str]:
    """List the sections that have a key, such as ``['teacher.train', 'distill', 'quantize']`` for ``epochs``."""
    found: list[str] = []

    def visit(model: type[BaseModel], path: str) -> None:
        if key in model.model_fields and path not in found:
            found.append(path or "the top level")
        for name, info in model.model_fields.items():
            place = f"{path}.{name}" if path else name
            for arm in arms(info.annotation):
                is_list = typing.get_origin(arm) is tuple
                child = model_of(typing.get_args(arm)[0] if is_list else arm, None)
                if child is Loss:
                    # The options of a loss belong to the losses that have them.
                    having = [name for name, loss in losses.usable().items() if key in getattr(loss, "model_fields", ())]
                    found.extend([f"a loss of kind {' or '.join(having)} in {place}"] if having else [])
                elif child and not (path and child in sections):  # a teacher may have a teacher, and so on
                    visit(child, f"{place}[]" if is_list else place)

    sections = {child for info in Recipe.model_fields.values() for child in models_of(info.annotation)}
    visit(Recipe, "")
    return found if len(found) < 5 else [*found[:3], "others"]


def show(path: Path) -> str:
    """Write a path as it is read aloud: ``distill.losses[0].temperature``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part and not re.search(r'[.\[\]"=\s]', part) else f'"{part}"'
            text += f".{name}" if text else name
    return text
