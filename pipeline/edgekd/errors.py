"""Errors that a user sees, and their exit codes.

The tree:

* EdgekdError              3
  - RecipeError            2   one or more Problems, each at file:line:col
  - UsageError             2   the command line
  - StageError             3   a stage could not do its work
    + DataError            3   missing, empty, truncated or mislabelled data
    + ModelError           3   a model that cannot be built, or that does not fit the data
      - LayerError         3   layers that a loss compares and a network does not have
    + CheckpointError      3   weights that cannot be read, or that do not fit the model
    + TrainingError        3   NaN loss and the like
    + QuantizeError        3   a graph that cannot be quantized
    + ExportError          3   a format that could not be written or read back
      - FilesError         3   files that were written and do not run in their own runtime
    + StorageError         3   a full disk, a folder that cannot be written
  - DeviceError            4   a device that does not answer or that died
    + LostError            4   a device that answered and does not any more

A gate that fails is a result, not an error: the run ends with exit code 1. A file that cannot be written and a device that
fails are told in the report of the run, which goes on with the others; ``worst`` says which exit code several make together.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """Exit code of a command; the same with ``--json``."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    STAGE_FAILED = 3
    DEVICE_FAILED = 4
    INTERRUPTED = 130


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the exit code that several results make together: 130 before 2, 3, 4 and 1; 0 for none.

    Example:
        >>> int(worst([ExitCode.GATE_FAILED, ExitCode.DEVICE_FAILED, ExitCode.STAGE_FAILED]))
        3
    """
    order = (ExitCode.INTERRUPTED, ExitCode.USAGE, ExitCode.STAGE_FAILED, ExitCode.DEVICE_FAILED, ExitCode.GATE_FAILED)
    found = set(codes)
    return next((code for code in order if code in found), ExitCode.OK)


class EdgekdError(Exception):
    """A mistake or a failure told in words, without a traceback.

    Args:
        message: What is wrong and where.
        hint: What to type or change next.
    """

    exit_code = ExitCode.STAGE_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = printable(message)
        self.hint = printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message

    def saying(self, message: str) -> Self:
        """Return the same error with another message: its class, its hint and its exit code stay."""
        other = type(self).__new__(type(self), message)
        other.__dict__.update(self.__dict__)
        other.message = printable(message)
        return other


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe.

    Attributes:
        where: ``file:line:col``, or the ``--set`` that brought it.
        key: Path of the key, such as ``distill.losses[0].kind``.
        message: What is wrong.
        hint: What is allowed, or what was probably meant.
        snippet: The source line with a caret under the place; empty where there is none.
    """

    where: str
    key: str
    message: str
    hint: str = ""
    snippet: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.key}: {self.message}" if self.key else f"{self.where}: {self.message}"
        lines = [head]
        if self.snippet:
            lines.append(self.snippet)
        if self.hint:
            lines.append(f"  → {self.hint}")
        return "\n".join(lines)


class RecipeError(EdgekdError):
    """A recipe that cannot be run: all its problems at once.

    Args:
        problems: Each with its place.
        hint: What concerns all of them.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, problems: Iterable[Problem], hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems), hint)


class UsageError(EdgekdError):
    """A command line that cannot be obeyed."""

    exit_code = ExitCode.USAGE


class StageError(EdgekdError):
    """A stage that could not do its work."""


class DataError(StageError):
    """Data that is missing, empty, truncated or mislabelled."""


class ModelError(StageError):
    """A model that cannot be built or does not fit the data."""


class LayerError(ModelError):
    """Layers that a loss compares and a network does not have."""


class CheckpointError(StageError):
    """Weights that cannot be read or do not fit the model."""


class TrainingError(StageError):
    """Training that went wrong, such as a loss that is not finite."""


class QuantizeError(StageError):
    """A graph that cannot be quantized."""


class ExportError(StageError):
    """A format that could not be written or read back."""


class FilesError(ExportError):
    """Files that were written and do not run in their own runtime.

    Args:
        message: What is wrong with all of them.
        hint: As in every error.
        failures: What is wrong with each, by the name of the stage that wrote it.
    """

    def __init__(self, message: str, hint: str = "", failures: Mapping[str, ExportError] | None = None) -> None:
        super().__init__(message, hint)
        self.failures = dict(failures or {})


class StorageError(StageError):
    """A full disk or a folder that cannot be written."""


class DeviceError(EdgekdError):
    """A device that does not answer, or whose runtime died."""

    exit_code = ExitCode.DEVICE_FAILED

    def labelled(self, label: str) -> Self:
        """Return the same kind of error whose message begins with a label."""
        return self.saying(f"{label}: {self.message.removeprefix(f'{label}: ')}")


class LostError(DeviceError):
    """A device that answered and does not any more: its connection has ended, or nothing comes over it."""


@dataclass(frozen=True)
class ErrorRecord:
    """An error on its way out of a process or into a file.

    Attributes:
        kind: Name of its class here, or of the nearest that its class is derived from.
        message: What is wrong.
        hint: What to do next.
        exit_code: What the shell sees.
        problems: Of a :class:`RecipeError`.
        failures: Of a :class:`FilesError`, by the name of the stage.
    """

    kind: str
    message: str
    hint: str = ""
    exit_code: int = ExitCode.STAGE_FAILED
    problems: tuple[Problem, ...] = ()
    failures: Mapping[str, ErrorRecord] = field(default_factory=dict)

    @classmethod
    def of(cls, error: EdgekdError) -> ErrorRecord:
        """Describe an error."""
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == __name__)
        failures = error.failures if isinstance(error, FilesError) else {}
        return cls(
            kind=kind.__name__,
            message=error.message,
            hint=error.hint,
            exit_code=int(error.exit_code),
            problems=error.problems if isinstance(error, RecipeError) else (),
            failures={stage: cls.of(failure) for stage, failure in failures.items()},
        )

    def error(self) -> EdgekdError:
        """Return the error again, as it was to its reader."""
        kind: type[EdgekdError] = globals()[self.kind]
        error = kind.__new__(kind, self.message)
        error.message, error.hint = self.message, self.hint
        error.exit_code = ExitCode(self.exit_code)
        if isinstance(error, RecipeError):
            error.problems = self.problems
        if isinstance(error, FilesError):
            failures = {stage: record.error() for stage, record in self.failures.items()}
            error.failures = {stage: failure for stage, failure in failures.items() if isinstance(failure, ExportError)}
        return error


def unexpected(error: Exception) -> tuple[str, str]:
    """Return message and hint for an exception that edgekd has no words for.

    Example:
        >>> print(EdgekdError(*unexpected(ValueError("wrong"))))
        unexpected error (a bug in edgekd): ValueError: wrong
          → run again with --debug and report what it prints
    """
    message = f"unexpected error (a bug in edgekd): {type(error).__name__}: {error}"
    return message, "run again with --debug and report what it prints"


def ended(error: SystemExit) -> tuple[str, str]:
    """Return message and hint where code of a user or a plug-in calls ``sys.exit``, which would end edgekd without a word.

    Example:
        >>> print(EdgekdError(*ended(SystemExit(0))))
        code that edgekd has called ends the process: sys.exit(0)
          → let it raise an error that says what is wrong
    """
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f", in {frame.filename}:{frame.lineno}" for frame in place)
    code = "" if error.code is None else repr(error.code)
    return (
        f"code that edgekd has called ends the process: sys.exit({code}){where}",
        "let it raise an error that says what is wrong",
    )


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Lines of libraries that say that something failed, or what to do in general, but not what.
_EMPTY = re.compile(
    r"^(Failed to (convert the exported program|export flatbuffer|run converter passes)|FrontEnd API failed"
    r"|Check '.*' failed at|Exception from src|Model wasn't fully converted|Next steps|While executing|Original traceback"
    r"|Some ops are not supported|Details:|Summary:|Got unsupported|\[ONNXRuntimeError\]\s*$)"
)


def chain(error: BaseException) -> list[BaseException]:
    """Return an exception and those that it was raised from, the innermost last."""
    links = [error]
    while (before := links[-1].__cause__) is not None and before not in links:
        links.append(before)
    return links


def cause_of(error: BaseException) -> str:
    r"""Return the line of a library's exception that says what was wrong: of the innermost one, without general advice.

    Example:
        >>> cause_of(RuntimeError("Check 'false' failed at src/x.cpp:1:\nFrontEnd API failed\nno Det"))
        'no Det'
        >>> cause_of(RuntimeError("Exception from src/y.cpp:2:\nCheck 'type.is_static()' failed at src/z.cpp:3"))
        "Check 'type.is_static()' failed at src/z.cpp:3"
        >>> cause_of(KeyError())
        'KeyError'
    """
    for link in reversed(chain(error)):
        lines = [line.strip(" -\t") for line in _COLOURS.sub("", str(link)).splitlines()]
        lines = [line for line in lines if line]
        telling = [line for line in lines if not _EMPTY.match(line)] or lines[-1:]  # the last says most, if none says much
        if telling:
            return telling[0].removesuffix(":")[:300]
    return type(error).__name__


def printable(text: str) -> str:
    r"""Return text that can be written as UTF-8: bytes of the name of a file that are no UTF-8 as ``\xff``.

    Example:
        >>> printable(b"caf\xe9".decode("utf-8", "surrogateescape"))
        'caf\\xe9'
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that no name of a file brings
        return text.encode("utf-8", "backslashreplace").decode()


def joined(words: Sequence[str], joint: str = "and") -> str:
    """Join words as a sentence does.

    Example:
        >>> joined(["onnx", "tflite", "openvino"], "or"), joined(["onnx"]), joined([])
        ('onnx, tflite or openvino', 'onnx', '')
    """
    return f" {joint} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Suggest the nearest allowed word, or list what is allowed, each once and none that is empty.

    Example:
        >>> did_you_mean("fitnt", ["kd", "fitnet"])
        'did you mean fitnet?'
        >>> did_you_mean("xyz", ["kd", "fitnet"])
        'allowed: fitnet, kd'
    """
    names = sorted({*allowed} - {""})
    close = nearest(word, names)
    return f"did you mean {close}?" if close is not None else f"allowed: {', '.join(names)}"


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed word that was probably meant; None if none is near."""
    return next(iter(get_close_matches(word, sorted(allowed), n=1, cutoff=0.6)), None)
