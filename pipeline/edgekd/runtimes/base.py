"""The runtime protocol: the contract of a file in this folder, and of a third party's.

A runtime is registered under the format of its files, as an exporter is: ``@runtimes.register("onnx")``. Its module must
import neither the runtime nor numpy at its top level: listing formats has to be instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekd.errors import ExportError, cause_of, did_you_mean
from edgekd.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Images = NDArray[np.float32]

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class TensorSpec:
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

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the file once.

        Args:
            inputs: An array for each input, by name, in the file's own layout. Floats are rounded here where the file takes
                integers.

        Returns:
            Every output by name, in the file's own layout; integers that stand for floats as float32.
        """
        ...


class Runtime(Protocol):
    """One runtime on this machine.

    Attributes:
        layout: Of images in its files: ``NCHW`` or ``NHWC``.
    """

    layout: str

    def load(self, path: Path, threads: int) -> Session:
        """Load a file; operators run one after the other, each with ``threads``."""
        ...


runtimes: Registry[type[Runtime]] = Registry("runtime", "edgekd.runtimes", "edgekd.runtimes")


def of(format: str) -> Runtime:
    """Return the runtime of a format.

    Raises:
        UsageError: There is none, or its package cannot be imported.
    """
    return runtimes.get(format)()


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
