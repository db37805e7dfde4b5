"""The two tables of docs/formats.md: which format has which precision, and what each file is when it is run.

    python benchmarks/formats.py            # measures, and writes both (about 2 min on 2 cores)

Networks have random weights; their norms are fitted to random images. Each file runs in its own runtime with one thread,
against torch with the weights that the file holds. Times are those of the fastest inference of 50, without edgekd's
measuring protocol: read them as ratios. int8 has benchmarks of its own (int8_latency.py, int8_parity.py).
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
NETWORKS = ("mobilenet_v2",)
SIZE, CALIBRATION, TEST = 64, 16, 16


def supported() -> str:
    """The table of precisions and formats, as the exporters say it."""
    from edgekd.recipe import Precision
    from edgekd.registry import exporters

    lines = [f"| precision | {' | '.join(FORMATS.values())} |", f"|---|{'---|' * len(FORMATS)}"]
    for precision in get_args(Precision):
        cells = []
        for name in FORMATS:
            found: Any = exporters.get(name).precisions[precision]  # type: ignore[attr-defined]
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

    from edgekd.export.exporter import Options, Refused, Source
    from edgekd.export.weights import rounded
    from edgekd.quantize.fold import fold
    from edgekd.recipe import Precision
    from edgekd.registry import exporters
    from edgekd.vision import import_torchvision

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
        base = 0.0
        for precision in sorted(get_args(Precision), key=lambda precision: precision != "float32"):
            exporter: Any = exporters.get(format)()  # type: ignore[operator]
            if precision == "int8" or isinstance(exporter.precisions[precision], Refused):
                continue
            reference = rounded(folded, precision)
            source = Source(reference, example, images=images[:CALIBRATION])
            path = folder / f"{name}_{precision}{exporter.suffix}"
            exported = exporter.export(source, path, Options(precision))
            with torch.no_grad():
                expected = reference(torch.from_numpy(test)).numpy()
            logits, milliseconds = run(path, format, test)
            base = base or milliseconds
            error = 100 * np.abs(logits - expected).max() / np.ptp(expected)
            same = 100 * np.mean(logits.argmax(axis=1) == expected.argmax(axis=1))
            line = (
                f"| {name} | {title} {precision} | {exported.bytes / 2**20:.2f} | {error:.2g} | {same:.0f} "
                f"| {milliseconds / base:.2f} | {said(path, format, test[:1])} |"
            )
            print(line, flush=True)
            yield line


def run(path: Path, format: str, images: np.ndarray) -> tuple[np.ndarray, float]:
    """Logits of all images, and the milliseconds of the fastest inference."""
    from edgekd.export import runtimes

    session = runtimes.load(path, format)
    logits = runtimes.run_all(session, images)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 50 and (time.perf_counter() - started < 10 or len(times) < 3):
        before = time.perf_counter()
        session.run(images[:1])
        times.append(1000 * (time.perf_counter() - before))
    return logits, min(times)


def said(path: Path, format: str, image: np.ndarray) -> str:
    """What the runtime computes in, read back from it."""
    from edgekd.profile import agent, records

    runtime = agent.RUNTIMES[format](1)
    runtime.load(str(path))
    x = np.ascontiguousarray(image.transpose(0, 2, 3, 1)) if format == "tflite" else image
    runtime.run(x)
    found = runtime.effective(str(path), x)
    where = f", {found['delegate']}" if format == "tflite" else ""
    return f"{records.precision(found['ops'])}{where}"


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
