"""A run on five devices: this host, a real board, an emulated one, a phone that only times, and one that did not answer."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.report import sample

from edgekd.results.findings import Finding
from edgekd.results.gates import GateRecord, Limit
from edgekd.results.profile import (
    Accuracy,
    Attempt,
    BlockState,
    DeviceRecord,
    Effective,
    Energy,
    LoadTime,
    Memory,
    Operation,
    Operations,
    Outputs,
    Part,
    ProfileRecord,
    RuntimeFound,
    Sustained,
    Trust,
)
from edgekd.results.run import RunResult, StageRecord
from edgekd.results.runtime import Delegate

FORMATS = {"onnx_float": "onnx", "onnx": "onnx", "tflite": "tflite", "openvino": "openvino"}


def board(name: str, emulated: bool) -> DeviceRecord:
    return DeviceRecord(
        name=name,
        description="Raspberry Pi 4",
        transport="ssh",
        emulated=emulated,
        model="Raspberry Pi 4 Model B Rev 1.4",
        arch="aarch64",
        isa=("neon", "asimd"),
        os="Debian GNU/Linux 12",
        kernel="6.6.20+rpt-rpi-v8",
        cores=(1800, 1800, 1800, 1800),
        governor="ondemand",
        celsius=47.2,
        throttled=("under-voltage since boot",),
        memory_mib=3792.0,
        available_mib=3301.0,
        disk_mib=18244.0,
        python="3.11.2",
        numpy="2.4.6",
        clock_ns=54.0,
        runtimes=(
            RuntimeFound("onnx", "onnxruntime", "1.31.1", "/home/pi/edge/bin/python"),
            RuntimeFound(
                "tflite",
                "tflite-runtime",
                "2.14.0",
                "/usr/bin/python3",
                False,
                "numpy 2.4.6 is too new for it",
                "pip install 'numpy<2', or ai-edge-litert",
            ),
            RuntimeFound("tflite", "ai-edge-litert", "2.3.0", "/home/pi/edge/bin/python"),
        ),
        problems=("under-voltage was seen since boot: use a supply of 5.1 V and 3 A",),
        traps=("CompiledModel of ai-edge-litert 2.3.0 stops with SIGILL on a Cortex-A72: Interpreter is used",),
    )


def operations(label: str, scale: float) -> Operations:
    rows = (
        Operation("/features.0/conv", "Conv", 9.0 * scale, label, "CPU"),
        Operation("/features.1/dw", "Conv", 6.5 * scale, label, "CPU"),
        Operation("/features.2/gelu", "Gelu", 3.1, "float32", "CPU"),
        *(Operation(f"/features.{n}/conv", "Conv", 1.1 * scale, label, "CPU") for n in range(3, 13)),
        *(() if label == "float32" else (Operation("input_QuantizeLinear", "QuantizeLinear", 1.2, "float32", "CPU"),)),
    )
    total = sum(row.ms for row in rows)
    return Operations(rows, "ONNX Runtime profiler", total / 0.86, 0.86, 0.07)


def measured(model: str, device: str, p50: float, **more: object) -> ProfileRecord:
    base = sample.profile(model, FORMATS[model], p50, 92.0, 14.0, 0.012)
    states = tuple(BlockState(48.0 + n, 1800.0 if n < 5 else 1500.0, n == 6, 0.02) for n in range(7))
    int8 = not model.endswith("float")
    values: dict[str, object] = {
        "device": device,
        "states": states,
        "cores": (0,),
        "warmup_runs": 34,
        "reference_ms": 12.4,
        "memory": Memory(92.0, 78.0, 14.0, 80.5),
        "outputs": (
            Outputs("host", 8, 0.0 if int8 else 4.2e-6, 1.0, 1.0, *((0.0, 1.0, 0) if int8 else ())),
            Outputs("torch", 8, 0.21, 0.99998, 1.0, *((1.0, 2.0, 0) if int8 else ())),
        ),
        "path": (
            Part("decode", 9.1),
            Part("preprocess", 21.4),
            Part("network", p50),
            Part("postprocess", 0.1),
        ),
        "operations": operations("int8" if int8 else "float32", p50 / 33),
        "accuracy": Accuracy("top1", 500, 0.912, 0.914),
    }  # fmt: skip
    return replace(base, **{**values, **more})  # type: ignore[arg-type]


HOT = Finding("throttled", "warning", figures={"cause": "throttled", "blocks": [7]})
LSB = Finding("lsb", "warning", figures={"p99": 5.0, "limit": 2.0})


def devices() -> RunResult:
    """The good run on five devices."""
    base = sample.good()
    doubt = Trust(
        "untrusted", (Finding("throttled", "warning", figures={"cause": "throttled", "blocks": [7]}),), 0.14, 0.06, 0.3, 0.9
    )
    slow = Attempt((Finding("drift", "warning", figures={"change": 0.18}),), 120.0, 39.8)
    minutes = Sustained(2.0, tuple(24.6 + 0.2 * n for n in range(12)), (51.0, 66.0))
    threads = Effective("ai-edge-litert 2.3.0", 4, {"int8": 66}, (Delegate("XNNPACK", 66, 68, 3),), asked_threads=1)
    half = Effective("openvino 2026.4.1", 1, {"float16": 60}, asked_threads=1)
    wrong = Outputs("host", 8, 0.9, 0.97, 0.875, 5.0, 9.0, 1, "features.3.conv.0.0", (LSB,))
    pi = (
        measured("onnx_float", "pi4", 33.0),
        measured("onnx", "pi4", 24.6, attempts=(slow,), sustained=minutes, energy=Energy(61.0, "USB meter")),
        measured("tflite", "pi4", 25.0, trust=doubt, effective=threads),
        measured("openvino", "pi4", 38.0, outputs=(wrong,), effective=half),
    )
    shadow = Trust("untrusted", (Finding("emulated", "warning"),), 0.01, 0.02, 0.3, 0.9)
    emulated = tuple(
        measured(model, "pi5", p50, emulated=True, trust=shadow) for model, p50 in (("onnx_float", 410.0), ("onnx", 433.0))
    )
    timed = sample.profile("tflite", "tflite", 3.1, 41.0, 6.0, 0.02)
    phone = replace(
        timed,
        device="phone",
        agent="benchmark_model",
        images=0,
        latency_ms=replace(timed.latency_ms, p90=None, p99=None, ci_p90=None),
        load_ms=LoadTime(None, 18.0),
        memory=Memory(None, None, None),
        effective=Effective("benchmark_model (sha256 1f3870be)", 4, {}, (Delegate("GPU", 64, 66),)),
    )
    return replace(
        base,
        recipe={**base.recipe, "profile": {**base.recipe["profile"], "devices": ["host", "pi4", "pi5", "phone", "zero"]}},
        devices=(
            board("pi4", False),
            replace(board("pi5", True), model="Raspberry Pi 5 Model B", problems=(), traps=()),
            DeviceRecord(
                "zero",
                "Pi Zero 2 W",
                "ssh",
                False,
                False,
                problems=("ssh: connect to host zero port 22: No route to host; edgekd doctor zero",),
            ),
        ),
        stages=(
            *base.stages,
            StageRecord("profile.zero", "failed", "", 5.1, "zero does not answer: No route to host; edgekd doctor zero"),
        ),
        profiles=(*base.profiles, *pi, *emulated, phone),
        gates=(
            *base.gates,
            GateRecord("latency_p50_ms", "onnx", Limit("<=", 30), 24.6, "pass", "pi4", blocks=False),
            GateRecord("latency_p50_ms", "tflite", Limit("<=", 30), 25.0, "untrusted", "pi4", blocks=False),
            GateRecord("latency_p50_ms", "openvino", Limit("<=", 30), 38.0, "fail", "pi4", blocks=True),
            GateRecord("latency_p90_ms", "onnx", Limit("<=", 20), 458.9, "emulated", "pi5", blocks=True),
            GateRecord("latency_p90_ms", "tflite", Limit("<=", 20), None, "not_measured", "phone", blocks=True),
        ),
        verdict="fail",
    )
