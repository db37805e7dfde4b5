"""The schema of the search for the values of a distillation."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, ValidationInfo, WithJsonSchema, model_validator

from edgekd.recipe.base import Strict, mistake, need, validated

Scalar = bool | int | float | str
TRIALS = 12
EPOCHS = WithJsonSchema({"enum": ["best", "last", "best_val_top1", "last_val_top1"], "type": "string"})


class Range(Strict):
    """Numbers from low to high."""

    low: float
    """The smallest value."""
    high: float
    """The largest value."""
    log: bool = False
    """Search on a logarithmic scale, for values that differ by factors, such as a learning rate."""
    step: PositiveFloat | None = None
    """Only low, low + step, low + 2 · step and so on; a grid needs it."""

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.high <= self.low:
            raise mistake(f"high is {self.high:g}, and low is {self.low:g}", "let high be larger than low", "high")
        if self.log and self.low <= 0:
            raise mistake(f"there is no logarithm of {self.low:g}", "let low be above 0, or remove log", "low")
        if self.log and self.step is not None:
            raise mistake("step cannot be used with log: true", "remove step, or list the values: [1, 2, 4, 8]", "step")
        return self

    def points(self) -> tuple[float, ...]:
        """The values of a range with a step, in rising order."""
        step = need(self.step, "step in a range of a grid")
        count = int((self.high - self.low) / step + 1e-9) + 1
        return tuple(round(self.low + index * step, 10) for index in range(count))


def _candidates(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, dict):  # here, and not as one of a union, so that mistakes inside keep their place
        return validated(Range, value, info)
    if not isinstance(value, list | tuple):
        raise mistake("a searched key takes a list of values or a range", "write [A, B, C] or {low: A, high: B}")
    if len(value) < 2:
        raise mistake("there is nothing to choose from", "list two values at the least, or give a range: {low: A, high: B}")
    return tuple(value)


Candidates = Annotated[Range | tuple[Scalar, ...], BeforeValidator(_candidates)]


def _epoch(value: Any) -> Any:
    """Read the names of recipes that were written when top-1 was the one metric."""
    return {"best_val_top1": "best", "last_val_top1": "last"}.get(value, value) if isinstance(value, str) else value


class Tune(Strict):
    """Search for the values of a distillation, on the validation split only; each trial trains the student."""

    search: Annotated[
        dict[str, Candidates],
        Field(min_length=1, examples=[{"distill.losses[0].weight": {"low": 0.1, "high": 10, "log": True}}]),
    ]
    """Searched keys, as in `--set`, each with a list of values, such as `[1, 2, 4, 8]`, or a range, such as `{low: 0.1,
    high: 10, log: true}`. Options of the losses, and numbers and choices of distill."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe: the next values from the best ones so far (tree-structured Parzen estimator, Bergstra et al. 2011). random.
    grid: every combination, the last key changing fastest. tpe and random need `pip install 'edgekd[tune]'`."""
    trials: PositiveInt | None = None
    """Number of students to train; the first has the recipe's own values. Left out: 12, or all of a grid."""
    epochs: PositiveInt | None = None
    """Epochs of a trial, with a schedule of its own. Left out: those of distill."""
    metric: Annotated[Literal["best", "last"], BeforeValidator(_epoch), EPOCHS] = "best"
    """The deciding figure: the task's first metric on the validation split, of the best epoch, which a run keeps, or of the
    last. best_val_top1 and last_val_top1 mean the same."""

    def combinations(self) -> int:
        """Number of combinations of a grid, of which each range has a step."""
        return prod(len(one.points() if isinstance(one, Range) else one) for one in self.search.values())
