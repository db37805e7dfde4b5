"""Instruction sets: what of a CPU decides whether int8 is exact and fast on it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Arch = Literal["x86_64", "aarch64", "armv7l"]
ARCHS: tuple[str, ...] = Arch.__args__  # type: ignore[attr-defined]  # the values of a Literal
Feature = Literal[
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8",  # x86
    "neon", "asimd", "asimddp", "i8mm", "sve",  # Arm
]  # fmt: skip
"""As /proc/cpuinfo names them. asimddp, the dot product of ARMv8.2, is in an A76 (Pi 5) and not in an A72 (Pi 4)."""

FEATURES: frozenset[str] = frozenset(Feature.__args__)  # type: ignore[attr-defined]  # the values of a Literal
"""All of them; a CPU has many more, which do not matter here."""
_VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}
_DOT = {"asimddp", "i8mm"}


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
        """True if there is such an instruction."""
        return self.int8_dot != "none"

    @property
    def pair_sums(self) -> Literal[16, 32] | None:
        """Bits in which kernels add two int8 products; ``None`` where it is not known.

        x86 without VNNI has ``pmaddubsw``, which adds them in 16 bits with saturation; Arm has no such instruction.
        """
        if self.arch in {"aarch64", "armv7l"} or self.int8_dot == "vnni":
            return 32
        return 16 if self.arch == "x86_64" and self.features else None


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
    return Isa(arch, frozenset(common & FEATURES))
