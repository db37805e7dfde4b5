"""Side figures: what stands beside the result of a stage. One that fails is absent, with its reason; it never ends a run."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from edgekd import cache
from edgekd.assembly.context import Context
from edgekd.errors import EdgekdError, StorageError, cause_of
from edgekd.results import codec
from edgekd.results.codec import from_json, to_json
from edgekd.results.findings import Finding, Missing, missing

if TYPE_CHECKING:
    from torch import nn

    from edgekd.task.base import Purpose

FILE = "not_measured.json"
Figure = TypeVar("Figure")


@dataclass(frozen=True)
class NotMeasured:
    """Side figures of a stage that are absent; noted at once, whatever becomes of the stage."""

    found: tuple[Missing, ...] = ()


def measured(context: Context, what: str, compute: Callable[[], Figure]) -> Figure | None:
    """Compute a figure that no later stage needs.

    Args:
        context: The stage's; the reason of a failure goes into its outputs, its log and its progress.
        what: The figure as a reader knows it, such as ``MACs of student``.
        compute: Returns it.

    Returns:
        The figure, or None where it cannot be computed.

    Raises:
        StorageError: The disk is full or cannot be written.
    """
    try:
        return compute()
    except (OSError, StorageError) as error:
        raise cache.storage_error(error, context.out) if isinstance(error, OSError) else error from error
    except Exception as error:  # a figure runs the user's network and other libraries' code; neither may end the run
        with context.log.open("a", encoding="utf-8") as log:
            log.write(f"{what} was not measured:\n{traceback.format_exc()}")
        note(context, missing(what, _reason(error)))
        return None


def note(context: Context, figure: Missing) -> None:
    """List a figure as not measured, with its reason."""
    path = context.out / FILE
    known = codec.read(NotMeasured, path) if path.exists() else NotMeasured()
    found = from_json(Missing, to_json(figure))  # as it is read again
    if found not in known.found:
        context.progress.say(f"  not measured: {figure.what}: {context.words(figure.reason)}")
        codec.write(NotMeasured((*known.found, found)), path)


def note_dropped_outputs(context: Context, role: str, network: nn.Module) -> None:
    """List the outputs of a network that nothing reads: edgekd trains, measures and exports the primary one alone."""
    from edgekd.models.build import dropped
    from edgekd.models.in_training import training_outputs

    student = context.recipe.student
    if more := training_outputs(network):
        what = f"other outputs of the {role} in training mode"
        note(context, Missing(Finding("training_outputs", figures={"outputs": list(more)}), what))
    if names := dropped(network, student.outputs if student and role == "student" else "primary"):
        note(context, Missing(Finding("dropped_outputs", figures={"outputs": list(names)}), f"other outputs of the {role}"))


def note_outputs_and_order(context: Context, role: str, network: nn.Module, purpose: Purpose) -> None:
    """List the dropped outputs of a network, and say where its inputs are given in their order and not by name."""
    from edgekd.task.named import arguments, by_position

    note_dropped_outputs(context, role, network)
    given = [port.name for port in purpose.signature.inputs]
    if by_position(network, given):
        facts = {"inputs": given, "arguments": list(arguments(network))}
        context.say(Finding("inputs_by_position", "warning", role, facts))


def absent(context: Context) -> Iterator[Missing]:
    """Yield what the finished stages did not measure, in their order."""
    for folder in context.inputs.values():
        if (folder / FILE).exists():
            yield from codec.read(NotMeasured, folder / FILE).found


def _reason(error: Exception) -> str:
    if isinstance(error, EdgekdError):
        return error.message
    name, cause = type(error).__name__, cause_of(error)
    return name if cause == name else f"{name}: {cause}"
