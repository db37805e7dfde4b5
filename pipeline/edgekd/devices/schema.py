"""The schema of ``devices/*.yaml``: a machine that artifacts are measured on."""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

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
    transport: Literal["host", "ssh", "adb"]
    """How to reach it. host: this machine. ssh: the system's OpenSSH client. adb: an Android phone."""
    description: str
    """One line for reports: what it is."""
    emulated: bool = False
    """Its times are not the hardware's: they are shown as emulated and are never trusted."""
    arch: Arch | None = None
    """Architecture; left out: that of this machine (host only)."""
    isa: tuple[Feature, ...] | None = None
    """Instruction sets as /proc/cpuinfo names them; left out: those of this machine (host only), else not known."""

    host: str | None = None
    """ssh: as it is typed after `ssh`: [USER@]HOST, or a name of ~/.ssh/config, which may have keys and jumps."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """ssh: port, where it is another one than OpenSSH's configuration says."""
    serial: str | None = None
    """adb: serial number as `adb devices` shows it; left out: the only phone there is."""
    folder: str | None = None
    """Folder on the device in which edgekd makes its own and removes it; left out: ~/.cache, on phones /data/local/tmp."""
    python: Annotated[tuple[str, ...], Field(min_length=1)] = ("python3",)
    """ssh, adb: interpreters, tried in order for each format, such as /home/pi/venv/bin/python."""
    agent: Literal["python", "benchmark_model"] = "python"
    """Who measures. benchmark_model: TensorFlow Lite's own program, for phones without Python; it gives no outputs."""
    benchmark_model: str | None = None
    """Path here, beside this file, of the benchmark_model built for the device."""
    benchmark_options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Options of benchmark_model, such as {use_gpu: true}; its answer is read back."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of what measures there."""

    threads: PositiveInt | None = None
    """Threads that each runtime may use there; left out: as the recipe says."""
    cores: tuple[NonNegativeInt, ...] = ()
    """Cores to pin to, such as [4, 5, 6, 7] for the big ones; left out: as the system likes."""
    max_celsius: float | None = None
    """A session begins below this temperature, and waits for it."""
    wait_s: NonNegativeFloat = 300
    """Seconds to wait for it at most, and to cool down after throttling."""
    retries: NonNegativeInt = 1
    """Times that an untrusted session is made again after a cool-down."""
    limit_s: PositiveFloat = 3600
    """Seconds that everything on it may take."""

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
        if (self.transport == "ssh") != (self.host is not None):
            raise ValueError("transport: ssh needs host, such as host: pi@raspberrypi; other transports have none")
        if self.agent == "benchmark_model" and self.benchmark_model is None:
            raise ValueError("agent: benchmark_model needs benchmark_model: PATH of the program built for the device")
        return self

    def cpu(self) -> Isa:
        """What its CPU can do: as the file says, else as found on this machine."""
        if self.arch is not None and self.isa is not None:
            return Isa(self.arch, frozenset(self.isa))
        return detect_isa() if self.transport == "host" else Isa("")

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
