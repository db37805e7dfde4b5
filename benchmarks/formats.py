"""The two tables of docs/formats.md: which format has which precision, and what each file is when it is run.

    python benchmarks/formats.py            # measures, and writes both (about 2 min on 2 cores)

Networks have random weights; their norms are fitted to random images. Each file runs in its own runtime with one thread,
against torch with the weights that the file holds. All files of a format take turns, 50 inferences each; a time is the
median of the ratios to float32 of the same turn, without edgekd's measuring protocol. int8 has benchmarks of its own
(int8_latency.py, int8_parity.py). ``quantize_dynamic`` of ONNX Runtime stands beside edgekd's files: a precision is refused
for what is measured here.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "formats.md"
FORMATS = {"onnx": "ONNX", "tflite": "TFLite", "openvino": "OpenVINO"}
NETWORKS = ("mobilenet_v2", "resnet18")
SIZE, CALIBRATION, TEST, TURNS = 64, 16, 16, 50


def supported() -> str:
    """The table of precisions and formats, as the exporters say it."""
    from edgekd.recipe.export import Precision
    from edgekd.registry import exporters

    lines = [f"| precision | {' | '.join(FORMATS.values())} |", f"|---|{'---|' * len(FORMATS)}"]
    for precision in get_args(Precision):
        cells = []
        for name in FORMATS:
            exporter: Any = exporters.get(name)
            found = exporter.precisions[precision]
            cells.append(f"no: {found.why}; {found.instead}" if hasattr(found, "why") else found.computes)
        lines.append(f"| `{precision}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def written(page: str, name: str, text: str) -> str:
    """Replace what stands between the marks of a part."""
    before, rest = page.split(f"<!-- {name} -->\n", 1)
    after = rest.split(f"<!-- /{name} -->", 1)[1]
    return f"{before}<!-- {name} -->\n{text}\n<!-- /{name} -->{after}"


def measured() -> str:
    """The table of files."""
    lines = [
        "| network | file | MiB | largest error, % of the logits' range | same top-1, % | time, × float32 | computed in |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            lines += rows(network, Path(folder))
    lines += ["", f"{SIZE}×{SIZE}, one thread, {processor()}, Python {platform.python_version()}; {', '.join(versions())}."]
    return "\n".join(lines)


def rows(name: str, folder: Path) -> Iterator[str]:
    import torch

    from edgekd.exporting.exporter import Options, Refused, Source, total_bytes
    from edgekd.models.torchvision import import_torchvision
    from edgekd.quantization.fold import fold
    from edgekd.quantization.rounded import rounded
    from edgekd.recipe.export import Precision
    from edgekd.registry import exporters
    from edgekd.runtimes import base

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = import_torchvision().models.get_model(name, weights=None, num_classes=10)
    images = torch.randn(CALIBRATION + TEST, 3, SIZE, SIZE)
    with torch.no_grad():
        for _ in range(3):
            model(images[:CALIBRATION])
    model.eval()
    example = images[:1]
    folded = fold(model, example)
    test = images[CALIBRATION:].numpy()
    for format, title in FORMATS.items():
        files: dict[str, tuple[tuple[Path, ...], Any]] = {}
        for precision in sorted(get_args(Precision), key=lambda precision: precision != "float32"):
            exporter: Any = exporters.get(format)
            if precision == "int8" or isinstance(exporter.precisions[precision], Refused):
                continue
            reference = rounded(folded, precision)
            source = Source(reference, example, samples=images[:CALIBRATION])
            exported = exporter().export(source, folder / f"{name}_{precision}{exporter.suffix}", Options(precision))
            files[precision] = (exported.paths, reference)
        if format == "onnx":
            files["dynamic, by onnxruntime's quantize_dynamic"] = ((dynamic(files["float32"][0][0]),), folded)
        times = ratios([paths[0] for paths, _ in files.values()], format, test[:1])
        for (precision, (paths, reference)), ratio in zip(files.items(), times, strict=True):
            with torch.no_grad():
                expected = reference(torch.from_numpy(test)).numpy()
            logits = base.run_file(paths[0], format, test)
            error = 100 * np.abs(logits - expected).max() / np.ptp(expected)
            same = 100 * np.mean(logits.argmax(axis=1) == expected.argmax(axis=1))
            line = (
                f"| {name} | {title} {precision} | {total_bytes(paths) / 2**20:.2f} | {error:.2g} | {same:.0f} "
                f"| {ratio:.2f} | {said(paths[0], format, test[:1])} |"
            )
            print(line, flush=True)
            yield line


def dynamic(path: Path) -> Path:
    """What ONNX Runtime's own tool makes of a float32 file: int8 weights, activations quantized as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = path.with_name(f"{path.stem}_dynamic.onnx")
    quantize_dynamic(path, target, weight_type=QuantType.QUInt8)  # its convolutions take no signed weights
    return target


def ratios(paths: list[Path], format: str, image: np.ndarray) -> list[float]:
    """Times of files that take turns, as the median of their ratios to the first."""
    from edgekd.runtimes import base

    opened = [base.load(path, format) for path in paths]
    x = base.laid_out(image, base.of(format).layout)
    feeds = [{session.inputs[0].name: x} for session in opened]
    times = np.empty((TURNS, len(opened)))
    for turn in range(-3, TURNS):  # three to warm up
        for index, session in enumerate(opened):
            before = time.perf_counter()
            session.run(feeds[index])
            times[turn, index] = time.perf_counter() - before
    return [float(value) for value in np.median(times / times[:, :1], axis=0)]


def said(path: Path, format: str, image: np.ndarray) -> str:
    """What the runtime computes in, read back from it."""
    from edgekd.profiling.on_device.runtimes import create
    from edgekd.report.runtime import precision, took
    from edgekd.results.runtime import Delegate

    runtime = create(format, 1)
    runtime.load(str(path))
    x = np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if format == "tflite" else image
    feed = dict.fromkeys(runtime.inputs(), x)
    runtime.run(feed)
    found = runtime.effective(str(path), feed)
    where = f", {took([Delegate(**one) for one in found['delegates']])}" if format == "tflite" else ""
    return f"{precision(found['ops'])}{where}"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next(line for line in lines if line.startswith("flags"))
    name = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return f"{name} ({'with' if 'vnni' in flags else 'without'} VNNI)"


def versions() -> Iterator[str]:
    from importlib.metadata import version

    for package in ("onnxruntime", "ai-edge-litert", "ai-edge-quantizer", "openvino"):
        yield f"{package} {version(package)}"


if __name__ == "__main__":
    text = written(PAGE.read_text(encoding="utf-8"), "supported", supported())
    PAGE.write_text(written(text, "measured", measured()), encoding="utf-8")
