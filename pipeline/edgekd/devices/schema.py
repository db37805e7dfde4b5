"""The schema of ``devices/*.yaml``: a machine that artifacts are measured on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
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

from edgekd import loading, reads, resources
from edgekd.devices.isa import Arch, Feature, Isa, detect_isa
from edgekd.errors import RecipeError, did_you_mean
from edgekd.loading import files, words
from edgekd.loading.places import Draft, Places
from edgekd.loading.shape import Rooted
from edgekd.loading.source import parse
from edgekd.recipe.base import Format, mistake
from edgekd.registry import transports

_HOST = re.compile(r"(ssh://)?([\w.+\\][\w.+\\@-]*@)?[\w.:%\[][\w.:%\[\]-]*/?")
"""Nothing that OpenSSH reads as an option, and nothing that a shell in the user's ProxyCommand reads as its own."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"[a-z0-9_]+")
Activation = Literal["hardswish", "silu", "gelu", "sigmoid", "hardsigmoid"]


NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
"""What a device may be called: stages and files are named by it."""
HOST = "host"
"""Name of the machine that runs edgekd, and of no other device: figures of two machines must not meet under one name."""
BUILT_IN = ("ssh", "adb")
"""Transports of edgekd besides the host's."""
OF_SOME = ("host", "port", "serial", "folder", "python", "agent", "benchmark_model", "benchmark_options")
"""Keys that only some transports have; this machine is measured with the Python that runs edgekd."""


def _transport(name: str) -> str:
    if name not in transports:
        raise mistake(f"unknown transport {name!r}", did_you_mean(name, transports.names()))
    return name


class Device(BaseModel):
    """One file of ``devices/``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    edgekd: Literal[1] = 1
    """Version of this schema."""
    name: Annotated[str, Field(pattern=NAME, examples=["pi4"])]
    """Name in recipes and reports, the same as the file's. Left out: the file's."""
    transport: Annotated[str, AfterValidator(_transport), Field(examples=["host, ssh or adb"])]
    """How to reach it. host: this machine. ssh: the system's OpenSSH client. adb: an Android phone. Or the name of another
    transport that is installed."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of a transport of another package."""
    description: str = ""
    """One line for reports: what it is. Left out: how it is reached."""
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
    """Who measures. benchmark_model: TensorFlow Lite's own program, for phones without Python."""
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
    lacks: dict[Format, tuple[Activation, ...]] = Field(default_factory=dict)
    """Activations that a runtime has no int8 kernel for on it, by format. Left out: what edgekd knows of the runtime."""
    io: Literal["float32", "int8"] = "float32"
    """Type of the input and output it takes: int8 where there is no float unit."""

    @model_validator(mode="after")
    def _both(self) -> Device:
        if (self.arch is None) != (self.isa is None):
            given, other = ("arch", "isa") if self.isa is None else ("isa", "arch")
            raise mistake(f"{given} is given without {other}", "give both, or neither", given)
        for key in sorted(self.model_fields_set):
            if any("\0" in text for text in _texts(getattr(self, key))):
                raise mistake("has a NUL character in it", "remove it", key)
        for name in self.env:
            if not _VARIABLE.fullmatch(name):
                raise mistake(f"{name!r} is no name of a variable", "use letters, digits and _, no digit first", "env")
        for name in self.benchmark_options:
            if not _OPTION.fullmatch(name):
                hint = "write it without -- and without its value, such as use_gpu; letters are small"
                raise mistake(f"{name!r} is no name of an option", hint, "benchmark_options")
        self._fit(transports.get(self.transport))
        if self.name == HOST and (self.transport != "host" or self.emulated):  # emulated: it stands for another machine
            what = f"does not fit the name {HOST}, which is the machine that runs edgekd"
            key = "emulated" if self.transport == "host" else "transport"
            raise mistake(what, "give the device and its file another name, such as pi4", key)
        if self.transport == "ssh" and self.host is None:
            raise mistake("transport: ssh does not say which host", "add host: USER@HOST, such as pi@raspberrypi.local")
        if self.host is not None and not _HOST.fullmatch(self.host):
            raise mistake(f"{self.host!r} is no host", "write [USER@]HOST, or a name of ~/.ssh/config", "host")
        if self.agent == "benchmark_model" and self.benchmark_model is None:
            raise mistake(
                "agent: benchmark_model does not say which program",
                "add benchmark_model: PATH of the program built for the device",
            )
        return self

    def _fit(self, transport: Any) -> None:
        """See that the transport has the keys and the options that are given."""
        for key in OF_SOME:
            if key in self.model_fields_set and key not in transport.keys:
                fits = [name for name in BUILT_IN if key in transports.get(name).keys]  # type: ignore[attr-defined]
                what = f"is not used with transport: {self.transport}"
                raise mistake(what, f"remove it; it is a key of transport: {' and '.join(fits)}", key)
        if transport.options is None:
            if self.options:
                raise mistake(f"transport: {self.transport} has no options", "remove them", "options")
            return
        model = transport.options
        known = {name: field.alias or name for name, field in model.model_fields.items()}
        other = [name for name in self.options if name not in {*known, *known.values()}]
        if other and model.model_config.get("extra") != "allow":  # pydantic drops them where a class does not say otherwise
            hint = did_you_mean(other[0], list(known.values()))
            raise mistake(f"transport: {self.transport} has no option {other[0]!r}", hint, "options")
        try:
            model.model_validate(self.options)
        except ValidationError as error:
            found = [f"{'.'.join(map(str, one['loc'])) or 'options'}: {one['msg']}" for one in error.errors()]
            allowed = ", ".join(transport.options.model_fields) or "none"
            raise mistake("; ".join(found), f"options of transport: {self.transport}: {allowed}", "options") from error

    def cpu(self) -> Isa:
        """Return the instruction sets of its CPU: as the file has them, else as detected on this machine."""
        if self.arch is not None and self.isa is not None:
            return Isa(self.arch, frozenset(self.isa))
        return detect_isa() if self.transport == "host" else Isa("")

    def sums(self) -> Literal[16, 32] | None:
        """Bits in which its kernels add two int8 products: as the file says, else by its instruction sets."""
        return self.pair_sums or self.cpu().pair_sums


def load(name: str, *folders: Path) -> Device:
    """Read the file of a device.

    Args:
        name: The path of a file, or the name of a device.
        folders: Whose ``devices/NAME.yaml`` counts before what ships with edgekd, such as the recipe's.

    Raises:
        UsageError: There is no such device.
        RecipeError: Its file is wrong; all its mistakes at once, each at its place.
    """
    path = resources.device(name, folders)
    with reads.in_key(path):  # what is decided by it is
        path, text = files.read(path)
    parsed = parse(text, str(path))
    given = loading.mapping(parsed, "device's file", "it needs transport: host, ssh or adb")
    value = Rooted({"name": path.stem, **given}, Device)
    places = Places(parsed)
    try:
        device = Device.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise RecipeError(places.problems(words.drafts(error, value))) from error
    if device.name != path.stem:
        draft = Draft(("name",), f"{device.name!r} is not the file's name", f"write name: {path.stem}, or remove it")
        raise RecipeError(places.problems([draft]))
    changes: dict[str, str] = {} if device.description else {"description": _described(device)}
    if device.benchmark_model is not None:
        changes["benchmark_model"] = str(path.absolute().parent / Path(device.benchmark_model).expanduser())
    return device.model_copy(update=changes)


def _texts(value: object) -> Iterator[str]:
    """All texts in a value of a device's file, names of keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, Sequence):
        for part in value:
            yield from _texts(part)


def _described(device: Device) -> str:
    """How a device is reached."""
    if device.transport == "host":
        return "the machine that runs edgekd"
    return ", ".join(filter(None, (f"reached by {device.transport}", device.host or device.serial)))
