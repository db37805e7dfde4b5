"""The model files that int8_latency.py times: one float model, quantized by edgekd and by other tools.

Weights are random by seed; normalisation layers and int8 ranges are fitted to random images, the same for every tool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import peers

from edgekd.devices import schema, targets
from edgekd.recipe.export import Precision
from edgekd.recipe.student import Rewrite
from edgekd.runtimes import silence

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.exporting.exporter import Source

SETTLING, CALIBRATION = 16, 8


@dataclass(frozen=True)
class Model:
    """A torchvision network; ``rewrites`` are the sections ``student.rewrite`` of other versions of it, by name."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    size: int = 224
    rewrites: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


MODELS = {
    "mobilenet_v2": Model("mobilenet_v2"),
    "mobilenet_v3_small": Model(
        "mobilenet_v3_small",
        rewrites={"rewrite": {"hardswish": "relu6"}, "rewrite, no SE": {"hardswish": "relu6", "se": "drop"}},
    ),
    "efficientnet_b0": Model("efficientnet_b0"),
    "resnet18": Model("resnet18"),
    "mobilenet_recipe": Model("mobilenet_v2", {"num_classes": 10}, 32),  # the student of recipes/mobilenet.yaml
}
PEERS: Mapping[tuple[str, str], Callable[..., None]] = {
    ("onnx", "onnxruntime"): peers.onnxruntime_static,
    ("onnx", "nncf_performance"): partial(peers.nncf_onnx, preset="performance"),
    ("onnx", "nncf_mixed"): partial(peers.nncf_onnx, preset="mixed"),
    ("tflite", "ai-edge-quantizer"): peers.ai_edge_quantizer,
    ("openvino", "nncf_performance"): partial(peers.nncf_openvino, preset="performance"),
    ("openvino", "nncf_mixed"): partial(peers.nncf_openvino, preset="mixed"),
}


def make(label: str, folder: Path, runtimes: Sequence[str]) -> None:
    """Write the files of a model of ``MODELS``: float and int8 by edgekd, int8 by the others; existing ones are kept."""
    model = MODELS[label]
    _make(model, {}, folder / label, runtimes)
    for name, rules in model.rewrites.items():
        _make(model, rules, folder / f"{label}+{name}", runtimes)


def _make(model: Model, rewrite: Mapping[str, str], folder: Path, runtimes: Sequence[str]) -> None:
    from edgekd.exporting.exporter import Exporter, Options
    from edgekd.registry import exporters

    bits = targets.weight_bits_for([schema.load("host")])
    calibration = images(CALIBRATION, model.size, seed=2)
    source = quantized(network(model, rewrite), calibration, bits)
    folder.mkdir(parents=True, exist_ok=True)
    for runtime in runtimes:
        exporter = cast("type[Exporter]", exporters.get(runtime))()
        files = {tool: folder / f"{runtime}.{tool}{exporter.suffix}" for tool in ("float", "edgekd")}
        for tool, path in files.items():
            if not path.exists():
                precision: Precision = "float32" if tool == "float" else "int8"
                exporter.export(source, path, Options(precision=precision, log=folder / "log"))
                print(f"wrote {path}", flush=True)
        for (where, tool), maker in PEERS.items():
            path = folder / f"{runtime}.{tool}{exporter.suffix}"
            if where != runtime or rewrite or path.exists():
                continue
            extra = {"reduce_range": bits == 7} if tool == "onnxruntime" else {}
            with silence.off():
                maker(files["float"], calibration.numpy(), path, **extra)
            print(f"wrote {path}", flush=True)


def network(model: Model, rules: Mapping[str, str]) -> nn.Module:
    """A network whose norms fit the images and, as in trained ones, shift and scale each channel."""
    import torch
    from torch import nn

    from edgekd.models.torchvision import import_torchvision
    from edgekd.rewrite import rewrite

    torch.manual_seed(0)
    built: nn.Module = import_torchvision().models.get_model(model.name, weights=None, **model.args)
    if rules:
        built = rewrite(built, Rewrite.model_validate(rules), images(1, model.size, seed=0)).model
    for module in built.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010  # not every module has it
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean over all batches
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.bias, std=0.1)
    built.train()
    with torch.no_grad():
        built(images(SETTLING, model.size, seed=1))
    return built.eval()


def quantized(model: nn.Module, calibration: Tensor, bits: Literal[7, 8]) -> Source:
    """The model with int8 ranges from the calibration images."""
    import torch

    from edgekd.exporting.exporter import Source
    from edgekd.quantization import qat
    from edgekd.quantization.fold import fold

    prepared = qat.prepare(model, calibration[:1], weight_bits=bits)
    qat.set_fake_quant(prepared.module, False)
    with torch.no_grad():
        prepared.module(calibration)
    qat.set_fake_quant(prepared.module, True)
    qat.freeze_observers(prepared.module)
    return Source(
        fold(model, calibration[:1]),
        calibration[:1],
        lambda fold_weights: qat.convert(prepared.module, fold_weights=fold_weights),
        prepared.float_ops,
    )


def images(count: int, size: int, seed: int) -> Tensor:
    """Smooth random images (count, 3, size, size): neighbours are alike, as in photographs."""
    import torch

    noise = torch.randn(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, size=(size, size), mode="bilinear")
