"""What int8 costs, by method: one trained student of each seed, quantized in every way, on validation and test images.

    python benchmarks/int8_accuracy.py [--seeds 3] [--recipe mobilenet] [--weight-bits 8] [--only PATTERN] [--peers]
    python benchmarks/int8_accuracy.py --name full --set data.source=fashion-mnist --set distill.epochs=1 --peers

The students come from the cache, or are trained. Each method is given the same float student and the same calibration
images, and gives a function from images to logits. Rows that are done are kept in benchmarks/results/int8_accuracy.json,
or int8_accuracy_NAME.json; from them the .md of the same name is written. ``--peers`` adds other tools from
benchmarks/peers.py (pip install -e '.[peers]'), whose files are run by their own runtimes. Accuracy only: nothing here is
timed.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import peers
import torch
from torch import Tensor, nn

from edgekd import environment, loading
from edgekd.assembly import launch, networks
from edgekd.assembly.context import read_output
from edgekd.assembly.outputs import QuantizeOutput
from edgekd.data import dataset
from edgekd.data.dataset import DataSet, Split
from edgekd.engine import plan
from edgekd.models import build, checkpoints
from edgekd.quantization import ptq, qat
from edgekd.recipe import Recipe
from edgekd.recipe.quantize import AdaRound, Ptq
from edgekd.registry import losses
from edgekd.stages import quantize

RESULTS = Path(__file__).parent / "results"
SHORT = ("baselines=[]", "export=[]", "profile=null", "gates={}")


@dataclass(frozen=True)
class Subject:
    """What every method is given.

    Attributes:
        recipe: The recipe, with its seed and the bits of a weight.
        images: The splits.
        student: The trained float network.
        calibration: Training images as the network takes them, (N, C, S, S).
        weights: File that the student is from.
        trained: File with the state of edgekd's quantization-aware training with distillation.
    """

    recipe: Recipe
    images: DataSet
    student: nn.Module
    calibration: Tensor
    weights: Path
    trained: Path


Logits = Callable[[Tensor], Tensor]
Method = Callable[[Subject], Logits]


def unquantized(subject: Subject) -> Logits:
    return subject.student


def post_training(**options: Any) -> Method:
    def method(subject: Subject) -> Logits:
        module = prepared(subject)
        ptq.quantize(module, subject.calibration, Ptq(method="ptq", **options), seed=subject.recipe.seed)
        return qat.convert(module, fold_weights=True)

    return method


def trained_with_labels(subject: Subject) -> Logits:
    """Quantization-aware training as edgekd's, but with hard labels instead of the recipe's losses."""
    from lightning_fabric import Fabric

    from edgekd.distill.outputs import Facts
    from edgekd.distill.terms import Terms
    from edgekd.progress import Silent
    from edgekd.train.loop import Freeze, Trainable, fit

    recipe = subject.recipe
    assert recipe.quantize is not None
    assert recipe.quantize.method == "qat"
    launch.seed(recipe.seed, torch.get_num_threads())
    module, _ = quantize.prepare(recipe, subject.images.purpose, subject.weights)
    facts = Facts(len(subject.images.classes), len(subject.images.train))
    terms = Terms((losses.get("task")(),), subject.student, None, build.one_input(subject.images.purpose.signature), facts)
    fabric = Fabric(accelerator="cpu", devices=1)
    freeze = Freeze(1 - recipe.quantize.freeze_last, qat.freeze_observers)
    trainable = Trainable("qat", module.module, terms, quantize.budget(recipe), recipe.seed + 1, qat.state, freeze)
    fitted = fit(fabric, trainable, subject.images, recipe.data, Silent())
    qat.load_state(module.module, fitted.best)
    return qat.convert(module.module, fold_weights=True)


def trained_with_teacher(subject: Subject) -> Logits:
    graph = read_output(QuantizeOutput, subject.trained.parent).graph
    module, _ = quantize.prepare(subject.recipe, subject.images.purpose, subject.weights, graph.taps)
    qat.load_state(module.module, checkpoints.read(subject.trained))
    return qat.convert(module.module, fold_weights=True)


def prepared(subject: Subject) -> torch.fx.GraphModule:
    bits = quantize.weight_bits(subject.recipe)
    return qat.prepare(subject.student, build.one_input(subject.images.purpose.signature), weight_bits=bits).module


OBSERVERS = ("minmax", "percentile", "mse", "entropy")
METHODS: dict[str, Method] = {
    "float32": unquantized,
    **{f"PTQ, {name}": post_training(observer=name, bias_correction=False) for name in OBSERVERS},
    **{f"PTQ, {name}, bias correction": post_training(observer=name) for name in OBSERVERS},
    "PTQ, mse, equalization": post_training(observer="mse", bias_correction=False, equalize=True),
    "PTQ, mse, equalization, bias correction": post_training(observer="mse", equalize=True),
    "PTQ, mse, AdaRound of 200 steps": post_training(observer="mse", bias_correction=False, adaround=AdaRound(steps=200)),
    "PTQ, mse, AdaRound of 200 steps, bias correction": post_training(observer="mse", adaround=AdaRound(steps=200)),
    "PTQ, mse, AdaRound of 1,000 steps, bias correction": post_training(observer="mse", adaround=AdaRound()),
    "QAT, labels only": trained_with_labels,
    "QAT with distillation": trained_with_teacher,
}


def file_of(format: str, make: Callable[..., None], **options: Any) -> Method:
    """Another tool's int8 file, made of the float file that edgekd exports."""

    def method(subject: Subject) -> Logits:
        from edgekd.exporting.exporter import Exporter, Options, Source
        from edgekd.quantization.fold import fold
        from edgekd.registry import exporters
        from edgekd.runtimes import base

        exporter = cast("type[Exporter]", exporters.get(format))()
        example = build.one_input(subject.images.purpose.signature)
        folder = Path(tempfile.mkdtemp())
        exact, target = folder / f"float{exporter.suffix}", folder / f"int8{exporter.suffix}"
        exporter.export(Source(fold(subject.student, example), example), exact, Options("float32"))
        if "reduce_range" in inspect.signature(make).parameters:
            options["reduce_range"] = quantize.weight_bits(subject.recipe) == 7
        make(exact, subject.calibration.numpy(), target, **options)
        session, layout = base.load(target, format), base.of(format).layout
        return lambda images: torch.from_numpy(base.run_images(session, images.numpy(), layout))

    return method


PEERS: dict[str, Method] = {
    "onnxruntime quantize_static, ONNX Runtime": file_of("onnx", peers.onnxruntime_static),
    "NNCF quantize (mixed), OpenVINO": file_of("openvino", peers.nncf_openvino, preset="mixed"),
    "NNCF quantize (performance), OpenVINO": file_of("openvino", peers.nncf_openvino, preset="performance"),
    "ai-edge-quantizer, TensorFlow Lite": file_of("tflite", peers.ai_edge_quantizer),
}


def subject_of(recipe: str, seed: int, bits: int, more: list[str]) -> Subject:
    overrides = [f"seed={seed}", f"quantize.weight_bits={bits}", *SHORT, *more]
    loaded = loading.load(Path(recipe), overrides)
    steps = {step.name: step for step in plan.make(loaded)}
    if any(steps[name].entry is None for name in ("distill", "quantize")):
        flags = [part for value in overrides for part in ("--set", value)]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "edgekd", "run", recipe, "--out", folder, *flags], check=True)
        steps = {step.name: step for step in plan.make(loaded)}
    distilled, trained = (steps[name].entry for name in ("distill", "quantize"))
    assert distilled is not None
    assert trained is not None
    images = dataset.load(loaded.recipe.data)
    weights = distilled.path / "weights.safetensors"
    (calibration,) = quantize.calibration_images(images, Ptq(method="ptq").calibration_images).values()
    return Subject(
        recipe=loaded.recipe,
        images=images,
        student=networks.student(loaded.recipe, images.purpose, weights).eval(),
        calibration=calibration,
        weights=weights,
        trained=trained.path / "weights.safetensors",
    )


@torch.no_grad()
def outputs(network: Logits, images: DataSet, split: Split) -> Tensor:
    parts = []
    for stored in split.batches(250):
        (x,) = images.taken(stored).values()
        parts.append(torch.as_tensor(np.asarray(network(torch.from_numpy(x)))))
    return torch.cat(parts)


def measure(network: Logits, subject: Subject, expected: dict[str, Tensor]) -> dict[str, float]:
    """Accuracy on both splits, and how near the logits are to the float student's (``expected``)."""
    found = {}
    for name, split in (("val", subject.images.val), ("test", subject.images.test)):
        ours, exact = outputs(network, subject.images, split), expected[name]
        labels = torch.from_numpy(split.labels)
        found[name] = float((ours.argmax(1) == labels).double().mean())
        found[f"{name}_agreement"] = float((ours.argmax(1) == exact.argmax(1)).double().mean())
        found[f"{name}_noise"] = float((ours - exact).square().mean() / exact.var())
    return found


def table(arguments: list[str], sizes: dict[str, int], rows: dict[str, dict[str, dict[str, float]]]) -> str:
    known = environment.describe()
    lines = [
        "# int8 accuracy by method",
        "",
        f"Made by `python benchmarks/int8_accuracy.py {shlex.join(arguments)}`:"
        " of each seed one trained student, quantized in every way."
        " edgekd's int8 graph is run by torch, with biases on the integer grid, as it is exported; other tools' files are"
        " run by their runtimes.",
        f"Conditions: {known['cpu']}, torch {known['packages']['torch']}. Mean ± standard deviation over n seeds.",
        f"512 calibration images. Validation: {sizes['validation']:,} images, a part of the training images. Test:"
        f" {sizes['test']:,} images, only looked at. Agreement: the same top-1 as the float student. Noise: mean squared"
        " difference of the logits from the float student's, as a share of their variance.",
        "",
        "| weight bits | method | n | val, % | test, % | change, test, points | agreement, val, % | agreement, test, %"
        " | noise, test, % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, seeds in rows.items():
        bits, method = key.split(" bits: ")
        exact = rows[f"{bits} bits: float32"]
        figures = [
            _spread([100 * value[name] for value in seeds.values()], digits)
            for name, digits in (("val", 2), ("test", 2))
        ]  # fmt: skip
        figures.append(_spread([100 * (value["test"] - exact[seed]["test"]) for seed, value in seeds.items()], 2))
        for name, digits in (("val_agreement", 2), ("test_agreement", 2), ("test_noise", 3)):
            figures.append(_spread([100 * value[name] for value in seeds.values()], digits))
        lines.append(f"| {bits} | {method} | {len(seeds)} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float], digits: int) -> str:
    mean = statistics.mean(values)
    return f"{mean:.{digits}f}" + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", default="mobilenet")
    parser.add_argument("--weight-bits", type=int, choices=(7, 8), default=8)
    parser.add_argument("--only", default="", help="methods whose name matches this regular expression")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="changes the recipe, as in edgekd run"
    )
    parser.add_argument("--name", default="", help="of the table: int8_accuracy_NAME.md")
    parser.add_argument("--peers", action="store_true", help="other tools as well, from benchmarks/peers.py")
    options = parser.parse_args()
    methods = dict(METHODS)
    if options.peers:
        methods |= PEERS
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / ("int8_accuracy.json" if not options.name else f"int8_accuracy_{options.name}.json")
    rows: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text()) if path.exists() else {}
    bits = options.weight_bits
    chosen = {f"{bits} bits: {name}": method for name, method in methods.items() if re.search(options.only, name)}
    for seed in range(options.seeds):
        missing = {key: method for key, method in chosen.items() if str(seed) not in rows.get(key, {})}
        if not missing:
            continue
        subject = subject_of(options.recipe, seed, bits, options.set)
        sizes = {"validation": len(subject.images.val), "test": len(subject.images.test)}
        splits = {"val": subject.images.val, "test": subject.images.test}
        expected = {name: outputs(subject.student, subject.images, split) for name, split in splits.items()}
        for key, method in missing.items():
            rows.setdefault(key, {})[str(seed)] = measure(method(subject), subject, expected)
            print(f"seed {seed}, {key}: {rows[key][str(seed)]}", flush=True)
            path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            path.with_suffix(".md").write_text(table(sys.argv[1:], sizes, rows), encoding="utf-8")
    print(path.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
