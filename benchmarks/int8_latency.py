"""Are edgekd's int8 files as fast as those of the best other tool for each runtime? Measured in turns, one thread.

    pip install -e '.[peers]'
    python benchmarks/int8_latency.py make            write all model files into build/int8_latency/
    python benchmarks/int8_latency.py measure         time them: all files of a model and a runtime in one session
    python benchmarks/int8_latency.py table           write benchmarks/results/int8_latency.md
    options: --models mobilenet_v2,... --runtimes onnx,... --tries N --folder DIR

On a machine that other programs use as well, run ``chrt -r 1 python benchmarks/int8_latency.py measure`` as root: it is then
not interrupted. Weights are random by seed, normalisation layers and int8 ranges are fitted to the same random images for
every tool. A ratio is the median over the rounds of (median of edgekd's block / median of the other's block of the same
round), with a 95 % bootstrap interval over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import int8_files
import numpy as np
from int8_files import MODELS, PEERS

from edgekd.devices import isa, schema
from edgekd.profiling import session
from edgekd.profiling.agents.python import PythonAgent, program
from edgekd.profiling.transports.host import Host
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile
from edgekd.report import trust
from edgekd.report.runtime import delegates

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "int8_latency.md"
SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "openvino": ".xml"}
TITLES = {"onnx": "ONNX Runtime", "tflite": "TensorFlow Lite", "openvino": "OpenVINO"}
READ_BY_OPENVINO = ("edgekd", "onnxruntime")
"""Whose ONNX files OpenVINO is given as well."""
GOAL = 1.03
PROTOCOL = Profile(blocks=31, block_ms=100, block_runs=8)


@dataclass(frozen=True)
class Row:
    """One file in one runtime; ``ratio`` is edgekd's p50 over this file's, with its interval."""

    model: str
    runtime: str
    file: str
    p50_ms: float
    ratio: tuple[float, float, float]
    bytes: int
    float_ops: dict[str, int]
    delegate: str
    version: str
    doubts: tuple[str, ...]
    uninterrupted: bool


def measure(name: str, runtime: str, folder: Path) -> list[Row]:
    """Time all files of one model in one runtime, those of the rewritten model too, in one session."""
    paths = dict(_files(name, runtime, folder))
    samples = folder / "samples" / f"{name}.{runtime}"
    variants = [Variant(tool, cast(Any, runtime), path) for tool, path in paths.items()]
    uninterrupted = os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO)  # agents inherit it
    found = session.measure(variants, PROTOCOL, schema.load("host"), samples)
    for failure in found.failures:
        print(f"{name}, {runtime}: {failure.model} failed: {failure.reason}")
    blocks: dict[str, list[float]] = {}
    for line in (samples / "host.jsonl").read_text(encoding="utf-8").splitlines():
        block = json.loads(line)
        blocks.setdefault(block["model"], []).append(float(np.median(block["samples_ms"])))
    return [
        Row(
            name, runtime, record.model, record.latency_ms.p50, ratio(blocks["edgekd"], blocks[record.model]),
            _bytes(paths[record.model]), float_ops(paths[record.model], runtime), delegates(record.effective),
            record.effective.runtime, tuple(map(trust.sentence, record.trust.reasons)), uninterrupted,
        )
        for record in found.profiles
    ]  # fmt: skip


def _files(name: str, runtime: str, folder: Path) -> Iterator[tuple[str, Path]]:
    suffix = SUFFIXES[runtime]
    for kind in ("", *(f"+{rewrite}" for rewrite in MODELS[name].rewrites)):
        for path in sorted((folder / f"{name}{kind}").glob(f"{runtime}.*{suffix}")):
            yield path.stem.partition(".")[2] + kind, path
    if runtime == "openvino":  # it reads ONNX as well
        for path in sorted((folder / name).glob("onnx.*.onnx")):
            tool = path.stem.partition(".")[2]
            if tool in READ_BY_OPENVINO:
                yield f"{tool}'s ONNX file", path


def _bytes(path: Path) -> int:
    parts = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return sum(part.stat().st_size for part in parts)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Median of the ratios of block medians, round by round, with its 95 % bootstrap interval over rounds."""
    ratios = np.asarray(ours) / np.asarray(theirs)
    draws = np.random.default_rng(0).integers(len(ratios), size=(2000, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def float_ops(path: Path, runtime: str) -> dict[str, int]:
    """Operations that computed in float, by the runtime's own record of one inference."""
    with Host() as way:
        agent = PythonAgent(way, [sys.executable, program(way)], path.name)
        try:
            agent.ask("start", 300.0, runtime=runtime, path=str(path), threads=1, inputs=None)
            return dict(agent.ask("effective", 60.0)["float_ops"])
        finally:
            agent.close(grace=2.0)


def table(rows: Sequence[Row]) -> str:
    """The results in Markdown."""
    cpu = next(
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    )
    features = ", ".join(sorted(isa.detect_isa().features))
    versions = [
        *dict.fromkeys(row.version for row in rows),
        *(f"{tool} {version(tool)}" for tool in ("nncf", "ai-edge-quantizer")),
    ]
    doubts = sorted({doubt for row in rows for doubt in row.doubts})
    lines = [
        "# int8 latency beside other tools",
        "",
        "Made by `benchmarks/int8_latency.py`: torchvision networks with random weights at 224×224 (`mobilenet_recipe` is"
        " the student of `recipes/mobilenet.yaml`, 32×32), batch 1, 1 thread, float32 input and output; the same float model"
        " and calibration images for every tool; all files of a model and a runtime in one session, in turns"
        f" ({PROTOCOL.blocks} rounds). A ratio is edgekd's p50 over the other's of the same round, median over rounds, with"
        " its 95 % interval.",
        "",
        f"Conditions: {cpu} ({features}), {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, Python"
        f" {platform.python_version()}; {'; '.join(versions)}.",
    ]
    if all(row.uninterrupted for row in rows):
        lines[-1] += " Measured with real-time priority (`chrt -r 1`)."
    if doubts:
        lines += [
            "",
            "**Not a quiet machine.** Other programs used it meanwhile: milliseconds are not to be quoted, ratios are of"
            " neighbours in time. edgekd's own verdict was *untrusted* for "
            f"{sum(bool(row.doubts) for row in rows)} of {len(rows)} files, for these reasons: {'; '.join(_kinds(doubts))}.",
        ]
    lines += ["", f"## edgekd against the best other tool (goal: at most {GOAL})", "", *_summary(rows)]
    for runtime, title in TITLES.items():
        lines += ["", f"## {title}", "", *_details([row for row in rows if row.runtime == runtime])]
    return "\n".join(lines) + "\n"


def _kinds(doubts: Sequence[str]) -> list[str]:
    return sorted({re.sub(r"[0-9][0-9.]*", "N", doubt) for doubt in doubts})


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    yield "| model | " + " | ".join(TITLES.values()) + " |"
    yield "|---" * (len(TITLES) + 1) + "|"
    for name in dict.fromkeys(row.model for row in rows):
        cells = []
        for runtime in TITLES:
            others = [row for row in rows if (row.model, row.runtime) == (name, runtime) and (runtime, row.file) in PEERS]
            best = max(others, key=lambda row: row.ratio[0], default=None)
            cells.append("not measured" if best is None else f"{_ratio(best)} {best.file}: {_verdict(best.ratio)}")
        yield f"| {name} | " + " | ".join(cells) + " |"


def _verdict(found: tuple[float, float, float]) -> str:
    middle, low, high = found
    if high <= GOAL:
        return "met"
    if low > GOAL:
        return "**not met**"
    return "met, within noise" if middle <= GOAL else "**not met**, within noise"


def _details(rows: Sequence[Row]) -> Iterator[str]:
    yield "| model | file | p50, ms | edgekd / this | bytes | ran in float | placement |"
    yield "|---|---|---|---|---|---|---|"
    for row in sorted(rows, key=lambda row: (list(MODELS).index(row.model), row.file != "edgekd")):
        floats = ", ".join(f"{name} {count}" for name, count in row.float_ops.items()) or "none"
        floats = "all" if row.file.startswith("float") else floats
        yield (
            f"| {row.model} | {row.file} | {row.p50_ms:.2f} | {_ratio(row)} | {row.bytes:,} | {floats} | {row.delegate} |"
        )


def _ratio(row: Row) -> str:
    return "1" if row.file == "edgekd" else "{:.3f} [{:.3f}, {:.3f}]".format(*row.ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "measure", "table"])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--runtimes", default=",".join(TITLES))
    parser.add_argument("--tries", type=int, default=1, help="sessions at most, until one is trusted")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "int8_latency")
    options = parser.parse_args()
    for name in options.models.split(","):
        if options.what == "make":
            int8_files.make(name, options.folder, options.runtimes.split(","))
            continue
        for runtime in options.runtimes.split(",") if options.what == "measure" else ():
            for _ in range(options.tries):
                rows = measure(name, runtime, options.folder)
                if not any(row.doubts for row in rows):
                    break
            kept = options.folder / f"{name}.{runtime}.json"
            kept.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
            print("\n".join(_details(rows)), flush=True)
    if options.what == "table":
        cells = [options.folder / f"{name}.{runtime}.json" for runtime in TITLES for name in options.models.split(",")]
        rows = [Row(**row) for cell in cells if cell.exists() for row in json.loads(cell.read_text(encoding="utf-8"))]
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(table(rows), encoding="utf-8")
        print(RESULTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
