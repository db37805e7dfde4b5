"""Versions of the packages that runtimes come in."""

from __future__ import annotations

import importlib
import importlib.metadata

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
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return names[0], ""
