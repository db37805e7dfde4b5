"""Does each runtime compute what torch computes in int8? Many architectures, three runtimes, one table.

    python benchmarks/int8_parity.py [--models resnet18,swin_t] [--size 224] [--images 16]

Weights are random by seed, batch-norm statistics come from two batches of random images, so nothing is downloaded and
nothing is trained: parity is about arithmetic, not accuracy. Each model runs in a process of its own and leaves a JSON file
in benchmarks/results/int8_parity/; finished ones are not run again (delete the file, or name them in --models). Writes
benchmarks/results/int8_parity.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "int8_parity"
MODELS = {
    "torchvision": (
        "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "mnasnet1_0",
        "shufflenet_v2_x1_0", "squeezenet1_1", "resnet18", "resnet50", "resnext50_32x4d", "regnet_y_400mf", "densenet121",
        "googlenet", "convnext_tiny", "vit_b_16", "swin_t",
    ),
    "timm": ("efficientnet_lite0", "mobilenetv4_conv_small", "repvgg_a0", "mobileone_s0", "ghostnet_100", "fastvit_t8"),
}  # fmt: skip
FORMATS = ("onnx", "tflite", "openvino")
PACKAGES = (
    "torch", "torchvision", "timm", "torchao", "onnxruntime", "openvino", "litert-torch", "ai-edge-litert", "numpy",
)  # fmt: skip
COLUMNS = (
    "model", "runtime", "p99 LSB", "max LSB", "top-1 agreement", "float tensors", "bytes / parameter", "XNNPACK delegate",
)  # fmt: skip


def build(name: str, size: int) -> Any:
    from edgekd.vision import import_torchvision

    if name in MODELS["timm"]:
        import timm

        return timm.create_model(name, pretrained=False)
    args: dict[str, Any] = {"vit_b_16": {"image_size": size}, "googlenet": {"aux_logits": False, "init_weights": False}}
    return import_torchvision().models.get_model(name, weights=None, **args.get(name, {}))


def images(count: int, size: int, seed: int) -> Any:
    """Random images: smooth colours and a little noise, so that neighbours are alike, as in photographs."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, max(size // 16, 2), max(size // 16, 2), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return smooth + 0.3 * torch.randn(count, 3, size, size, generator=generator)


def settle(model: Any, size: int) -> Any:
    """Give a random network the arithmetic of a trained one: norms that fit the data, layer scales that are not 1e-6.

    A norm and a ReLU that closes half of the units amplify a small difference by 1.2: after 50 random layers a value that
    two correct programs round differently, once in a million, is half of the logits' range. Trained networks do not, and
    biases of 1, with most units open, take it away (growth of 1.06 a layer, from the moments of a shifted Gaussian).
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean of all batches
            if module.bias is not None:
                torch.nn.init.ones_(module.bias)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name or name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.1, 1.0, generator=generator)
    model.train()
    with torch.no_grad():
        for seed in (1, 2):
            model(images(8, size, seed))
    return model.eval()


def measure(name: str, size: int, count: int) -> dict[str, Any]:
    """Quantize and export one model and compare the three files with the int8 graph run by torch."""
    import torch

    from edgekd.export.exporter import Source
    from edgekd.quantize import qat

    torch.manual_seed(0)
    began = time.monotonic()
    model = settle(build(name, size), size)
    prepared = qat.prepare(model, images(1, size, 0))
    with torch.no_grad():
        for seed in (3, 4):
            prepared.module(images(8, size, seed))
        qat.freeze_observers(prepared.module)
        inputs = images(count, size, 5)
        graph = qat.convert(prepared.module, fold_weights=True)
        reference = torch.cat([graph(image[None]) for image in inputs]).numpy()
    source = Source(
        model, inputs[:1], lambda fold_weights: qat.convert(prepared.module, fold_weights=fold_weights), prepared.float_ops
    )
    parameters = sum(parameter.numel() for parameter in prepared.module.parameters())
    found: dict[str, Any] = {"parameters": parameters, "float_ops": prepared.float_ops, "runtimes": {}}
    with tempfile.TemporaryDirectory() as folder:
        for format in FORMATS:
            try:
                found["runtimes"][format] = compare(source, format, Path(folder), inputs.numpy(), reference)
            except Exception as error:  # the table says so
                found["runtimes"][format] = {"error": f"{type(error).__name__}: {error}"}
    return found | {"seconds": round(time.monotonic() - began)}


def compare(source: Any, format: str, folder: Path, inputs: Any, reference: Any) -> dict[str, Any]:
    from edgekd.export import parity, runtimes
    from edgekd.export.exporter import Options
    from edgekd.profile.agent import RUNTIMES
    from edgekd.registry import exporters

    exporter: Any = exporters.get(format)()
    exported = exporter.export(source, folder / f"model{exporter.suffix}", Options())
    output = runtimes.run_all(runtimes.load(exported.paths[0], format), inputs)
    assert exported.output_scale is not None
    found = parity.compare(reference, output, exported.output_scale)
    delegate = ""
    if format == "tflite":
        runtime = RUNTIMES["tflite"](1)
        runtime.load(str(exported.paths[0]))
        x = inputs[:1].transpose(0, 2, 3, 1).copy()
        runtime.run(x)
        delegate = runtime.effective(str(exported.paths[0]), x)["delegate"]
    return {
        "p99_lsb": found.p99_lsb, "max_lsb": found.max_lsb, "top1": found.top1_agreement, "bytes": exported.bytes,
        "float_tensors": len(exported.float_tensors), "delegate": delegate,
    }  # fmt: skip


def table(size: int, count: int) -> str:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    known = [flag for flag in ("avx2", "avx512_vnni", "avx_vnni", "amx_int8") if flags and flag in flags[1].split()]
    lines = [
        "# Int8 parity: many architectures, three runtimes",
        "",
        f"Made by `python benchmarks/int8_parity.py --size {size} --images {count}`: random weights by seed, norm"
        f" biases of 1 (docs/int8.md says why), batch-norm statistics and ranges from random images,"
        f" {count} other random images compared one by one, one thread.",
        "The reference is the int8 graph run by torch. 1 LSB is one step of the logits' int8 scale.",
        f"Conditions: x86 with {', '.join(known)}; 8-bit weights;"
        f" {', '.join(f'{name} {version(name)}' for name in PACKAGES)}.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    reasons = []
    for name in (*MODELS["torchvision"], *MODELS["timm"]):
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        for format, run in found["runtimes"].items():
            if "error" in run:
                lines.append(f"| {name} | {format} | {run['error'].splitlines()[0][:200]} |" + " |" * (len(COLUMNS) - 3))
                continue
            cells = (
                name, format, f"{run['p99_lsb']:.1f}", f"{run['max_lsb']:.1f}", f"{100 * run['top1']:.0f} %",
                str(run["float_tensors"]), f"{run['bytes'] / found['parameters']:.3f}", run["delegate"],
            )  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
        kinds = Counter(re.sub(r"_\d+:", ":", op) for op in found["float_ops"])
        reasons += [f"* {name}: {count} × {kind}" for kind, count in kinds.items()]
    return "\n".join([*lines, "", "Operators left in float, in all three files:", "", *(reasons or ["none"])]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.one:
        found = measure(options.one, options.size, options.images)
        (RESULTS / f"{options.one}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    asked = options.models.split(",") if options.models else [name for names in MODELS.values() for name in names]
    for name in asked:
        if options.models or not (RESULTS / f"{name}.json").exists():
            size = ("--size", str(options.size), "--images", str(options.images))
            subprocess.run([sys.executable, __file__, "--one", name, *size], check=False)
        print(name, (RESULTS / f"{name}.json").exists(), flush=True)
    RESULTS.with_suffix(".md").write_text(table(options.size, options.images), encoding="utf-8")
    print(RESULTS.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
