"""edgekd: distill → quantize → export → profile → report, from one recipe.

Importing this package is instant: torch and the runtimes are imported by the stages that need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from edgekd.artifacts.profile import Profiled

__version__ = "0.1.0"
__all__ = ["profile"]


def profile(
    *artifacts: str | PathLike[str],
    devices: Sequence[str] = ("host",),
    threads: int | None = None,
    cores: Sequence[int] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    inputs: Mapping[str, str | PathLike[str]] | None = None,
    accuracy: int | None = None,
    against: str | PathLike[str] | None = None,
    out: str | PathLike[str] = "reports",
    **more: Any,
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
        against: Folder of an earlier run or profile to compare with.
        out: The result's folder goes into ``profile/`` there.
        more: Other fields of ``artifacts.profile.Settings``.

    Returns:
        The folder, the result, and what failed.

    Raises:
        UsageError: A file or a device's file is wrong.

    Example:
        >>> found = profile("model.onnx", devices=["host", "pi4"])  # doctest: +SKIP
        >>> found.result.profiles[0].latency_ms.p50  # doctest: +SKIP
    """
    from pathlib import Path

    from edgekd.artifacts.inputs import Given
    from edgekd.artifacts.profile import Settings
    from edgekd.artifacts.profile import profile as run

    given = Given(
        {name: tuple(shape) for name, shape in (shapes or {}).items()},
        {name: Path(path) for name, path in (inputs or {}).items()},
        accuracy,
    )
    settings = Settings(tuple(devices), threads, tuple(cores), given, Path(out), Path(against) if against else None, **more)
    return run([Path(path) for path in artifacts], settings)
