"""Runtimes that a model file is measured in: one module a format, which a third party's stands beside.

Its ``PACKAGES`` has the names of packages that run the format, each with a callable that makes a runtime from a number of
threads; of several the first that works is used. Its ``TRIVIAL`` has the names of the files of its trivial model. Its
``BESIDE``, which may be left out, has the endings of files beside the one that is loaded.

A runtime has: ``version``, ``load(path)``, ``unload()``, ``run(feed)`` as a user writes it, ``inputs()``: by name, in the
model's order, (shape with None where free, numpy type, (scale, zero point)); ``fit(feed)`` for free sizes, ``outputs(feed)``
(all of them, by name), and ``operations(path, feed, runs)`` (times of each). ``effective(path, feed)`` is what it says it
did: ``threads`` or None, ``delegates`` as in ``results.runtime.Delegate`` and ``settings`` by its own names if it tells any,
and ``ops`` and ``float_ops`` of ``precision``. ``default_precision(path)`` is what it computes floats in where it
is not asked for float32, empty where that is float32. A feed has an array for each input, by name, in the same order. A
module imports its package only when it is used.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any


def of(form: str) -> Any:
    """Return the module of a format."""
    return importlib.import_module("." + form, __name__)


def files(form: str, path: Path) -> list[Path]:
    """Return the files of a model: the one that is loaded, and those beside it."""
    return [path, *(path.with_suffix(suffix) for suffix in getattr(of(form), "BESIDE", ()))]


def create(form: str, threads: int, package: str = "") -> Any:
    """Return a runtime for a format.

    Args:
        form: Name of a module here, such as ``onnx``.
        threads: Threads it may use.
        package: One of the format's; by default the first that is installed.

    Raises:
        ImportError: None is installed.
    """
    packages = of(form).PACKAGES
    for name, runtime in packages.items():
        if name == package or (not package and importlib.util.find_spec(name) is not None):
            return runtime(threads)
    raise ImportError(f"none of {', '.join(packages)} is installed")
