"""Parts of a student that are slow in int8 on a recipe's targets, and the rewrite for them. Advice, never an error.

Hard-swish becomes an addition, a clamp and two products in int8, SiLU a sigmoid and a product; each reads and writes a whole
map again. GELU has a table in TensorFlow Lite, but not in XNNPACK, whose graph ends and begins anew at each; ONNX Runtime
computes it in float32; OpenVINO computes it with the convolution before it, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from edgekd.devices.schema import Device
from edgekd.results.findings import Finding
from edgekd.runtimes import base


def advise(
    activations: Mapping[str, int],
    squeezes: int,
    formats: Collection[str],
    devices: Iterable[Device],
    io: str = "float32",
    *,
    trained: bool = True,
) -> tuple[Finding, ...]:
    """Return advice, each with what to write into the recipe; none where all is well.

    Args:
        activations: How many of each kind the student has, as it is distilled.
        squeezes: How many squeeze-excite blocks it has.
        formats: What is exported in int8.
        devices: The targets.
        io: Type of the TFLite file's input and output.
        trained: Whether the recipe trains the student, as it has to behind a rewrite.
    """
    devices = tuple(devices)
    found = []
    for kind, count in activations.items():
        lacking = [name for name in formats if any(kind in lacks(device, name) for device in devices)]
        if lacking:
            figures = {"kind": kind, "count": count, "formats": lacking, "trained": trained}
            found.append(Finding("no_int8_kernel", "advice", "student", figures))
    if squeezes and formats:
        found.append(Finding("slow_squeezes", "advice", "student", {"count": squeezes, "trained": trained}))
    if "tflite" in formats and io == "float32":
        wanting = [device.name for device in devices if device.io == "int8"]
        if wanting:
            found.append(Finding("int8_io", "advice", figures={"devices": wanting}))
    return tuple(found)


def lacks(device: Device, format: str) -> tuple[str, ...]:
    """Activations that have no int8 kernel in a runtime on a device: as its file says, else as edgekd knows."""
    told = device.lacks.get(format)
    return base.of(format).lacks_int8 if told is None else told
