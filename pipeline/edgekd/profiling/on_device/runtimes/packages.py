"""Versions of the packages that runtimes come in."""

from __future__ import annotations

import sys
from pathlib import Path

DISTRIBUTIONS = {
    "ai_edge_litert": ("ai-edge-litert", "ai-edge-litert-nightly"),
    "tflite_runtime": ("tflite-runtime", "tflite-runtime-nightly"),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-aarch64"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}
"""What pip may call a package, where that is not its own name."""


def found(package: str) -> tuple[str, str]:
    """Return what pip calls an installed package and its version; no version where it was built by hand."""
    names = DISTRIBUTIONS.get(package, (package,))
    for name in names:
        version = _version(name)
        if version:
            return name, version
    return names[0], ""


def _version(name: str) -> str:
    """Read it from the name of the folder that pip leaves: importlib.metadata would cost 5 MiB of memory."""
    start, end = name.replace("-", "_") + "-", ".dist-info"
    for root in sys.path:
        for path in Path(root).glob(start + "*" + end):
            return path.name[len(start) : -len(end)]
    return ""
