"""Conflicts of a search: keys that do not exist or cannot be searched, and values that they cannot have.

A grid tries every combination of its values, so each is checked. What else is searched is drawn when it runs: a combination
that cannot be is a trial that fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal, get_origin

from pydantic import ValidationError

from edgekd.loading import shape, tuned, words
from edgekd.loading.conflicts import rules
from edgekd.loading.conflicts.found import Found
from edgekd.loading.overrides import KeySyntaxError, RefusedError, check, parse_key
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.tune import Range, Scalar

REFUSED = {
    "epochs": "the trials' epochs are tune.epochs",
    "precision": "precision depends on the machine, not on the student",
    "teacher_cache": "the teacher cache does not change the student",
    "kind": "another loss has other options: list both, and search their weights",
}
GRID = 1000


def searched(recipe: Recipe) -> Found:
    """Yield (key, message, hint) for each part of ``tune`` that cannot be searched."""
    tune = recipe.tune
    if tune is None or recipe.student is None:
        return
    if recipe.distill is None:
        yield "tune", "there is nothing to search: the recipe has no distill section", "add distill, or remove tune"
        return
    trial = shortest(recipe)
    epochs = need(trial.distill, "distill").epochs
    known = set(rules.conflicts(trial))
    before = set(rules.conflicts(recipe.model_copy(update={"tune": None})))
    for place, message, hint in (found for found in rules.conflicts(trial) if found not in before):
        yield "tune.epochs", f"in a trial of {epochs} epochs, {place}: {message}", hint
    seen: dict[tuple[str | int, ...], str] = {}
    fits = alone = True
    for key, candidates in tune.search.items():
        place = shape.show(("tune", "search", *(() if '"' in key else (key,))))  # a place with quotes in quotes has no words
        wrong = _key(recipe, key)
        if wrong is None and (same := seen.setdefault(parse_key(key), key)) != key:
            wrong = f"{same} is listed twice", "remove one of them"
        wrong = wrong or _kind(recipe, key, candidates)
        if wrong is None and tune.sampler == "grid" and isinstance(candidates, Range) and candidates.step is None:
            ends = f"[{candidates.low:g}, {candidates.high:g}]"
            wrong = "a grid needs a list of values, or a step", f"list them, such as {ends}, or add step"
        if wrong is not None:
            fits = False
            yield place, *wrong
            continue
        for inside, value in _ends(candidates):
            for told in _value(trial, key, value, known):
                alone = False
                yield f"{place}{inside}", *told
    if fits and tune.sampler == "grid":
        count = tune.combinations()
        if tune.trials is not None:
            yield "tune.trials", f"a grid has all of its {count} combinations", "remove trials, or use sampler: random"
        elif count > GRID:
            yield "tune.search", f"a grid of {count:,} combinations", "search fewer values, or use sampler: tpe"
        if alone and count <= GRID:
            yield from islice(_together(recipe, trial, known), 1)


def shortest(recipe: Recipe) -> Recipe:
    """The recipe without its search, as long as a trial or as itself, whichever is less: values have to be right in both."""
    budget = need(recipe.distill, "distill")
    epochs = min(need(recipe.tune, "tune").epochs or budget.epochs, budget.epochs)
    return recipe.model_copy(update={"tune": None, "distill": budget.model_copy(update={"epochs": epochs})})


def refused(recipe: Recipe, values: tuned.Values) -> str:
    """Return the reason why a trial cannot have these values together; empty if it can."""
    trial = shortest(recipe)
    found = _wrong(trial, values, set(rules.conflicts(trial)))
    return next((f"{place}: {message}" for place, message, _ in found), "")


def _key(recipe: Recipe, key: str) -> tuple[str, str] | None:
    """Why a key cannot be searched at all."""
    try:
        path = parse_key(key)
    except KeySyntaxError:
        return f"{key!r} is not a key", "write it as --set does, such as distill.losses[0].weight"
    try:
        check(recipe.model_dump(mode="json"), path)
    except RefusedError as refused:
        hint = refused.hint if refused.message == "unknown key" else "search a key that the recipe has"
        return f"{shape.show(path[: refused.depth])}: {refused.message}", hint
    if path[0] != "distill":
        return "only the distillation is searched", "search keys of distill, such as distill.losses[0].weight or distill.lr"
    if path[-1] in REFUSED:
        return f"{path[-1]} cannot be searched", REFUSED[str(path[-1])]
    deep = len(path) > (4 if path[1] == "losses" else 2)
    if deep or path == ("distill", "losses") or not _scalars(recipe, key):
        return "only a number, true or false, or one of several words can be searched", "give a key such as distill.lr"
    return None


def _scalars(recipe: Recipe, key: str) -> list[Any]:
    """The kinds of plain values that may stand at a key."""
    arms = list(shape.arms(tuned.annotation(recipe, key)))
    return [arm for arm in arms if arm in (bool, int, float, str) or get_origin(arm) is Literal]


def _kind(recipe: Recipe, key: str, candidates: Range | tuple[Scalar, ...]) -> tuple[str, str] | None:
    """What is wrong with a range or a list for this key."""
    if not isinstance(candidates, Range):
        twice = next((value for index, value in enumerate(candidates) if value in candidates[:index]), None)
        return None if twice is None else (f"{twice} is listed twice", "remove one")
    kinds = _scalars(recipe, key)
    if not {int, float} & set(kinds):
        return f"{key} is {words.expected(tuned.annotation(recipe, key))}, which has no range", "list the values: [A, B]"
    numbers = (candidates.low, candidates.high, candidates.step or 1.0)
    if tuned.whole(recipe, key) and not all(number.is_integer() for number in numbers):
        return f"{key} is a whole number", "write low, high and step without a fraction"
    return None


def _ends(candidates: Range | tuple[Scalar, ...]) -> tuple[tuple[str, Scalar], ...]:
    """Values to check, each with its place."""
    if isinstance(candidates, Range):
        return (".low", candidates.low), (".high", candidates.high)
    return tuple((f"[{index}]", value) for index, value in enumerate(candidates))


def _value(trial: Recipe, key: str, value: Scalar, known: set[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    """What is wrong with one value of a key, alone or with the rest of the recipe."""
    for place, message, hint in _wrong(trial, {key: tuned.typed(trial, key, value)}, known):
        where = "" if place == shape.show(parse_key(key)) else f"with {words.given(value)}, {place}: "
        yield f"{where}{message}", hint


def _together(recipe: Recipe, trial: Recipe, known: set[tuple[str, str, str]]) -> Found:
    """What is wrong with combinations of values of which each could be."""
    for values in tuned.grid(recipe)[1:]:
        for place, message, hint in _wrong(trial, values, known):
            chosen = " and ".join(f"{key} {words.given(value)}" for key, value in values.items())
            instead = f"{hint}; or use sampler: random, where such a trial fails and the others go on"
            yield "tune.search", f"with {chosen}, {place}: {message}", instead


def _wrong(trial: Recipe, values: tuned.Values, known: set[tuple[str, str, str]]) -> Found:
    """What is wrong with a trial that has these values, but for what is known of it without them."""
    try:
        changed = tuned.with_values(trial, values)
    except ValidationError as error:
        plain = trial.model_dump(mode="json")
        for key, value in values.items():
            tuned.put(plain, parse_key(key), value)
        for draft in words.drafts(error, plain):
            yield shape.show(draft.path), draft.message, draft.hint
        return
    yield from (found for found in rules.conflicts(changed) if found not in known)
