"""A variant: one file with its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Variant:
    """One artifact to measure.

    Attributes:
        model: Name of its model record, such as ``onnx_float``.
        runtime: Runtime, named by the format.
        path: The model file, the one to load of several.
        inputs: By the name of an input, an .npy file with a batch that is fed row by row; one that is missing gets random
            values that fit.
        shapes: By the name of an input without a file, its size where the model leaves it open.
        layout: Of its only input where that is an image: ``NCHW`` or ``NHWC``; else empty.
    """

    model: str
    runtime: str
    path: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    layout: str = ""
