"""Two runs to report on: a good one as edgekd makes it, and one where everything that can go wrong did."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from edgekd import statistics
from edgekd.results.fidelity import Fidelity, Figure
from edgekd.results.findings import Missing, missing, said
from edgekd.results.gates import GateRecord, Limit
from edgekd.results.layers import Difference, LayerRecord, RepairCost, RepairRecord
from edgekd.results.models import Estimate, FilePort, Metrics, ModelRecord, OutputParity, Parity
from edgekd.results.profile import Effective, Latency, LoadTime, Memory, ProfileRecord, Trust
from edgekd.results.run import Curve, DataRecord, RunResult, StageRecord
from edgekd.results.runtime import Delegate, FloatOperation, FloatOperators, RuntimeGraph
from edgekd.results.upgrade import SCHEMA
from edgekd.task import base

TASK = base.record(base.task_of("image-classification"))
HOSTILE = "</script><script>alert(1)</script>"

RECIPE: dict[str, Any] = {
    "edgekd": 1,
    "seed": 0,
    "data": {
        "source": "fashion-mnist",
        "image_size": 32,
        "channels": 3,
        "augment": ["crop", "flip"],
        "val_fraction": 0.1,
        "root": None,
    },
    "teacher": {"model": "torchvision:resnet18", "args": {}, "weights": None, "train": {"epochs": 6, "lr": 0.002}},
    "student": {
        "model": "torchvision:mobilenet_v2",
        "args": {"width_mult": 0.35},
        "rewrite": {"hardswish": None},
    },
    "distill": {
        "epochs": 8,
        "losses": [
            {"kind": "kd", "weight": 0.9, "temperature": 4.0},
            {"kind": "task", "weight": 0.1},
            {"kind": "fitnet", "weight": 1.0, "layers": "auto"},
        ],
    },
    "baselines": ["student_alone"],
    "quantize": {"method": "qat", "epochs": 2, "weight_bits": "auto"},
    "export": [
        {"format": "onnx", "io": "float32"},
        {"format": "tflite", "io": "float32"},
        {"format": "openvino", "io": "float32"},
    ],
    "profile": {
        "devices": ["host"],
        "threads": 1,
        "warmup_runs": 20,
        "warmup_ms": 300,
        "blocks": 7,
        "block_ms": 250,
        "block_runs": 30,
    },
    "gates": {
        "accuracy_drop": {"max": 0.01},
        "parity_top1": {"min": 0.995},
        "parity_lsb_p99": {"max": 2.0},
        "size_ratio": {"max": 0.35},
        "latency_p90_ms": {"max": 1.0, "device": "host"},
    },
}

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

SNIPPETS = {
    "onnx": """import numpy as np
import onnxruntime as ort

session = ort.InferenceSession("artifacts/model.onnx", providers=["CPUExecutionProvider"])
image = np.load("artifacts/sample_inputs.npy")[:1]  # float32, (1, 3, 32, 32), normalized
(scores,) = session.run(None, {"image": image})
print(scores.argmax(axis=1))
""",
    "tflite": """import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("artifacts/model.tflite", num_threads=1)
interpreter.allocate_tensors()
image = np.load("artifacts/sample_inputs.npy")[:1].transpose(0, 2, 3, 1)  # NHWC
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
interpreter.invoke()
print(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).argmax(axis=1))
""",
    "openvino": """import numpy as np
import openvino as ov

model = ov.Core().compile_model("artifacts/model.xml", "CPU", {"INFERENCE_NUM_THREADS": 1})
image = np.load("artifacts/sample_inputs.npy")[:1]
print(model(image)[0].argmax(axis=1))
""",
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def network(name: str, role: Any, source: str, precision: str, params: int, macs: int, val: float, test: float):
    metrics = measured(6000, "val", top1=val, loss=0.31), measured(10000, top1=test, top5=0.998, loss=0.29)
    bits = 7 if precision == "int8" else None
    return ModelRecord(name, role, "torch", precision, source, params=params, macs=macs, metrics=metrics, weight_bits=bits)


def measured(n: int, split: Any = "test", of: Any = "labels", **values: float) -> Metrics:
    shares = {name: statistics.wilson(value, n) if name != "loss" else () for name, value in values.items()}
    return Metrics(split, n, {name: Estimate(value, *shares[name]) for name, value in values.items()}, of)


def artifact(name: str, form: str, precision: str, file: str, size: int, top1: float, parity: Parity, **more: Any):
    layout, shape = ("NHWC", (1, 32, 32, 3)) if form == "tflite" else ("NCHW", (1, 3, 32, 32))
    return ModelRecord(
        name,
        "artifact",
        form,
        precision,
        path=f"artifacts/{file}",
        sha256=digest(name),
        bytes=size,
        params=408_970,
        macs=1_310_000,
        metrics=(measured(10000, top1=top1, top5=0.997, loss=0.3),),
        parity=parity,
        fidelity=fidelity(top1) if precision != "float32" else None,
        inputs=(FilePort("image", shape, "float32", layout),),
        outputs=(FilePort("scores", (1, 10), "float32"),),
        weight_bits=7 if precision == "int8" else None,
        twin_of=name.removesuffix("_float") if precision == "float32" else None,
        **more,
    )


def fidelity(top1: float) -> Fidelity:
    """Against the distilled student of :func:`good`, whose top-1 is 91.44 %; 300 of 10,000 images have another class."""
    lost = 150 + round((0.9144 - top1) * 5000)
    return Fidelity(
        "distilled",
        Figure(21.4, 10000, 21.2, 21.6),
        Figure(0.97, 10000, *statistics.wilson(0.97, 10000)),
        Figure(0.0024, 10000, 0.002, 0.0028),
        {"top1": Figure(0.9144 - top1, 10000, *statistics.paired_shares(lost, 300 - lost, 10000))},
    )


def profile(model: str, form: str, p50: float, peak: float, added: float, drift: float, **more: Any) -> ProfileRecord:
    effective = {
        "onnx": Effective("onnxruntime 1.31.1", 1, {"int8": 66}, (Delegate("CPUExecutionProvider", 70, 70),)),
        "tflite": Effective("ai-edge-litert 2.3.0", 1, {"int8": 66}, (Delegate("XNNPACK", 66, 66, 1),)),
        "openvino": Effective("openvino 2026.4.1", 1, {"float32": 60}, settings={"INFERENCE_PRECISION_HINT": "f32"}),
    }[form]
    wobble = (0.0, -0.006, 0.004, 0.011, -0.003, 0.007, drift)
    values: dict[str, Any] = {
        "model": model,
        "device": "host",
        "emulated": False,
        "effective": effective,
        "load_ms": LoadTime(p50 * 61.0, p50 * 22.0),
        "first_ms": p50 * 3.4,
        "warmup_ms": 312.0,
        "latency_ms": Latency(
            p50,
            p50 * 1.06,
            p50 * 1.31,
            p50 * 0.94,
            p50 * 1.02,
            3360,
            (p50 * 0.992, p50 * 1.009),
            (p50 * 1.05, p50 * 1.09),
        ),
        "memory": Memory(peak, peak - added, added),
        "trust": Trust("trusted", (), drift, 0.011, 0.42, 0.97),
        "blocks": tuple(p50 * (1 + change) for change in wobble),
        "samples": f"logs/latency-host-{model}.txt",
        "images": 8,
    }
    return ProfileRecord(**{**values, **more})


def gate(name: str, model: str, limit: Limit, value: float) -> GateRecord:
    drop = fidelity(0.9144 - value).drops["top1"] if name == "accuracy_drop" else None
    return GateRecord(
        name, model, limit, value, "pass", "host" if name.startswith("latency") else None,
        low=drop.low if drop else None, high=drop.high if drop else None, n=drop.n if drop else None,
        reference="distilled" if drop else None, blocks=False,
    )  # fmt: skip


def good() -> RunResult:
    """MobileNetV2-0.35 from ResNet-18 on Fashion-MNIST: everything measured, every gate passed."""
    models = (
        network("teacher", "teacher", "torchvision:resnet18", "float32", 11_181_642, 37_120_000, 0.9361, 0.9327),
        network("student_alone", "baseline", "torchvision:mobilenet_v2", "float32", 408_970, 1_310_000, 0.9048, 0.9011),
        network("distilled", "student", "torchvision:mobilenet_v2", "float32", 408_970, 1_310_000, 0.9187, 0.9144),
        network("qat", "student", "torchvision:mobilenet_v2", "int8", 408_970, 1_310_000, 0.9172, 0.9121),
        artifact(
            "onnx_float",
            "onnx",
            "float32",
            "model.float32.onnx",
            1_706_311,
            0.9144,
            Parity("distilled, torch float32", 10000, {"logits": OutputParity(3.34e-6, agreement=1.0, error=2.1e-7)}),
        ),
        artifact(
            "onnx",
            "onnx",
            "int8",
            "model.onnx",
            563_204,
            0.9122,
            Parity(
                "qat, torch int8",
                10000,
                {
                    "logits": OutputParity(
                        0.213, agreement=0.9991, mean_lsb=0.08, p99_lsb=1.0, max_lsb=3.0, ties=9, error=0.0123
                    )
                },
            ),
            runtime_graph=RuntimeGraph(
                "onnxruntime 1.31.1",
                66,
                (
                    FloatOperators("QuantizeLinear", 1, "float32", True, "conversion of the input"),
                    FloatOperators("Gelu", 2, "float32", False, "ONNX Runtime has no int8 kernel for Gelu", ("a.1", "a.2")),
                ),
            ),
        ),
        artifact(
            "tflite",
            "tflite",
            "int8",
            "model.tflite",
            541_920,
            0.9119,
            Parity(
                "qat, torch int8",
                10000,
                {
                    "logits": OutputParity(
                        0.142, agreement=0.9987, mean_lsb=0.11, p99_lsb=1.0, max_lsb=2.0, ties=1, error=0.0141
                    )
                },
            ),
            float_tensors=(),
            runtime_graph=RuntimeGraph("ai-edge-litert 2.3.0", 68, (), (Delegate("XNNPACK", 66, 68, 3),), ("2 GELU",)),
        ),
        artifact(
            "openvino",
            "openvino",
            "int8",
            "model.xml",
            588_431,
            0.9120,
            Parity(
                "qat, torch int8",
                10000,
                {"logits": OutputParity(0.213, agreement=0.9989, mean_lsb=0.09, p99_lsb=1.0, max_lsb=3.0, error=0.0131)},
            ),
        ),
    )
    measured = {
        "accuracy_drop": {"onnx": 0.0022, "tflite": 0.0025, "openvino": 0.0024},
        "parity_top1": {"onnx": 0.9991, "tflite": 0.9987, "openvino": 0.9989},
        "parity_lsb_p99": {"onnx": 1.0, "tflite": 1.0, "openvino": 1.0},
        "size_ratio": {"onnx": 0.330072, "tflite": 0.317598, "openvino": 0.344856},
        "latency_p90_ms": {"onnx": 0.4452, "tflite": 0.5353, "openvino": 0.3954},
    }
    limits = {
        "accuracy_drop": Limit("<=", 0.01),
        "parity_top1": Limit(">=", 0.995),
        "parity_lsb_p99": Limit("<=", 2.0),
        "size_ratio": Limit("<=", 0.35),
        "latency_p90_ms": Limit("<=", 1.0),
    }
    gates = tuple(
        gate(name, model, limits[name], value) for name, values in measured.items() for model, value in values.items()
    )
    return RunResult(
        schema=SCHEMA,
        edgekd="0.1.0",
        name="mobilenet-v2-fashion",
        run="0007-3fa9c1d2",
        created="2026-11-22T04:12:09+00:00",
        command="edgekd run reports/mobilenet-v2-fashion/0007-3fa9c1d2/recipe.lock.yaml",
        verdict="pass",
        recipe=RECIPE,
        data=DataRecord(
            "fashion-mnist",
            digest("fashion"),
            CLASSES,
            54000,
            6000,
            10000,
            32,
            3,
            (0.2860, 0.2860, 0.2860),
            (0.3530, 0.3530, 0.3530),
            "MIT, Zalando SE",
        ),
        stages=(
            StageRecord("teacher", "cached", digest("a")[:12], 1612.4),
            StageRecord("student_alone", "ran", digest("b")[:12], 1043.8),
            StageRecord("distill", "ran", digest("c")[:12], 1890.1),
            StageRecord("quantize", "ran", digest("d")[:12], 702.6),
            StageRecord("export", "ran", digest("e")[:12], 41.3),
            StageRecord("evaluate", "ran", digest("f")[:12], 58.2),
            StageRecord("profile", "ran", digest("g")[:12], 19.7),
            StageRecord("package", "ran", digest("h")[:12], 0.31),
        ),
        models=models,
        curves=curves(),
        profiles=(
            profile("onnx_float", "onnx", 0.874, 66.8, 12.1, 0.004),
            profile("onnx", "onnx", 0.420, 61.2, 6.5, -0.002),
            profile("tflite", "tflite", 0.505, 48.9, 4.2, 0.006),
            profile("openvino", "openvino", 0.373, 118.4, 31.7, 0.009),
        ),
        gates=gates,
        environment={
            "os": "Linux 6.18.0 x86_64, Debian 12",
            "cpu": {"model": "Intel Xeon Platinum 8375C", "cores": 2, "flags": ["avx2", "fma"], "vnni": False},
            "governor": None,
            "python": "3.11.2",
            "packages": {"torch": "2.13.0", "torchao": "0.18.0", "onnxruntime": "1.31.1", "openvino": "2026.4.1"},
            "git": {"commit": "47bbe2c", "dirty": False},
        },
        task=TASK,
        findings=(
            said("int8 uses 7-bit weights: this CPU has AVX2 and no VNNI, where 8-bit products saturate in 16-bit sums."),
            said("TFLite int8 is slower than ONNX int8 here: XNNPACK has no AVX2 kernel for signed depthwise convolutions."),
        ),
        snippets=SNIPPETS,
        not_measured=(
            Missing(said("Latency on a Raspberry Pi: no such device is in the recipe.")),
            Missing(said("Energy: no meter is supported.")),
        ),
        layers=layers(),
        repair=repair(),
    )


def layers() -> tuple[LayerRecord, ...]:
    apart = {"onnx": Difference(0.0, 0.0), "tflite": Difference(0.0021, 1.0), "openvino": Difference(0.125, 3.0)}
    files = {"onnx": 31.92, "tflite": 31.8, "openvino": 31.91}
    return (
        LayerRecord("conv2d_4", "features.3.conv.0.0", "conv2d", 30.1, 33.4, 31.9, "output", files, apart),
        *(LayerRecord(f"conv2d_{n}", f"features.{n}", "conv2d", 38.0 + n, 40.0 + n, 35.0, "weight") for n in range(5, 14)),
    )


def repair() -> RepairRecord:
    before = LayerRecord("conv2d_2", "features.1.conv.0.0", "conv2d", 8.2, 9.6, 7.1, "weight")
    return RepairRecord(
        metric="top1",
        limit=0.9087,
        reference=0.9187,
        before=0.8613,
        after=0.9172,
        keep_float=("%conv2d_2", "%clamp_2"),
        layers=(before,),
        candidates=62,
        costs=(
            RepairCost("onnx", 563_204, 540_113, "host", 0.420, (0.4166, 0.4238), 0.401, (0.398, 0.404)),
            RepairCost("tflite", 541_920, 520_001, "host", 0.505, (0.501, 0.51), 0.504, (0.5, 0.507), trusted=False),
            RepairCost("openvino", 588_431, 566_912),
        ),
    )


def curve(
    model: str, terms: Any, train: tuple[float, ...], val: tuple[float, ...], lr: tuple[float, ...], best: int,
    seconds: float, pairs: tuple[str, ...] = (),
) -> Curve:  # fmt: skip
    return Curve(model, terms, {"top1": train} if train else {}, {"top1": val}, lr, best, seconds, pairs)


def curves() -> tuple[Curve, ...]:
    pairs = (
        "teacher layer2 (128 × 4 × 4) → student features.6 (16 × 4 × 4), 1 × 1 adapter",
        "teacher layer4 (512 × 1 × 1) → student features.17 (112 × 1 × 1), 1 × 1 adapter",
    )
    teacher = (0.861, 0.893, 0.908, 0.921, 0.931, 0.9361)
    alone = (0.78, 0.829, 0.853, 0.872, 0.886, 0.897, 0.9048, 0.904)
    distilled = (0.802, 0.851, 0.877, 0.892, 0.903, 0.911, 0.917, 0.9187)
    return (
        curve("teacher", {"task": (0.52, 0.33, 0.28, 0.24, 0.2, 0.17)}, (0.81, 0.88, 0.9, 0.91, 0.93, 0.94), teacher,
              (0.002, 0.0018, 0.0014, 0.0009, 0.0004, 0.0), 5, 1604.2),
        curve("student_alone", {"task": (0.81, 0.52, 0.45, 0.4, 0.36, 0.33, 0.31, 0.3)},
              (0.7, 0.81, 0.84, 0.86, 0.87, 0.88, 0.89, 0.89), alone, (0.002,) * 8, 6, 1039.0),
        curve("distilled", {"kd": (1.92, 1.13, 0.87, 0.71, 0.61, 0.53, 0.47, 0.44), "task": (0.09, 0.06, 0.05, 0.045,
              0.041, 0.038, 0.036, 0.035), "fitnet": (0.63, 0.41, 0.35, 0.31, 0.29, 0.27, 0.26, 0.255)},
              (0.72, 0.82, 0.85, 0.87, 0.88, 0.89, 0.9, 0.9), distilled, (0.002,) * 8, 7, 1884.7, pairs),
        curve("qat", {"kd": (0.51, 0.47), "task": (0.037, 0.036), "fitnet": (0.262, 0.258)}, (0.893, 0.897),
              (0.9131, 0.9172), (0.0002, 0.0), 1, 699.9),
    )  # fmt: skip


def bad() -> RunResult:
    """A run with failed gates and exports, untrusted and emulated figures, float operations, hostile names."""
    base = good()
    onnx = next(model for model in base.models if model.name == "onnx")
    worse = replace(
        onnx,
        metrics=(measured(10000, top1=0.8874),),
        fidelity=fidelity(0.8874),
        parity=Parity(
            "qat, torch int8",
            10000,
            {"logits": OutputParity(1.31, agreement=0.9612, mean_lsb=1.2, p99_lsb=7.0, max_lsb=18.0)},
        ),
        float_ops=(
            FloatOperation("features.1.conv", "hardswish", "hardswish_1", "no int8 kernel in XNNPACK"),
            FloatOperation(HOSTILE, "softmax", "softmax", "left for its range"),
        ),
    )
    odd = replace(onnx, name=f"odd {HOSTILE}", path=f"artifacts/{HOSTILE}.onnx", parity=None, metrics=(), sha256=None)
    unwritten = ModelRecord("openvino", "artifact", "openvino", "int8")
    models = (*base.models[:5], worse, odd, unwritten)
    untrusted = Trust("untrusted", (said("spread 9.1 % over 5 %"), said(f"load 3.1 from {HOSTILE}")), 0.083, 0.091, 0.4, 3.1)
    slow = profile("onnx", "onnx", 0.93, 71.0, 16.3, 0.083, trust=untrusted)
    pi = profile("onnx", "onnx", 41.0, 93.0, 14.0, 0.01, device="pi4", emulated=True)
    gates = (
        GateRecord("accuracy_drop", "onnx", Limit("<=", 0.01), 0.027, "fail", blocks=True),
        GateRecord("parity_top1", "onnx", Limit(">=", 0.9612004), 0.9612, "fail", blocks=True),
        GateRecord("latency_p50_ms", "onnx", Limit("<=", 0.5), 0.93, "untrusted", "host", blocks=True),
        GateRecord("latency_p50_ms", f"odd {HOSTILE}", Limit("<=", 0.5), None, "not_measured", "host", blocks=True),
        GateRecord(f"mine {HOSTILE}", "onnx", None, 3.0, "pass"),
    )
    odd_curve = curve(f"net {HOSTILE}", {f"loss {HOSTILE}": (1.0,)}, (), (0.1,), (0.1,), 0, 3.0, (f"a → {HOSTILE}",))
    return replace(
        base,
        name=f"bad | *recipe* {HOSTILE}",
        run=f"0008 {HOSTILE}",
        verdict="fail",
        command=f"edgekd run '{HOSTILE}'",
        recipe={**RECIPE, "student": {"model": f"net.py:{HOSTILE}", "args": {HOSTILE: "[bold]x[/bold]\x1b[31m"}}},
        data=replace(base.data, classes=("a|b", HOSTILE, "\ud800\u202egnp.exe", "`code`"), license=""),
        stages=(
            *base.stages[:4],
            StageRecord("export.tflite", "failed", digest("x")[:12], 3.0, f"no kernel for {HOSTILE} → leave it out"),
        ),
        models=models,
        curves=(odd_curve,),
        profiles=(base.profiles[0], slow, pi),
        gates=gates,
        environment={HOSTILE: {"a": [HOSTILE, 1]}},
        findings=(said(f"int8 is not faster: 2 operations stayed in float ({HOSTILE})."),),
        snippets={"onnx": f"print('{HOSTILE}')\n```\n"},
        not_measured=(missing("tflite", HOSTILE),),
    )


def empty() -> RunResult:
    """A recipe that only trains a teacher, before anything was measured."""
    return replace(
        good(),
        recipe={
            "edgekd": 1,
            "teacher": {"model": "torchvision:resnet18", "train": {"epochs": 1}},
            "data": {"source": "fashion-mnist"},
            "profile": {"devices": ["host"]},
        },
        stages=(),
        models=(),
        curves=(),
        profiles=(),
        gates=(),
        findings=(),
        snippets={},
        not_measured=(),
        environment={},
    )
