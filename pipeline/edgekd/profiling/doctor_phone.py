"""Look at a phone without Python: what Android tells of it, and whether ``benchmark_model`` runs there."""

from __future__ import annotations

import re
from pathlib import Path

from edgekd.devices.isa import FEATURES
from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling import on_device
from edgekd.profiling.agents import phone
from edgekd.profiling.agents.benchmark_model import BenchmarkAgents
from edgekd.profiling.measured import Variant
from edgekd.profiling.transports.base import Transport
from edgekd.reads import file_sha256
from edgekd.records_profile import DeviceRecord, RuntimeFound

PROBE_S = 120.0
"""Seconds that an inference of the trivial model may take."""
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
    told = way.run(["sh", "-c", _SCRIPT], timeout=phone.ANSWER_S).out.decode(errors="replace")
    parts = {name: text.strip() for name, text in re.findall(r"^@([\w.]+)\n((?:[^@\n].*\n|\n)*)", told, re.MULTILINE)}
    now = phone.state(way)
    arch = _ABIS.get(parts.get("ro.product.cpu.abi", ""), parts.get("machine", ""))  # a board over ssh has no abi
    found = _runtime(device, way, infer)
    features = re.search(r"^(?:Features|flags)\s*: (.*)$", parts.get("cpuinfo", ""), re.MULTILINE)
    problems = [] if found.works else [f"{found.problem}\n  → {found.fix}" if found.fix else found.problem]
    if device.arch is not None and arch and device.arch != arch:
        problems.append(f"its file says arch: {device.arch}, and it is {arch}\n  → write arch: {arch}")
    disk = re.search(r"\s(\d+)\s+\d+%", parts.get("disk", ""))
    status = now.get("throttled", 0)
    names = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model")
    return DeviceRecord(
        name=device.name,
        description=device.description,
        transport=device.transport,
        emulated=device.emulated,
        model=" ".join(parts[name] for name in names if parts.get(name)),
        arch=arch,
        isa=tuple(sorted(set(features[1].split()) & FEATURES)) if features else (),
        os=f"Android {parts['ro.build.version.release']}" if parts.get("ro.build.version.release") else "",
        kernel=parts.get("kernel", ""),
        cores=tuple(int(word) // 1000 for word in parts.get("khz", "").split() if word.isdigit()),
        governor=str(now.get("governor", "")),
        celsius=now.get("celsius"),
        throttled=(f"thermal status {status} ({STATUS[min(status, 6)]})",) if status else (),
        memory_mib=_mib("MemTotal", parts),
        available_mib=_mib("MemAvailable", parts),
        disk_mib=int(disk[1]) / 1024 if disk else None,
        runtimes=(found,),
        problems=tuple(problems),
        more={name: str(now[name]) for name in ("battery_percent", "charging", "load") if name in now},
    )


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
