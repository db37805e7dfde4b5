"""Known faults of runtimes on devices: how to recognize them, what to type, and which ones edgekd works around."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekd.runtimes import base

_TFLITE_RUNTIME_LAST = 11
"""The last Python 3 minor version with wheels of tflite-runtime."""
_TFLITE_RUNTIME_NUMPY = 2
"""The first major version of numpy that tflite-runtime cannot work with."""
_LITERT_FIRST = 9
"""The first with wheels of ai-edge-litert."""

Facts = Mapping[str, Any]
"""What the program on the device answers to ``facts``."""


def works(row: Facts, facts: Facts) -> bool:
    """Return whether a runtime works; without an inference in it, whether no fault of it is known."""
    return bool(row.get("works", facts.get("numpy") and not _other_numpy(row, facts)))


def _other_numpy(row: Facts, facts: Facts) -> bool:
    return row["module"] == "tflite_runtime" and _major(facts["numpy"]) >= _TFLITE_RUNTIME_NUMPY


def problem(row: Facts, facts: Facts, python: str) -> tuple[str, str]:
    """Say why an inference did not work, and what to do.

    Args:
        row: A runtime that does not work, as the device answered.
        facts: Of the device.
        python: Its interpreter.

    Returns:
        The problem and the fix, one line each.
    """
    name = f"{row['package']} {row['version']}".strip()
    error, signal = str(row.get("error", "")), str(row.get("signal", ""))
    if not facts.get("numpy"):
        return f"{name} needs numpy, which is not installed", _pip(facts, python, "numpy", row["package"])
    if _other_numpy(row, facts):
        what = f"{name} is built for numpy 1 and numpy {facts['numpy']} is installed: it can be imported, an inference fails"
        return what, _pip(facts, python, "numpy<2", row["package"])
    if signal == "SIGILL":
        what = f"{name} dies with SIGILL: it is built for instructions that this CPU does not have"
        return what, f"install another version of it: {_pip(facts, python, row['package'] + '<' + (row['version'] or '?'))}"
    if signal:
        return f"{name} dies with {signal}: {error}".removesuffix(
            ": "
        ), f"install it again: {_pip(facts, python, row['package'])}"
    return f"{name} does not work: {error}", f"install it again: {_pip(facts, python, row['package'])}"


def missing(forms: Sequence[str], facts: Facts, python: str, also: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Say that formats have no runtime on a device or lack numpy, and what to install, all of it in one line.

    Args:
        forms: Formats without a runtime.
        facts: Of the device.
        python: Its interpreter.
        also: Packages of runtimes that are there, which want numpy.
    """
    where = f"for {python} (Python {facts['python']})"
    packages = {form: package_for(form, facts) for form in forms}
    lacking = [form for form, (package, _) in packages.items() if package]
    what = f"{', '.join(lacking)}: no runtime is installed {where}" if lacking else f"numpy is not installed {where}"
    words = [word for form in lacking for word in packages[form][0].split()]
    if not facts.get("numpy") and (lacking or also):
        what += ", and no numpy" if lacking else f", and {', '.join(also)} {'needs' if len(also) == 1 else 'need'} it"
        old = "tflite-runtime" in also and not any(word.startswith("numpy") for word in words)
        words += ["numpy<2"] if old else [] if any(word.startswith("numpy") for word in words) else ["numpy"]
    if words:
        yield what, _pip(facts, python, " ".join(words))
    for form, (package, reason) in packages.items():
        if not package:
            yield f"{form}: no runtime is installed {where}, and there is none for it: {reason}", _without(form)


def package_for(form: str, facts: Facts) -> tuple[str, str]:
    """Return the package to install for a format, or why there is none."""
    minor, arch = int(facts["python"].split(".")[1]), facts["arch"]
    if form != "tflite":
        package = base.of(form).packages[0]
        return (package, "") if arch != "armv7l" else ("", f"{package} has no wheels for 32-bit Arm")
    if arch != "armv7l" and minor >= _LITERT_FIRST:
        return "ai-edge-litert", ""
    if minor <= _TFLITE_RUNTIME_LAST:
        return "tflite-runtime numpy<2", ""
    return (
        "",
        f"ai-edge-litert has no wheels for 32-bit Arm, and tflite-runtime has none after Python 3.{_TFLITE_RUNTIME_LAST}",
    )


def known(row: Facts) -> Iterator[str]:
    """Yield the known faults of a runtime on this device that edgekd works round."""
    name = f"{row['package']} {row['version']}".strip()
    compiled = row.get("compiled_model")
    if compiled and not compiled["works"]:
        how = f"dies with {compiled['signal']}" if compiled.get("signal") else f"fails ({compiled['error']})"
        yield f"{name}: CompiledModel {how} on this CPU; edgekd uses Interpreter, and so should your program"
    precision = row.get("default_precision")
    if precision not in (None, "f32"):
        yield (
            f"{name}: float layers are computed in {precision} here unless INFERENCE_PRECISION_HINT is set; "
            "edgekd asks for f32, and so should your program"
        )
    if row["module"] == "onnxruntime" and _version(row["version"]) >= (1, 31):
        yield f"{name} sends usage data; edgekd sets ORT_DISABLE_TELEMETRY=1, and so should your program"


def system(facts: Facts) -> Iterator[str]:
    """Yield what is unusual about the system itself."""
    if facts["arch"] == "armv7l" and facts["kernel_arch"] in ("aarch64", "armv8l"):
        yield (
            f"the system is 32-bit ({facts['arch']}) on a 64-bit kernel, for which few runtimes have wheels; "
            "install the 64-bit image"
        )


def _pip(facts: Facts, python: str, packages: str, also: str = "numpy") -> str:
    """What to type on the device.

    Args:
        facts: Of the device.
        python: Its interpreter. A system's own, which refuses pip, gets a virtual environment beside it.
        packages: What to install.
        also: What a new virtual environment needs besides.
    """
    words = packages.split()
    if not facts.get("managed"):
        return f"on the device: {shlex.quote(python)} -m pip install {shlex.join(words)}"
    place = f"{facts.get('home', '~')}/edgekd"
    words += [] if any(word.startswith(also) for word in words) else [also]
    pip = shlex.quote(f"{place}/bin/pip")
    make = f"{shlex.quote(python)} -m venv {shlex.quote(place)} && {pip} install {shlex.join(words)}"
    return f"on the device: {make}; then in its file: python: [{place}/bin/python]"


def _without(form: str) -> str:
    return f"leave {form} out for this device, or install a 64-bit system with Python 3.{_TFLITE_RUNTIME_LAST} or later"


def _major(version: str) -> int:
    return (*_version(version), 0)[0]


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
