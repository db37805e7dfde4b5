"""The runtime protocol: the contract of a file in this folder, and of a third party's.

A runtime is registered under the format of its files, as an exporter is: ``@runtimes.register("onnx")``. Its module must
import neither the runtime nor numpy at its top level: listing formats has to be instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekd.errors import ExportError, cause_of, did_you_mean
from edgekd.profiling import on_device
from edgekd.registry import Registry
from edgekd.runtimes.inside import Inside
from edgekd.runtimes.snippets import Cpp, Kotlin, Python

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Images = NDArray[np.float32]

Shape = tuple[int | None, ...]
STRING = "string"
"""What ``Declared.kind`` calls texts."""


@dataclass(frozen=True)
class LoadedPort:
    """An input or output of a loaded file.

    Attributes:
        name: In the file.
        shape: As it is in the file; a size is None where any goes.
        dtype: Of the arrays that ``Session.run`` takes or returns: ``float32`` where the file has integers that stand for
            floats.
    """

    name: str
    shape: Shape
    dtype: str


class Session(Protocol):
    """A loaded file.

    Attributes:
        inputs: In the file's order.
        outputs: In the file's order.
    """

    inputs: tuple[LoadedPort, ...]
    outputs: tuple[LoadedPort, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the file once.

        Args:
            inputs: An array for each input, by name, in the file's own layout. Floats are rounded here where the file takes
                integers.

        Returns:
            Every output by name, in the file's own layout; integers that stand for floats as float32.
        """
        ...


@dataclass(frozen=True)
class Declared:
    """An input as its file declares it, read without the runtime.

    Attributes:
        sides: Its sizes, None where free; None in place of all where the rank is free.
        kind: numpy's name of its type, ``string``, or what the file calls a type that numpy does not have.
        quantized: Whether floats are put on its grid.
    """

    sides: Sequence[int | None] | None
    kind: str
    quantized: bool = False


@dataclass(frozen=True)
class OnDevice:
    """Files that are sent to a device beside the agent, so that it can measure there.

    Attributes:
        module: A Python file, of the standard library and numpy, for Python 3.8 or later. Its ``PACKAGES`` has the names of
            packages that run the format, each with a callable that makes a runtime from a number of threads;
            ``profiling/on_device/runtimes/__init__.py`` says what that is. ``TRIVIAL`` has the names of ``trivial``.
        trivial: Files of the trivial model of ``profiling/on_device/trivial.py``, the one to load first.
    """

    module: Path
    trivial: tuple[Path, ...]

    @classmethod
    def shipped(cls, name: str, *trivial: str) -> OnDevice:
        """Return what stands in edgekd's own program for devices."""
        folder = Path(on_device.__file__).parent
        return cls(folder / "runtimes" / f"{name}.py", tuple(folder / "models" / file for file in trivial))


class Runtime(Protocol):
    """One runtime: how its files are loaded, described, looked into and shipped."""

    @property
    def label(self) -> str:
        """Its name in sentences, such as ``ONNX Runtime``."""
        ...

    @property
    def format_label(self) -> str:
        """Its format's name in tables, such as ``ONNX``."""
        ...

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions that have it; the first is what a snippet and a device have to install."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of the file to load, in small letters."""
        ...

    @property
    def layout(self) -> str:
        """Of images in its files: ``NCHW`` or ``NHWC``."""
        ...

    @property
    def lacks_int8(self) -> tuple[str, ...]:
        """Activations without an int8 kernel, of ``devices.schema.Activation``."""
        ...

    @property
    def inside(self) -> Inside | None:
        """Access to values inside its files; None where there is none."""
        ...

    @property
    def on_device(self) -> OnDevice | None:
        """The program that measures it on a device; None where there is none."""
        ...

    @property
    def python(self) -> Python:
        """Its load snippet in Python."""
        ...

    @property
    def cpp(self) -> Cpp | None:
        """Its load snippet in C++; None where there is none."""
        ...

    @property
    def kotlin(self) -> Kotlin | None:
        """Its load snippet in Kotlin; None where there is none."""
        ...

    def load(self, path: Path, threads: int) -> Session:
        """Load a file; operators run one after the other, each with ``threads``."""
        ...

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return all files of a model that is loaded from ``path``, which is the first."""
        ...

    def check(self, path: Path) -> tuple[str, ...]:
        """See that a file that exists is one of this runtime, as far as that can be seen at once.

        Returns:
            What of it is not loaded, in words that follow its name, such as ``has 2 signatures: …``.

        Raises:
            UsageError: It is something else, or not whole.
        """
        ...

    def declared(self, path: Path) -> Mapping[str, Declared]:
        """Return the inputs that a file declares, by name, in its order; of a damaged file anything may be raised."""
        ...


runtimes: Registry[type[Runtime]] = Registry("runtime", "edgekd.runtimes", "edgekd.runtimes.base.Runtime", "edgekd.runtimes")


def of(format: str) -> Runtime:
    """Return the runtime of a format.

    Raises:
        UsageError: There is none, or its package cannot be imported.
    """
    return runtimes.get(format)()


def known() -> dict[str, Runtime]:
    """Return all runtimes by name; a third party's that is broken is left out: it must not stop those who do not use it."""
    return {name: kind() for name, kind in runtimes.usable().items()}


def format_of(path: Path) -> str | None:
    """Return the format of a model file by its ending; None where no runtime has files that end so."""
    return suffixes().get(path.suffix.lower())


def suffixes() -> Mapping[str, str]:
    """Return the format of each ending of files."""
    return {suffix: name for name, runtime in known().items() for suffix in runtime.suffixes}


def packages() -> tuple[str, ...]:
    """Return the distributions of all runtimes."""
    return tuple(dict.fromkeys(package for runtime in known().values() for package in runtime.packages))


def files(path: Path) -> tuple[Path, ...]:
    """Return all files of a model; the file alone where its ending is no runtime's."""
    format = format_of(path)
    return (path,) if format is None else of(format).files(path)


def label(format: str) -> str:
    """Return the name of a format's runtime in sentences; the format where no runtime is registered for it."""
    return of(format).label if format in runtimes else format


def format_label(format: str) -> str:
    """Return the name of a format in tables; the format where no runtime is registered for it, such as ``torch``."""
    return of(format).format_label if format in runtimes else format


def looking(format: str) -> Inside:
    """Return how edgekd looks into files of a format.

    Raises:
        ExportError: It does not.
    """
    found = of(format).inside
    if found is None:
        raise ExportError(f"edgekd cannot look into files of {label(format)}")
    return found


def load(path: Path, format: str, threads: int = 1) -> Session:
    """Load a file into its runtime.

    Args:
        path: The file that the exporter returned first.
        format: Name of the runtime, such as ``onnx``.
        threads: Threads inside one operator; operators run one after the other.

    Raises:
        ExportError: Unknown format, missing runtime, or a file that the runtime rejects.
    """
    if format not in runtimes:
        raise ExportError(f"no runtime for format {format!r}", did_you_mean(format, runtimes.names()))
    if not path.is_file():
        raise ExportError(f"there is no model at {path}", "run the export stage first")
    try:
        return of(format).load(path, threads)
    except ImportError as error:
        raise ExportError(f"the runtime for {format} cannot be imported: {error}", "reinstall edgekd") from error
    except Exception as error:  # runtimes raise their own classes, RuntimeError and ValueError
        raise ExportError(f"{path.name} cannot be loaded: {cause_of(error)}", "export it again") from error


def run_file(path: Path, format: str, images: Images, threads: int = 1) -> Images:
    """Load a file of one input and return its first output for images (N, C, H, W), run one after the other.

    Raises:
        ExportError: It cannot be loaded.
    """
    return run_images(load(path, format, threads), images, of(format).layout)


def laid_out(images: Images, layout: str) -> Images:
    """Return images (N, C, H, W) in another layout, ``NCHW`` or ``NHWC``; arrays of another rank as they are."""
    import numpy as np

    return np.ascontiguousarray(images.transpose(0, 2, 3, 1) if layout == "NHWC" and images.ndim == 4 else images)


def run_images(session: Session, images: Images, layout: str, output: str = "") -> Images:
    """Run a file of one input on images, one after the other.

    Args:
        session: The file.
        images: (N, C, H, W), float32.
        layout: That the file takes.
        output: Name of the output to return; by default the first.

    Returns:
        The outputs of all images, joined at their first dimension.
    """
    import numpy as np

    (taken,) = session.inputs
    name = output or session.outputs[0].name
    rows: Iterable[Images] = (laid_out(images[at : at + 1], layout) for at in range(len(images)))
    return np.concatenate([session.run({taken.name: row})[name] for row in rows])
