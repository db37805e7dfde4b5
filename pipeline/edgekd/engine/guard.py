"""Turns whatever a stage raises into words: what failed, why, and what to do next."""

from __future__ import annotations

import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekd import cache
from edgekd.assembly.context import Context
from edgekd.engine.plan import Planned
from edgekd.errors import EdgekdError, StageError, StorageError, cause_of, chain, ended
from edgekd.recipe import Recipe
from edgekd.recipe.export import Export, stage_name

TRAINS = ("teacher", "distill", "tune", "quantize", "synthesize")
"""Stages whose memory depends on the batch."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_NO_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "failed to allocate memory",
)


@contextmanager
def guarded(step: Planned, context: Context) -> Iterator[None]:
    """Turn whatever a stage raises into an edgekd error with its log; what libraries warn of goes into the log.

    That the same command goes on is said only where it helps (a full disk, memory), not of what fails the same way again.
    """
    try:
        with _quiet(context.log):
            yield
    except SystemExit as error:  # of a user's forward(), or a plug-in
        _append(context.log, traceback.format_exc())
        message, hint = ended(error)
        raise StageError(f"{step.name} failed: {message}", f"{hint}; the full log is in {context.log}") from error
    except Exception as error:  # whatever a stage or a library of it raises
        _append(context.log, traceback.format_exc())
        if isinstance(error, StorageError):
            raise
        if _is_memory(error):
            raise StageError(f"{step.name} ran out of memory", _smaller(step)) from error
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | IsADirectoryError):
            raise cache.storage_error(error, context.out) from error
        if any("os error 28" in str(cause) or "No space left" in str(cause) for cause in chain(error)):
            raise cache.storage_error(OSError(28, "No space left on device"), context.out) from error
        if isinstance(error, EdgekdError):
            raise
        message = f"{step.name} failed: {type(error).__name__}: {cause_of(error)}"
        raise StageError(message, f"the full log is in {context.log}") from error


def reason(recipe: Recipe, stage: str, error: EdgekdError) -> str:
    """Say in one line why a stage failed, and what to do next."""
    hints = [hint for hint in (error.hint, _left_out(recipe, stage)) if hint]
    message = error.message.removeprefix(f"{stage} failed: ")
    text = f"{message} → {'; '.join(hints)}" if hints else message
    return " ".join(_COLOUR.sub("", text).split())


def _smaller(step: Planned) -> str:
    if step.node.stage.name in TRAINS:
        return "lower distill.batch_size or data.image_size, and run the same command"
    return "end other programs or take a machine with more memory, and run the same command: finished stages are kept"


def _is_memory(error: BaseException) -> bool:
    """Return whether memory ran out: torch and runtimes raise a RuntimeError, and a converter's error may hide it."""
    return any(
        isinstance(cause, MemoryError)
        or (not isinstance(cause, EdgekdError) and any(words in str(cause).lower() for words in _NO_MEMORY))
        for cause in chain(error)
    )


@contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Send warnings and log records of the libraries into the stage's log."""
    handler = logging.FileHandler(log, delay=True, encoding="utf-8")
    root = logging.getLogger()
    kept = root.handlers[:]
    root.handlers = [handler]
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            yield
    finally:
        logging.captureWarnings(False)
        root.handlers = kept
        handler.close()


def _append(log: Path, text: str) -> None:
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        pass  # the disk that failed may be the log's


def _left_out(recipe: Recipe, stage: str) -> str:
    """What to type to have all files but that of a stage; empty where there is no other."""
    others = [item for item in recipe.export if stage_name(item.format, recipe.precision_of(item)) != stage]
    if not others or len(others) == len(recipe.export):
        return ""
    return f"--set 'export=[{', '.join(map(_typed, others))}]' leaves it out"


def _typed(item: Export) -> str:
    """An artifact as a recipe names it."""
    pairs = [f"{key}: {value}" for key, value in item.model_dump(exclude_unset=True).items()]
    return item.format if len(pairs) == 1 else f"{{{', '.join(pairs)}}}"
