"""Does each runtime compute what torch computes in int8? Many architectures, three runtimes, one table.

    python benchmarks/int8_parity.py [--models resnet18,swin_t] [--size 224] [--images 16] [--bias 1]
                                     [--also tflite_runtime=PYTHON --also tensorflow=PYTHON]

Weights are random by seed, batch-norm statistics come from two batches of random images, so nothing is downloaded and
nothing is trained: parity is about arithmetic, not accuracy. Each model runs in a process of its own and leaves a JSON file
in benchmarks/results/int8_parity/, one for each value of --bias; finished ones are not run again (delete the file, or name
them in --models). benchmarks/results/int8_parity.md is made of these files alone; --table makes it without a run.
--also runs the TensorFlow Lite file in other Pythons too, which have those packages.
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
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, Literal, cast

RESULTS = Path(__file__).parent / "results" / "int8_parity"
MODELS = {
    "torchvision": (
        "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "mnasnet1_0",
        "shufflenet_v2_x1_0", "squeezenet1_1", "resnet18", "resnet50", "resnext50_32x4d", "regnet_y_400mf", "densenet121",
        "googlenet", "convnext_tiny", "vit_b_16", "swin_t",
    ),
    "timm": ("efficientnet_lite0", "mobilenetv4_conv_small", "repvgg_a0", "mobileone_s0", "ghostnet_100", "fastvit_t8"),
}  # fmt: skip
P99_BOUND, MAX_BOUND = 2.01, 4.01
"""Steps of the logits; what is above is named below the table."""
FORMATS = ("onnx", "tflite", "openvino")
PACKAGES = (
    "torch", "torchvision", "timm", "torchao", "onnxruntime", "openvino", "litert-torch", "ai-edge-litert", "numpy",
)  # fmt: skip
COLUMNS = (
    "model", "runtime", "mean LSB", "p99 LSB", "max LSB", "torch against itself", "one layer alone", "float tensors",
    "bytes / parameter", "XNNPACK delegate", "images",
)  # fmt: skip
OTHERS = ("reference kernels", "tflite_runtime", "tensorflow")
WORKER = Path(__file__).parent / "tflite_worker.py"


def build(name: str, size: int) -> Any:
    from edgekd.models.torchvision import import_torchvision

    torchvision = import_torchvision()
    if name in MODELS["timm"]:
        import timm

        return timm.create_model(name, pretrained=False)
    args: dict[str, Any] = {"vit_b_16": {"image_size": size}, "googlenet": {"aux_logits": False, "init_weights": False}}
    return torchvision.models.get_model(name, weights=None, **args.get(name, {}))


def images(count: int, size: int, seed: int) -> Any:
    """Random images: smooth colours and a little noise, so that neighbours are alike, as in photographs."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, max(size // 16, 2), max(size // 16, 2), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return smooth + 0.3 * torch.randn(count, 3, size, size, generator=generator)


def settle(model: Any, size: int, bias: float) -> Any:
    """Give a random network the arithmetic of a trained one: norms that fit the data, no layer scales of 1e-6, no zeros.

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
                torch.nn.init.constant_(module.bias, bias)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name or name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.1, 1.0, generator=generator)
        elif parameter.ndim > 1 and not parameter.detach().any():  # a head that training starts at zero
            torch.nn.init.normal_(parameter, std=0.02, generator=generator)
    model.train()
    with torch.no_grad():
        for seed in (1, 2):
            model(images(8, size, seed))
    return model.eval()


def measure(name: str, size: int, count: int, bias: float, also: dict[str, str]) -> dict[str, Any]:
    """Quantize and export one model and compare the three files with the int8 graph run by torch."""
    import torch

    from edgekd.exporting.exporter import Source, output_steps
    from edgekd.quantization import qat

    torch.manual_seed(0)
    began = time.monotonic()
    model, prepared = calibrated(name, size, bias)
    inputs = images(count, size, 5)
    graph = qat.convert(prepared.module, fold_weights=True)
    reference = outputs(graph, inputs)
    spread = float(reference.std(axis=0).max())
    assert spread > 0, "all images have the same logits: nothing would be measured"
    source = Source(
        model, inputs[:1], lambda fold_weights: qat.convert(prepared.module, fold_weights=fold_weights), prepared.float_ops
    )
    found: dict[str, Any] = {
        "size": size,
        "images": count,
        "bias": bias,
        "conditions": conditions(),
        "parameters": sum(parameter.numel() for parameter in prepared.module.parameters()),
        "float_ops": [str(left) for left in prepared.float_ops],
        "control": control(graph, inputs, reference),
        "runtimes": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for format in FORMATS:
            try:
                found["runtimes"][format] = compare(graph, source, format, Path(folder), inputs.numpy(), reference)
            except Exception as error:  # the table says so
                found["runtimes"][format] = {"error": f"{type(error).__name__}: {error}"}
        if (Path(folder) / "model.tflite").exists():
            found["others"] = others(Path(folder) / "model.tflite", inputs.numpy(), output_steps(graph)[0], also)
    return found | {"seconds": round(time.monotonic() - began)}


def calibrated(name: str, size: int, bias: float) -> tuple[Any, Any]:
    """The float model and its prepared graph, with ranges of 16 random images."""
    import torch

    from edgekd.quantization import qat

    model = settle(build(name, size), size, bias)
    prepared = qat.prepare(model, images(1, size, 0), weight_bits=weight_bits())
    with torch.no_grad():
        for seed in (3, 4):
            prepared.module(images(8, size, seed))
    qat.freeze_observers(prepared.module)
    return model, prepared


def outputs(run: Any, inputs: Any) -> Any:
    import torch

    with torch.no_grad():
        return torch.cat([run(image[None]) for image in inputs]).numpy()


def control(graph: Any, inputs: Any, reference: Any) -> dict[str, float]:
    """How far torch is from itself when it sums in float64: what no runtime can be held to."""
    import torch
    from torch.utils import _pytree as pytree

    from edgekd.exporting import parity
    from edgekd.exporting.exporter import output_steps

    aten = torch.ops.aten
    sums = {aten.conv2d.default, aten.linear.default, aten.matmul.default, aten.mean.dim, aten.layer_norm.default}

    class ExactSums(torch.fx.Interpreter):
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            if target not in sums:
                return super().call_function(target, args, kwargs)
            wide = pytree.tree_map_only(torch.Tensor, lambda value: value.double(), (args, kwargs))
            return target(*wide[0], **wide[1]).float()

    step = output_steps(graph)[0]
    assert step is not None
    found = parity.compare(reference, outputs(ExactSums(graph).run, inputs), step)
    steps = {"p99_lsb": found.p99_lsb, "max_lsb": found.max_lsb, "mean_lsb": found.mean_lsb}
    return {name: value for name, value in steps.items() if value is not None}


def compare(graph: Any, source: Any, format: str, folder: Path, inputs: Any, reference: Any) -> dict[str, Any]:
    from edgekd.exporting import inside, parity
    from edgekd.exporting.exporter import Exporter, Options
    from edgekd.profiling.on_device.runtimes import create
    from edgekd.registry import exporters
    from edgekd.report.runtime import took
    from edgekd.results.runtime import Delegate
    from edgekd.runtimes import base

    exporter = cast("type[Exporter]", exporters.get(format))()
    exported = exporter.export(source, folder / f"model{exporter.suffix}", Options())
    output = base.run_file(exported.paths[0], format, inputs)
    assert exported.output_scale is not None
    found = parity.compare(reference, output, exported.output_scale)
    delegate = ""
    if format == "tflite":
        runtime = create("tflite", 1)
        runtime.load(str(exported.paths[0]))
        x = inputs[:1].transpose(0, 2, 3, 1).copy()
        feed = dict.fromkeys(runtime.inputs(), x)
        runtime.run(feed)
        delegate = took([Delegate(**one) for one in runtime.effective(str(exported.paths[0]), feed)["delegates"]])
    sample = {exported.inputs[0].name: inputs[:1]}
    layers = inside.differences(graph, sample, inside.look(exported, sample))
    apart = sorted(((one.steps, one.share, name) for name, one in layers.items() if one.steps), reverse=True)
    return {
        "p99_lsb": found.p99_lsb, "max_lsb": found.max_lsb, "mean_lsb": found.mean_lsb, "top1": found.agreement,
        "bytes": exported.bytes, "float_tensors": exported.float_tensors, "delegate": delegate,
        "layers": len(layers), "apart": apart,
    }  # fmt: skip


def others(path: Path, inputs: Any, step: float | None, also: dict[str, str]) -> dict[str, Any]:
    """What other interpreters make of the TensorFlow Lite file, against ai-edge-litert with XNNPACK."""
    import numpy as np

    from edgekd.exporting import parity
    from edgekd.runtimes import base

    assert step is not None
    usual = base.run_file(path, "tflite", inputs)
    pixels, logits = path.with_name("inputs.npy"), path.with_name("logits.npy")
    np.save(pixels, inputs.transpose(0, 2, 3, 1))
    found: dict[str, Any] = {}
    for name, python in {"reference kernels": sys.executable, **also}.items():
        package = "reference" if name == "reference kernels" else name
        done = subprocess.run(
            [python, str(WORKER), package, str(path), str(pixels), str(logits)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            found[name] = {"error": done.stderr.strip().splitlines()[-1]}
            continue
        same = parity.compare(usual, np.load(logits), step)
        found[name] = {
            "mean_lsb": same.mean_lsb, "p99_lsb": same.p99_lsb, "max_lsb": same.max_lsb, "top1": same.agreement,
            "version": done.stdout.strip(),
        }  # fmt: skip
    return found


def weight_bits() -> Literal[7, 8]:
    """What a recipe for this machine takes."""
    from edgekd.devices import schema, targets

    return targets.weight_bits_for([schema.load("host")])


def conditions() -> str:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    known = [flag for flag in ("avx2", "avx512_vnni", "avx_vnni", "amx_int8") if flags and flag in flags[1].split()]
    installed = {distribution.name for distribution in distributions()}
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES if name in installed)
    return f"x86 with {', '.join(known)}; {weight_bits()}-bit weights; {versions}"


def table() -> str:
    """The page, from the JSON files alone."""
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
    names = [name for name in (*MODELS["torchvision"], *MODELS["timm"]) if name in results]
    lines = [
        "# Int8 parity: many architectures, three runtimes",
        "",
        "Made by `python benchmarks/int8_parity.py`: random weights by seed, batch-norm statistics and ranges from random"
        " images, other random images compared one by one, one thread. Norm biases are 1 (docs/int8.md says why).",
        "The reference is the int8 graph run by torch. 1 LSB is one step of the logits' int8 scale. *Torch against itself*"
        " is the same graph with the sums of its layers in float64: what a network with random weights makes of values that"
        " lie half-way between two steps. Triples are mean, 99th percentile and maximum in LSB. *One layer alone*: torch"
        " computes each layer from what the runtime gave to it, for one image, so that nothing adds up; the worst layer,"
        " the share of its values that differ, and by how many steps of its own.",
        *(f"Conditions: {text}." for text in sorted({found["conditions"] for found in results.values()})),
        "",
        *_header(COLUMNS),
        *(_row(name, results[name], format, run) for name in names for format, run in results[name]["runtimes"].items()),
    ]
    above = [
        f"* {name}, {format}: {_short(run)}; torch against itself: {_short(results[name]['control'])}; {_apart(run, 3)}"
        for name in names
        for format, run in results[name]["runtimes"].items()
        if "error" not in run and (run["p99_lsb"] > P99_BOUND or run["max_lsb"] > MAX_BOUND)
    ]
    reasons = [
        f"* {name}: {count} × {kind}"
        for name in names
        for kind, count in Counter(re.sub(r"_\d+:", ":", op) for op in results[name]["float_ops"]).items()
    ]
    missing = [name for names in MODELS.values() for name in names if name not in results]
    stray = [
        name for name, found in results.items()
        if not found["float_ops"] and found["runtimes"]["tflite"].get("float_tensors")
    ]  # fmt: skip
    end = [
        "", "Above 2 LSB at the 99th percentile or 4 at most, beside what torch makes of it without any runtime, and the"
        " layers in which the runtime differs most:",
        "", *(above or ["none"]),
        "", "Operators left in float, in all three files:", "", *(reasons or ["none"]),
        "", f"Float tensors in a TensorFlow Lite file without such an operator: {', '.join(stray) or 'none'}.",
        "", f"Not measured: {', '.join(missing) or 'none'}.",
        "", *_others({name: results[name] for name in names}),
    ]  # fmt: skip
    return "\n".join([*lines, *end]) + "\n"


def _header(columns: tuple[str, ...]) -> tuple[str, str]:
    return "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)


def _row(name: str, found: dict[str, Any], format: str, run: dict[str, Any]) -> str:
    if "error" in run:
        return f"| {name} | {format} | {run['error'].splitlines()[0][:200]} |" + " |" * (len(COLUMNS) - 3)
    cells = (
        name, format, f"{run['mean_lsb']:.2f}", f"{run['p99_lsb']:.1f}", f"{run['max_lsb']:.1f}", _short(found["control"]),
        _apart(run, 1), str(len(run["float_tensors"])), f"{run['bytes'] / found['parameters']:.3f}", run["delegate"],
        f"{found['images']} of {found['size']}²",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _apart(run: dict[str, Any], count: int) -> str:
    """The layers that differ most by themselves."""
    rows = [
        f"{name} {100 * share:.2g} %, {steps:.0f} step{'s' * (steps > 1)}" for steps, share, name in run["apart"][:count]
    ]
    return "; ".join(rows) or "none differs"


def _others(results: dict[str, dict[str, Any]]) -> list[str]:
    """The TensorFlow Lite files in other interpreters."""
    columns = ("model", *(f"{name}{end}" for name in OTHERS for end in ("", ", same top-1")))
    versions = {
        f"{name} {run['version']}"
        for found in results.values() for name, run in found.get("others", {}).items() if run.get("version")
    }  # fmt: skip
    rows = []
    for model, found in results.items():
        runs = [found.get("others", {}).get(name) for name in OTHERS]
        cells = [
            cell for run in runs for cell in (_short(run), f"{100 * run['top1']:.0f} %" if run and "top1" in run else "")
        ]
        rows.append(f"| {model} | " + " | ".join(cells) + " |")
    return [
        "## The TensorFlow Lite files in other interpreters",
        "",
        "Against ai-edge-litert with XNNPACK, for the same images: mean, 99th percentile and maximum in LSB. Reference"
        " kernels multiply by integers instead of a float scale, which rounds some values otherwise in every layer."
        f" {', '.join(sorted(versions))}.",
        "",
        *_header(columns),
        *rows,
    ]


def _short(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    return "failed" if "error" in run else f"{run['mean_lsb']:.2f}, {run['p99_lsb']:.1f}, {run['max_lsb']:.1f}"


def _same(run: dict[str, Any] | None) -> str:
    return f"{100 * run['top1']:.0f} %" if run and "top1" in run else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="", help="names, with commas; all that have no result yet if left out")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--bias", type=float, default=1.0, help="of all norms; docs/int8.md says why 1")
    parser.add_argument("--table", action="store_true", help="only make the table from the results that there are")
    parser.add_argument("--also", action="append", default=[], metavar="PACKAGE=PYTHON", help="another interpreter")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    if options.one:
        also = dict(pair.split("=", 1) for pair in options.also)
        found = measure(options.one, options.size, options.images, options.bias, also)
        _result(options.one, options.bias).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    asked = options.models.split(",") if options.models else [name for names in MODELS.values() for name in names]
    for name in [] if options.table else asked:
        path = _result(name, options.bias)
        if path.exists() and not options.models:
            continue
        path.unlink(missing_ok=True)  # a run that fails must not leave an older result
        settings = ("--size", str(options.size), "--images", str(options.images), "--bias", str(options.bias))
        settings += tuple(part for pair in options.also for part in ("--also", pair))
        began = time.monotonic()
        subprocess.run([sys.executable, __file__, "--one", name, *settings], check=False)
        print(f"{name}: {'done' if path.exists() else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
        RESULTS.with_suffix(".md").write_text(table(), encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(table(), encoding="utf-8")
    print(RESULTS.with_suffix(".md").read_text(encoding="utf-8"))


def _result(name: str, bias: float) -> Path:
    return RESULTS / (f"{name}.json" if bias == 1 else f"{name}.bias{bias:g}.json")


if __name__ == "__main__":
    main()
