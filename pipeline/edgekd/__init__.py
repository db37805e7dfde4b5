"""edgekd: distill → quantize → export → profile → report, from one recipe.

The public functions are those of ``__all__``; everything else is private and changes without notice. Each does what the
command of its name does, takes paths or names, and returns a typed result. Importing this package is instant: torch and the
runtimes are imported by the stages that need them.

What goes wrong is an :class:`edgekd.errors.EdgekdError` with ``message``, ``hint`` and ``exit_code``: a ``RecipeError`` with
its ``problems``, a ``UsageError``, a ``StageError``, or a ``DeviceError``. A gate that fails is no error: the ``exit_code``
of the result says so.

Example:
    >>> import edgekd
    >>> checked = edgekd.check("mobilenet", overrides={"distill.epochs": 1})
    >>> checked.ok, checked.problems
    (True, ())
    >>> outcome = edgekd.run("mobilenet", overrides={"distill.epochs": 1})  # doctest: +SKIP
    >>> outcome.result.verdict, outcome.folder  # doctest: +SKIP
    ('pass', PosixPath('reports/mobilenet/0001-5d0e2c1a'))
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike
    from typing import Literal

    from edgekd.artifacts.profile import Profiled
    from edgekd.engine.checking import Checked
    from edgekd.engine.plan import Planned
    from edgekd.engine.runner import Outcome
    from edgekd.loading.loaded import Loaded
    from edgekd.results.run import RunResult

    AnyPath = str | PathLike[str]

__version__ = "0.2.0"
__all__ = ["check", "export", "plan", "profile", "quantize", "read_run", "run"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Refuse arguments of other types and beyond their limits, before anything is done."""

    @wraps(function)
    def call(*given: _P.args, **named: _P.kwargs) -> _R:
        from edgekd.engine import arguments

        bound = arguments.checked(function, given, named)
        return function(*bound.args, **bound.kwargs)

    return call


@_checked
def check(recipe: AnyPath, *, overrides: Mapping[str, Any] | None = None) -> Checked:
    """Find every mistake of a recipe without running it, as ``edgekd check`` does.

    Args:
        recipe: A file, or the name of a recipe that ships with edgekd.
        overrides: New values by their keys, such as ``{"distill.epochs": 1}``.

    Returns:
        The recipe with every default, or its problems.

    Raises:
        UsageError: The recipe is a lock, and files that it locks have changed.
    """
    from pathlib import Path

    from edgekd.engine import checking

    return checking.check(Path(recipe), _texts(overrides))


@_checked
def plan(
    recipe: AnyPath, *, overrides: Mapping[str, Any] | None = None, processes: int = 1, threads: int | None = None
) -> tuple[Planned, ...]:
    """List the stages of a recipe, each with ``run``, ``cached`` or ``blocked`` and why, as ``edgekd plan`` does.

    Args:
        recipe: A file, or the name of a recipe that ships with edgekd.
        overrides: New values by their keys.
        processes: Processes that train together.
        threads: Threads of torch; by default as the recipe says, or one a core and at most 4.

    Raises:
        RecipeError: The recipe cannot be run as it is; with all its problems.
        UsageError: The recipe is a lock, and files that it locks have changed.
    """
    from pathlib import Path

    from edgekd.engine import plan as planning
    from edgekd.engine import preflight
    from edgekd.engine.threads import threaded
    from edgekd.errors import RecipeError
    from edgekd.loading import load

    loaded = threaded(load(Path(recipe), _texts(overrides)), threads, processes)
    if problems := preflight.devices(loaded):
        raise RecipeError(problems)
    return tuple(planning.make(loaded, processes))


@_checked
def run(
    recipe: AnyPath,
    *,
    overrides: Mapping[str, Any] | None = None,
    out: AnyPath = "reports",
    processes: int = 1,
    threads: int | None = None,
    without_devices: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Run a recipe, as ``edgekd run`` does. Finished stages are re-used.

    Args:
        recipe: A file, or the name of a recipe that ships with edgekd.
        overrides: New values by their keys.
        out: The run folder goes into a folder of the recipe's name there.
        processes: Processes that train together: one a GPU, or several on the CPU.
        threads: Threads of torch; by default as the recipe says, or one a core and at most 4.
        without_devices: Go on where a device is not ready.
        quiet: Print no progress on standard error.

    Returns:
        The run folder, the result, and the exit code of the command: 1 where a gate failed, 3 where a file is missing, 4
        where a device failed.

    Raises:
        RecipeError: The recipe cannot be run as it is; with all its problems.
        UsageError: The recipe is a lock, and files that it locks have changed.
        StageError: A stage failed that nothing can be delivered without; the finished ones are kept.
        DeviceError: A device is not ready, and nothing has been trained yet.
    """
    from pathlib import Path

    from edgekd.loading import load

    loaded = load(Path(recipe), _texts(overrides))
    return _run(loaded, out, quiet, processes=processes, threads=threads, without_devices=without_devices)


@_checked
def quantize(  # a keyword for each option of the command
    model: str,
    *,
    weights: AnyPath,
    data: AnyPath,
    method: Literal["ptq", "qat"] | None = None,
    epochs: int | None = None,
    formats: Sequence[str] = (),
    io: Literal["float32", "int8"] | None = None,
    size: int | tuple[int, int] | None = None,
    channels: Literal[1, 3] = 3,
    normalize: str | None = None,
    classes: int | None = None,
    devices: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    out: AnyPath = "build",
    processes: int = 1,
    threads: int | None = None,
    without_devices: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Make int8 files of a trained model and prove them, as ``edgekd quantize`` does.

    Args:
        model: ``FILE.py:CALLABLE``, ``torchvision:NAME``, ``timm:NAME`` or ``edgekd:NAME``.
        weights: Its checkpoint.
        data: Calibration and test images: a folder, an .npz file or the name of a data set.
        method: ``ptq`` calibrates, ``qat`` trains; by default ptq, or qat where there are epochs.
        epochs: Epochs of qat.
        formats: Files to write; by default onnx, tflite and openvino.
        io: Type of the input and the output of TFLite files.
        size: Height and width of the images in pixels: one number, or both; by default 224, or 32 for a named data set.
        channels: Channels of the images.
        normalize: ``imagenet``, ``half``, ``none``, ``MEAN/STD`` or ``data``.
        classes: Number of classes, for images without labels.
        devices: Where to measure the files: names of devices, or paths of their files.
        overrides: New values by their keys in the recipe that is composed.
        out: The run folder goes into a folder of the model's name there.
        processes: Processes that train together, with qat.
        threads: Threads of torch; by default one a core, at most 4.
        without_devices: Go on where a device is not ready.
        quiet: Print no progress on standard error.

    Returns:
        The run folder, the result, and the exit code of the command.

    Raises:
        RecipeError: The options do not fit together; with all problems.
        UsageError: An option is not understood, or a file is missing.
        StageError: A stage failed that nothing can be delivered without.
        DeviceError: A device is not ready.
    """
    from pathlib import Path

    from edgekd.engine import compose

    sections = compose.quantize_sections(method, epochs, formats, io, devices)
    given = compose.Given(
        "edgekd.quantize", model, Path(weights), str(data), size, channels, normalize, classes, sections, _texts(overrides)
    )
    return _composed(given, out, quiet, processes=processes, threads=threads, without_devices=without_devices)


@_checked
def export(  # a keyword for each option of the command
    model: str,
    *,
    weights: AnyPath,
    data: AnyPath | None = None,
    formats: Sequence[str] = (),
    precisions: Sequence[str] = (),
    size: int | tuple[int, int] | None = None,
    channels: Literal[1, 3] = 3,
    normalize: str | None = None,
    classes: int | None = None,
    devices: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    out: AnyPath = "build",
    threads: int | None = None,
    without_devices: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Write a trained model to files without int8 activations and compare them with torch, as ``edgekd export`` does.

    Args:
        model: ``FILE.py:CALLABLE``, ``torchvision:NAME``, ``timm:NAME`` or ``edgekd:NAME``.
        weights: Its checkpoint.
        data: Images to compare the files on: a folder, an .npz file or the name of a data set; by default random ones.
        formats: Files to write; by default onnx.
        precisions: Of each format: float32, float16, dynamic, int8-weights, int4-weights or int16x8; by default float32.
        size: Height and width of the images in pixels: one number, or both; by default as for ``quantize``.
        channels: Channels of the images.
        normalize: ``imagenet``, ``half``, ``none``, ``MEAN/STD`` or ``data``.
        classes: Number of classes, for images without labels.
        devices: Where to measure the files: names of devices, or paths of their files.
        overrides: New values by their keys in the recipe that is composed.
        out: The run folder goes into a folder of the model's name there.
        threads: Threads of torch; by default one a core, at most 4.
        without_devices: Go on where a device is not ready.
        quiet: Print no progress on standard error.

    Returns:
        The run folder, the result, and the exit code of the command.

    Raises:
        RecipeError: The options do not fit together; with all problems.
        UsageError: An option is not understood, or a file is missing.
        StageError: A stage failed that nothing can be delivered without.
        DeviceError: A device is not ready.
    """
    from pathlib import Path

    from edgekd.engine import compose

    sections = compose.export_sections(formats, precisions, devices)
    source = None if data is None else str(data)
    given = compose.Given(
        "edgekd.export", model, Path(weights), source, size, channels, normalize, classes, sections, _texts(overrides)
    )
    return _composed(given, out, quiet, processes=1, threads=threads, without_devices=without_devices)


@_checked
def profile(  # a keyword for each option of the command
    *artifacts: AnyPath,
    devices: Sequence[str] = ("host",),
    threads: int | None = None,
    cores: Sequence[int] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: Mapping[str, AnyPath] | None = None,
    accuracy: int | None = None,
    sustained: float = 0,
    overrides: Mapping[str, Any] | None = None,
    against: AnyPath | None = None,
    out: AnyPath = "reports",
    quiet: bool = False,
) -> Profiled:
    """Measure model files on devices, as ``edgekd profile`` does.

    Args:
        artifacts: Run folders, folders of bundles, or files: .onnx, .tflite, OpenVINO's .xml.
        devices: Names of devices, or paths of their files.
        threads: Threads of a runtime; by default as the device's file says, or 1.
        cores: Cores to pin to; by default as the device's file says.
        shapes: By the name of an input, its size where the model leaves it open.
        inputs: By the name of an input, an .npy file whose rows are fed in turn.
        accuracy: Images of the bundle whose classes are found on each device, too.
        sustained: Minutes that each file runs without a pause, too.
        overrides: How long is measured: ``warmup_runs``, ``warmup_ms``, ``blocks``, ``block_ms``, ``block_runs``.
        against: Folder of an earlier run or profile to compare with.
        out: The result's folder goes into ``profile/`` there.
        quiet: Print no progress on standard error.

    Returns:
        The folder, the result, why something could not be measured, and the exit code of the command.

    Raises:
        UsageError: A file or a device's file is wrong.
        RecipeError: An override is wrong.
        StorageError: The result cannot be written.

    Example:
        >>> profiled = profile("model.onnx", devices=["host", "pi4"])  # doctest: +SKIP
        >>> profiled.result.profiles[0].latency_ms.p50  # doctest: +SKIP
    """
    from pathlib import Path

    from edgekd.artifacts.inputs import Given
    from edgekd.artifacts.profile import Settings
    from edgekd.artifacts.profile import profile as measure
    from edgekd.artifacts.protocol import protocol
    from edgekd.progress import Silent, for_stream

    given = Given(
        {name: tuple(shape) for name, shape in (shapes or {}).items()},
        {name: Path(path) for name, path in (inputs or {}).items()},
        accuracy,
    )
    settings = Settings(
        devices=tuple(devices), threads=threads, cores=tuple(cores), given=given, out=Path(out),
        against=Path(against) if against else None, protocol=protocol(_texts(overrides), sustained),
        progress=Silent() if quiet else for_stream(),
    )  # fmt: skip
    return measure([Path(path) for path in artifacts], settings)


@_checked
def read_run(folder: AnyPath) -> RunResult:
    """Read what a run or a profile found.

    Args:
        folder: The run folder, such as ``reports/mobilenet/latest``, or the ``run.json`` in it.

    Raises:
        UsageError: There is no ``run.json``, or this edgekd cannot read it.
    """
    from pathlib import Path

    from edgekd.results import run as runs

    return runs.read_run(Path(folder))


def _texts(overrides: Mapping[str, Any] | None) -> list[str]:
    """Write each override as it is typed behind ``--set``."""
    from edgekd.loading.lock import flow

    return [f"{key}={flow(value)}" for key, value in (overrides or {}).items()]


def _composed(given: Any, out: AnyPath, quiet: bool, **options: Any) -> Outcome:
    """Compose the recipe of a trained model and run it; mistakes are told by the options."""
    from dataclasses import replace

    from edgekd.engine import compose

    given = replace(given, model=compose.check_model(given.command, given.model))
    with compose.in_options(given):
        loaded, _ = compose.load(given)
        return _run(loaded, out, quiet, **options)


def _run(
    loaded: Loaded, out: AnyPath, quiet: bool, *, processes: int, threads: int | None, without_devices: bool
) -> Outcome:
    """Run a recipe that was read."""
    import os
    from pathlib import Path

    from edgekd.assembly.launch import handed_back
    from edgekd.engine import runner
    from edgekd.engine.threads import compare_with_lock, threaded
    from edgekd.errors import UsageError
    from edgekd.progress import Silent, for_stream

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UsageError("a script does not run under torchrun", "give processes=N, or torchrun -m edgekd run RECIPE")
    progress = Silent() if quiet else for_stream()
    written, loaded = loaded, threaded(loaded, threads, processes)
    used = loaded.recipe.threads or 1
    compare_with_lock(written, used, progress.say)
    with handed_back():
        return runner.run(loaded, runner.Options(Path(out), progress, processes, used, without_devices))
