"""Look at a phone: what Android tells of it, and, without Python, whether ``benchmark_model`` runs there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgekd.devices.isa import FEATURES
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling import on_device
from edgekd.profiling.agents import phone
from edgekd.profiling.agents.benchmark_model import BenchmarkAgents
from edgekd.profiling.transports.base import Transport
from edgekd.profiling.variant import Variant
from edgekd.reads import file_sha256
from edgekd.results.profile import DeviceRecord, RuntimeFound

PROBE_S = 120.0
"""Seconds that an inference of the trivial model may take."""
MORE = ("battery_percent", "charging", "load")
"""What else of a phone's state is in its record."""
STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's words for its thermal status."""
_ABIS = {"arm64-v8a": "aarch64", "armeabi-v7a": "armv7l", "x86_64": "x86_64"}
_SCRIPT = """
for name in ro.product.manufacturer ro.product.model ro.build.version.release ro.product.cpu.abi ro.soc.model; do
  echo "@$name"; getprop "$name"
done
echo "@kernel"; uname -r
echo "@machine"; uname -m
echo "@khz"; cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq
echo "@cpuinfo"; cat /proc/cpuinfo
echo "@memory"; cat /proc/meminfo
echo "@disk"; df -k .
"""


def examine(device: Device, way: Transport, *, infer: bool) -> DeviceRecord:
    """Look at a phone through an open way to it; see :func:`edgekd.profiling.doctor.examine`.

    Raises:
        DeviceError: It does not answer.
    """
    parts = _asked(way)
    arch = _ABIS.get(parts.get("ro.product.cpu.abi", ""), parts.get("machine", ""))  # a board over ssh has no abi
    told = _android(parts, phone.state(way))
    found = _runtime(device, way, infer)
    features = re.search(r"^(?:Features|flags)\s*: (.*)$", parts.get("cpuinfo", ""), re.MULTILINE)
    problems = [] if found.works else [f"{found.problem}\n  → {found.fix}" if found.fix else found.problem]
    if device.arch is not None and arch and device.arch != arch:
        problems.append(f"its file has arch: {device.arch}, but it is {arch}\n  → write arch: {arch}")
    disk = re.search(r"\s(\d+)\s+\d+%", parts.get("disk", ""))
    return DeviceRecord(
        name=device.name,
        description=device.description,
        transport=device.transport,
        emulated=device.emulated,
        model=told.get("model", ""),
        arch=arch,
        isa=tuple(sorted(set(features[1].split()) & FEATURES)) if features else (),
        os=told.get("os", ""),
        kernel=parts.get("kernel", ""),
        cores=tuple(int(word) // 1000 for word in parts.get("khz", "").split() if word.isdigit()),
        governor=told.get("governor", ""),
        celsius=told.get("celsius"),
        throttled=told.get("throttled", ()),
        memory_mib=_mib("MemTotal", parts),
        available_mib=_mib("MemAvailable", parts),
        disk_mib=int(disk[1]) / 1024 if disk else None,
        runtimes=(found,),
        problems=tuple(problems),
        more={name: str(told[name]) for name in MORE if name in told},
    )


def facts(way: Transport) -> dict[str, Any]:
    """Return what only Android knows of a phone, whoever measures there; what it does not tell is left out.

    Raises:
        DeviceError: The phone does not answer.
    """
    return _android(_asked(way), phone.state(way))


def _asked(way: Transport) -> dict[str, str]:
    """The answers to the script by their names."""
    told = way.run(["sh", "-c", _SCRIPT], timeout=phone.ANSWER_S).out.decode(errors="replace")
    return {name: text.strip() for name, text in re.findall(r"^@([\w.]+)\n((?:[^@\n].*\n|\n)*)", told, re.MULTILINE)}


def _android(parts: dict[str, str], now: dict[str, Any]) -> dict[str, Any]:
    """Model, system, temperature, thermal status and battery from a phone's answers."""
    names = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model")
    release, status = parts.get("ro.build.version.release"), now.get("throttled", 0)
    found = {
        "model": " ".join(parts[name] for name in names if parts.get(name)),
        "os": f"Android {release}" if release else "",
        "throttled": (f"thermal status {status} ({STATUS[min(status, 6)]})",) if status else (),
        **{name: now[name] for name in ("celsius", "governor", *MORE) if name in now},
    }
    return {name: value for name, value in found.items() if value not in ("", ())}


def _runtime(device: Device, way: Transport, infer: bool) -> RuntimeFound:
    """The program, after an inference of the trivial model."""
    name, version = "benchmark_model", ""
    try:
        agents = BenchmarkAgents(device, way)
        version = f"sha256 {file_sha256(agents.local)[:16]}"
        if infer:
            model = Path(on_device.__file__).parent / "models" / "trivial.tflite"
            agents.start(Variant(name, "tflite", model), name).ask(
                "start", PROBE_S, runtime="tflite", path=way.put(model), threads=1
            )
    except DeviceError as error:
        problem = error.message.removeprefix(f"{name}: ")
        return RuntimeFound("tflite", name, version, works=False, problem=problem, fix=error.hint)
    return RuntimeFound("tflite", name, version)


def _mib(name: str, parts: dict[str, str]) -> float | None:
    match = re.search(rf"{name}:\s+(\d+) kB", parts.get("memory", ""))
    return int(match[1]) / 1024 if match else None
