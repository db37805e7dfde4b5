"""A study's file → the recipe of every pair and method in it, with every mistake at its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from edgekd.errors import Problem, RecipeError, did_you_mean
from edgekd.loading import Examined, files, mapping, validate, words
from edgekd.loading.loaded import Loaded
from edgekd.loading.overrides import KeySyntaxError, apply, parse_key
from edgekd.loading.places import Draft, Places
from edgekd.loading.shape import is_study
from edgekd.loading.source import parse
from edgekd.recipe import Recipe
from edgekd.recipe.study import BASELINES, SHIPPING, Study
from edgekd.study.overlay import Layer, Layered, merged, part, resolved

_LEAST = "a study needs study: 1, recipe: and methods:"
_COMMON = ("edgekd", "seeds", "baselines")


@dataclass(frozen=True)
class Pair:
    """A teacher and a student: the recipe they have in common, and that of each method by its name."""

    name: str
    common: Loaded
    methods: dict[str, Loaded]


@dataclass(frozen=True)
class LoadedStudy:
    """A checked study.

    Attributes:
        study: What the file says.
        name: What its report folders are called: the file's stem.
        path: The file, absolute.
        pairs: Its recipes.
        overrides: The ``--set`` values, as they were given.
    """

    study: Study
    name: str
    path: Path
    pairs: tuple[Pair, ...]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExaminedPair:
    """A pair of a study as it was read, mistakes included."""

    name: str
    common: Examined
    methods: dict[str, Examined]


@dataclass(frozen=True)
class ExaminedStudy:
    """A study that was read, with all mistakes that can be found in its text.

    Attributes:
        study: What the file says.
        path: The file, absolute.
        pairs: Its recipes, with repairs where they have mistakes.
        refused: What is wrong with the study outside of its recipes.
        overrides: The ``--set`` values, as they were given.
    """

    study: Study
    path: Path
    pairs: tuple[ExaminedPair, ...]
    refused: tuple[Problem, ...]
    overrides: tuple[str, ...]

    @property
    def recipes(self) -> Iterator[Examined]:
        """Every recipe: of each pair the common one, then those of its methods."""
        for pair in self.pairs:
            yield pair.common
            yield from pair.methods.values()

    def problems(self, more: Callable[[Loaded], tuple[Iterable[Draft], Iterable[Problem]]] | None = None) -> list[Problem]:
        """Place all mistakes; each place and message once, for the common recipe's are those of every method.

        Args:
            more: Looks for further mistakes of a recipe: some to be placed in it, and some of other files.
        """
        found = list(self.refused)
        for recipe in self.recipes:
            drafts, others = more(recipe.loaded) if more and recipe.loaded else ((), ())
            found += [*recipe.problems(drafts), *others]
        return once(found)


def once(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems without those that stand at the same place with the same words as an earlier one."""
    found: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        found.setdefault((problem.where, problem.message), problem)
    return list(found.values())


def load_study(source: Path, overrides: Sequence[str] = ()) -> LoadedStudy:
    """Read and check a study and every recipe in it.

    Args:
        source: A file, or the name of a study that ships with edgekd, such as ``studies/losses``.
        overrides: ``KEY=VALUE`` of each ``--set``: a key of the study, such as ``seeds``, or one of the common recipe.

    Raises:
        RecipeError: It cannot be read, or a recipe in it cannot be run as it is; with all mistakes.

    Example:
        >>> loaded = load_study(Path("studies/losses"), ["seeds=2", "distill.epochs=1"])  # doctest: +SKIP
    """
    examined = examine_study(source, overrides)
    if problems := examined.problems():
        raise RecipeError(problems)
    return checked(examined)


def checked(examined: ExaminedStudy) -> LoadedStudy:
    """Return a study in which no mistake was found."""
    pairs = (
        Pair(pair.name, pair.common.loaded, {name: own.loaded for name, own in pair.methods.items() if own.loaded})
        for pair in examined.pairs
        if pair.common.loaded
    )
    return LoadedStudy(examined.study, examined.path.stem, examined.path, tuple(pairs), examined.overrides)


def examine_study(source: Path, overrides: Sequence[str] = ()) -> ExaminedStudy:
    """Read a study and find the mistakes of its recipes, as :func:`load_study` does.

    Raises:
        RecipeError: It cannot be read, or the study itself is wrong.
    """
    path, text = files.read(source)
    parsed = parse(text, str(source) if path == source else str(path))
    value = mapping(parsed, "study", _LEAST)
    if not is_study(value):
        message = "is a recipe, not a study" if "edgekd" in value else "has no methods to compare"
        raise RecipeError([Problem(parsed.where, "", message, f"edgekd run {source}" if "edgekd" in value else _LEAST)])
    # What neither has is told of as a key of the study.
    own = [text for text in overrides if _first(text) in Study.model_fields or _first(text) not in Recipe.model_fields]
    places = Places(parsed)
    problems = apply(own, value, places)
    study, drafts = _study(value)
    problems = places.problems([*drafts, *_unknown(value)]) + problems
    if problems or study is None:
        raise RecipeError(problems)
    folder = path.absolute().parent
    base, problems = _base(study, places, folder, [text for text in overrides if text not in own])
    problems += places.problems(_misplaced(study))
    pairs = []
    for name, keys in (study.pairs or {base_name(study, path): {}}).items():
        layers = [base, part(places, keys, ("pairs", name), folder)]
        common = _examined(study, layers, f"{path.stem}.{name}", path, common=True)
        methods = {}
        for method, own_keys in study.methods.items():
            above = part(places, own_keys, ("methods", method), folder)
            methods[method] = _examined(study, [*layers, above], f"{path.stem}.{name}.{method}", path)
        pairs.append(ExaminedPair(name, common, methods))
    return ExaminedStudy(study, path.absolute(), tuple(pairs), tuple(problems), tuple(overrides))


def base_name(study: Study, path: Path) -> str:
    """Return the name of the pair of a study without pairs: its recipe's, or its own."""
    return Path(study.recipe).stem if isinstance(study.recipe, str) else path.stem


def _first(text: str) -> str:
    try:
        return str(parse_key(text.partition("=")[0].strip())[0])
    except KeySyntaxError:
        return ""


def _study(value: dict[str, object]) -> tuple[Study | None, list[Draft]]:
    try:
        return Study.model_validate_json(json.dumps(value), strict=True), []
    except ValidationError as error:
        return None, words.drafts(error, value)


def _unknown(value: dict[str, object]) -> Iterator[Draft]:
    """Baselines that are no method of the study, as it is written: so they are told beside methods that are wrong."""
    methods, named = value.get("methods"), value.get("baselines")
    if not isinstance(methods, dict) or not isinstance(named, list):
        return
    for index, name in enumerate(named):
        if isinstance(name, str) and name not in (*BASELINES, *methods):
            hint = did_you_mean(name, [*BASELINES, *methods])
            yield Draft(("baselines", index), f"there is no method {name!r} to compare with", hint)


def _base(study: Study, places: Places, folder: Path, overrides: Sequence[str]) -> tuple[Layer, list[Problem]]:
    """The common recipe, with the ``--set`` that are its own."""
    if isinstance(study.recipe, str):
        beside = folder / Path(study.recipe).expanduser()
        try:
            path, text = files.read(beside if beside.exists() else Path(study.recipe))
        except RecipeError as error:
            first = error.problems[0]
            raise RecipeError(places.problems([Draft(("recipe",), f"{first.where} {first.message}", first.hint)])) from None
        parsed = parse(text, str(path))
        layer = Layer(
            mapping(parsed, "recipe", "give the recipe that all methods have in common"), Places(parsed), path.parent
        )
        if is_study(layer.value):
            message = f"{study.recipe} is a study, not a recipe"
            raise RecipeError(places.problems([Draft(("recipe",), message, "give the recipe that all methods share")]))
    else:
        layer = part(places, study.recipe, ("recipe",), folder)
    return layer, apply(overrides, layer.value, layer.places)


def _misplaced(study: Study) -> Iterator[Draft]:
    """Keys of a pair or a method that are the same for the whole study."""
    for section in ("pairs", "methods"):
        for name, keys in getattr(study, section).items():
            for key in keys if isinstance(keys, dict) else ():
                if key in _COMMON:
                    yield Draft((section, name, key), "is the same for the whole study", "remove it here", at_key=True)
                elif key in SHIPPING and not study.artifacts:
                    hint = "add artifacts: true to the study, or remove it"
                    yield Draft((section, name, key), "this study makes no files", hint, at_key=True)


def _examined(study: Study, layers: Sequence[Layer], name: str, path: Path, common: bool = False) -> Examined:
    """Make one recipe of its parts and check it; the ``common`` one may leave the losses to the methods."""
    value = merged(layers)
    left_out = () if study.artifacts else SHIPPING
    value = {key: part for key, part in value.items() if key not in left_out}
    value |= {"seeds": study.seeds, "baselines": []}
    if common and isinstance(value.get("distill"), dict):
        usual = [{"kind": "task"}, *([{"kind": "kd"}] if value.get("teacher") else [])]
        value["distill"] = {"losses": usual} | value["distill"]
    found, places = validate(value), Layered(tuple(layers))
    recipe = None if found.salvaged is None else resolved(found.salvaged, layers)
    loaded = None if recipe is None else Loaded(recipe, name, path.absolute(), places=places)
    return Examined(loaded, found.repairs, found.drafts, [], places)
