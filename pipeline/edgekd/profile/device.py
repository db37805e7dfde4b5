"""Targets: the schema of ``devices/*.yaml``, their integer arithmetic, and what it means for weights and activations."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgekd import reads, resources
from edgekd.errors import UsageError

Arch = Literal["x86_64", "aarch64", "armv7l"]
Feature = Literal[
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8",  # x86
    "neon", "asimd", "asimddp", "i8mm", "sve",  # Arm
]  # fmt: skip
"""As /proc/cpuinfo names them. asimddp, the dot product of ARMv8.2, is in an A76 (Pi 5) and not in an A72 (Pi 4)."""

_FEATURES: tuple[str, ...] = Feature.__args__  # type: ignore[attr-defined]  # the values of a Literal
_VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}
_DOT = {"asimddp", "i8mm"}
Activation = Literal["hardswish", "silu", "gelu", "sigmoid", "hardsigmoid"]
Runtime = Literal["onnx", "tflite", "openvino"]


@dataclass(frozen=True)
class Isa:
    """Architecture and the instruction sets that matter to int8; ``arch`` is empty where it is not known."""

    arch: str
    features: frozenset[str] = frozenset()

    @property
    def int8_dot(self) -> Literal["vnni", "dot product", "none"]:
        """The instruction that multiplies int8 and adds in 32 bits: what makes int8 fast."""
        if self.features & _VNNI:
            return "vnni"
        return "dot product" if self.features & _DOT else "none"

    @property
    def has_int8_dot(self) -> bool:
        """Whether there is such an instruction."""
        return self.int8_dot != "none"

    @property
    def pair_sums(self) -> Literal[16, 32] | None:
        """Bits in which kernels add two int8 products; ``None`` where it is not known.

        x86 without VNNI has ``pmaddubsw``, which adds them in 16 bits with saturation; Arm has no such instruction.
        """
        if self.arch in {"aarch64", "armv7l"} or self.int8_dot == "vnni":
            return 32
        return 16 if self.arch == "x86_64" and self.features else None


class Device(BaseModel):
    """One file of ``devices/``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    edgekd: Literal[1]
    """Version of this schema."""
    name: str
    """Name, the same as the file's."""
    transport: Literal["host"]
    """How to reach it. host: this machine."""
    description: str
    """One line for reports: what it is."""
    emulated: bool = False
    """Its times are not the hardware's: they are shown as emulated and are never trusted."""
    arch: Arch | None = None
    """Architecture; left out: that of this machine (host only)."""
    isa: tuple[Feature, ...] | None = None
    """Instruction sets as /proc/cpuinfo names them; left out: those of this machine (host only)."""

    pair_sums: Literal[16, 32] | None = None
    """Bits in which its int8 kernels add two products; 16 saturates with 8-bit weights. Left out: by isa."""
    lacks: dict[Runtime, tuple[Activation, ...]] = Field(default_factory=dict)
    """Activations that a runtime has no int8 kernel for on it, by format. Left out: what edgekd knows of the runtime."""
    io: Literal["float32", "int8"] = "float32"
    """Type of the input and output it takes: int8 where there is no float unit."""

    @model_validator(mode="after")
    def _both(self) -> Device:
        if (self.arch is None) != (self.isa is None):
            raise ValueError("give arch and isa together, or neither")
        return self

    def cpu(self) -> Isa:
        """What its CPU can do: as the file says, else as found on this machine."""
        if self.arch is not None and self.isa is not None:
            return Isa(self.arch, frozenset(self.isa))
        return detect_isa()

    def sums(self) -> Literal[16, 32] | None:
        """Bits in which its kernels add two int8 products: as the file says, else by its instruction sets."""
        return self.pair_sums or self.cpu().pair_sums


def load(name: str) -> Device:
    """Read ``devices/NAME.yaml``.

    Raises:
        UsageError: There is no such device, or its file is wrong; all its mistakes at once.
    """
    path = resources.find("devices", name)
    try:
        with reads.in_key():  # what is decided by it is
            text = path.read_text(encoding="utf-8")
        device = Device.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors()]
        raise UsageError("\n".join(lines), "devices/README.md lists the keys") from error
    if device.name != path.stem:
        raise UsageError(f"{path}: name: {device.name!r} is not the file's name", f"write name: {path.stem}")
    return device


def detect_isa(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> Isa:
    """Read the instruction sets of this machine.

    Args:
        cpuinfo: Where to read them.
        machine: Architecture; by default the running kernel's.

    Returns:
        Architecture and features; no features where they cannot be read.
    """
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine or platform.machine(), machine or platform.machine())
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return Isa(arch)
    fields = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    # A big.LITTLE board has cores of several kinds and a thread may run on any: only what all have counts.
    common = set.intersection(*map(set, fields)) if fields else set()
    return Isa(arch, frozenset(common & set(_FEATURES)))


def weight_bits_for(devices: Iterable[Device]) -> Literal[7, 8]:
    """Choose how many bits of an int8 weight may be used so that no target's kernels saturate.

    x86 kernels without VNNI multiply unsigned by signed bytes with ``pmaddubsw``, which adds two products in 16 bits:
    255·127·2 does not fit and is clipped without a word, while 255·63·2 fits. VNNI and Arm add in 32 bits. Where a
    target is not known, or none is named, 7 is the safe choice: it is right everywhere and costs a little accuracy,
    whereas 8 is silently wrong where it is wrong.

    Args:
        devices: All targets of the recipe.
    """
    sums = [device.sums() for device in devices]
    return 8 if sums and all(bits == 32 for bits in sums) else 7


def onnx_activations_for(devices: Iterable[Device]) -> Literal["uint8", "int8"]:
    """Choose the type of activations in ONNX files.

    ONNX Runtime's x86 kernels multiply unsigned by signed bytes, and so do VNNI instructions; Arm's dot product takes two
    signed ones. The real values are the same. int8 only where all targets are Arm: on x86 it costs a conversion.

    Args:
        devices: All targets of the recipe.
    """
    archs = {device.cpu().arch for device in devices}
    return "int8" if archs and archs <= {"aarch64", "armv7l"} else "uint8"
