"""Find the runtimes of the device, and run a real inference in each, in a process of its own.

A runtime that is built for another CPU does not raise, it dies; and one that is built for another numpy can be imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import trivial
from .runtimes import create, of, packages

TOLERANCE = 0.05
"""Largest difference of the output; the layer is exact in every type, so this is for an answer that is wrong."""


def runtimes(formats: list[str], infer: bool, thorough: bool, limit_s: float) -> list[dict[str, Any]]:
    """Look at the packages of each format that are installed, until one works.

    Args:
        formats: Names of modules of ``runtimes``.
        infer: Run an inference in each; without it the first that is installed is taken to work.
        thorough: Look at all packages, and for known faults too, which edgekd works round.
        limit_s: Seconds that one inference may take, the runtime's import included.
    """
    rows = []
    for form in formats:
        for package in of(form).PACKAGES:
            if importlib.util.find_spec(package) is None:
                continue
            label, version = packages.found(package)
            row: dict[str, Any] = {"format": form, "module": package, "package": label, "version": version}
            if infer:
                row.update(_apart(form, package, "inference", limit_s))
            if thorough and package == "ai_edge_litert":
                row["compiled_model"] = _apart(form, package, "compiled_model", limit_s)
            rows.append(row)
            if row.get("works", True) and not thorough:
                break
    return rows


def _apart(form: str, package: str, what: str, limit_s: float) -> dict[str, Any]:
    """Ask this program about a package in a new process, which may die."""
    command = [sys.executable, sys.argv[0], "probe", what, form, package]
    with tempfile.TemporaryFile() as noise:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=noise, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired:
            return {"works": False, "error": f"no answer within {limit_s:.0f} s"}
        noise.seek(0)
        lines = noise.read().decode(errors="replace").strip().splitlines()
    if done.returncode < 0:
        name = next((item.name for item in signal.Signals if item == -done.returncode), f"signal {-done.returncode}")
        return {"works": False, "signal": name, "error": lines[-1][:300] if lines else ""}
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        told = lines[-1][:300] if lines else "it printed nothing"
        return {"works": False, "error": f"it ended with code {done.returncode}: {told}"}
    return dict(answer)


def main(what: str, form: str, package: str) -> None:
    """Try one package, print the answer and end; the caller has started a process for it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # runtimes print on the real stdout
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = trivial.write(form, Path(folder))
            answer = compiled_model(path) if what == "compiled_model" else inference(form, package, path)
    except Exception as error:
        answer = {"works": False, "error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(answer))
    answers.flush()
    os._exit(0)  # a runtime that crashes while it is taken down has computed nonetheless


def inference(form: str, package: str, path: str) -> dict[str, Any]:
    """Run the trivial model once as a measurement would."""
    import numpy as np

    runtime = create(form, 1, package)
    runtime.load(path)
    (name,) = runtime.inputs()
    found = np.asarray(runtime.run({name: np.array(trivial.INPUT, "float32")}))
    answer = _compared(found)
    precision = runtime.default_precision(path)
    if precision:
        answer["default_precision"] = precision
    return answer


def compiled_model(path: str) -> dict[str, Any]:
    """Run the trivial model with LiteRT's CompiledModel, which edgekd does not use."""
    import numpy as np
    from ai_edge_litert.compiled_model import CompiledModel

    model = CompiledModel.from_file(path)
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(np.array(trivial.INPUT, "float32"))
    model.run_by_index(0, inputs, outputs)
    return _compared(outputs[0].read(len(trivial.OUTPUT[0]), np.float32))


def _compared(found: Any) -> dict[str, Any]:
    import numpy as np

    expected = np.array(trivial.OUTPUT, "float32").ravel()
    if found.size == expected.size and float(np.abs(found.ravel() - expected).max()) <= TOLERANCE:
        return {"works": True}
    told = ", ".join(f"{value:.4g}" for value in found.ravel()[:8])
    return {"works": False, "error": f"a trivial model gives {told}, and {trivial.OUTPUT[0]} is right"}
