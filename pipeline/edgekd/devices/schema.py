"""The schema of ``devices/*.yaml``: a machine that artifacts are measured on."""

from __future__ import annotations

from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgekd import reads, resources
from edgekd.devices.isa import Arch, Feature, Isa, detect_isa
from edgekd.errors import UsageError

Activation = Literal["hardswish", "silu", "gelu", "sigmoid", "hardsigmoid"]
Runtime = Literal["onnx", "tflite", "openvino"]


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
