"""Does edgekd's agent measure what the runtimes' own tools measure, and what does it cost?

    python benchmarks/agent.py [--turns 30]

Writes benchmarks/results/agent.json and agent.md. One network of plain convolutions, one thread, each measurement a process
of its own, agent and tool in turns: OpenVINO's ``benchmark_app`` and LiteRT's ``litert-benchmark``. A ratio is the median
over the turns of the agent's p50 over the tool's, with its 95 % interval (sign test). On a machine that other programs use
as well, run it as root with ``chrt -r 1``: it is then not interrupted. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekd import environment
from edgekd.devices import schema
from edgekd.profiling import agents, compare, doctor
from edgekd.profiling.agents.base import Agent, Agents
from edgekd.profiling.on_device.timing import Timing
from edgekd.profiling.transports.host import Host
from edgekd.profiling.variant import Variant

RESULTS = Path(__file__).parent / "results"
LAYERS, CHANNELS, SIDE = 12, 32, 40
FILES = {"onnx": "net.onnx", "tflite": "net.tflite", "openvino": "net.xml"}
SECONDS = 1.0
"""Of inferences in a turn, for each."""
AGREE, RSS_MIB, LOOP = 0.05, 5.0, 0.01
"""Goals: difference of p50, memory over a bare script, share of a 1 ms inference that the loop takes."""
MODEL = f"""\
import sys, torch
from torch import nn
layers = [part for i in range({LAYERS}) for part in (nn.Conv2d({CHANNELS} if i else 3, {CHANNELS}, 3, padding=1), nn.ReLU())]
torch.manual_seed(0)
net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
x = torch.zeros(1, 3, {SIDE}, {SIDE})
import litert_torch, openvino
litert_torch.convert(net, (x,)).export(sys.argv[1] + "/net.tflite")
torch.onnx.export(net, (x,), sys.argv[1] + "/net.onnx", dynamo=True, external_data=False)
openvino.save_model(openvino.convert_model(sys.argv[1] + "/net.onnx"), sys.argv[1] + "/net.xml", compress_to_fp16=False)
"""
BARE = {
    "onnx": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
run = lambda: session.run(None, {session.get_inputs()[0].name: x})
""",
    "tflite": """
from ai_edge_litert.interpreter import Interpreter
model = Interpreter(model_path=sys.argv[1], num_threads=1)
model.allocate_tensors()
x = x.transpose(0, *range(2, x.ndim), 1).copy() if model.get_input_details()[0]["shape"][-1] == 3 else x
def run():
    model.set_tensor(model.get_input_details()[0]["index"], x)
    model.invoke()
    return model.get_tensor(model.get_output_details()[0]["index"])
""",
    "openvino": """
import openvino
settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
request = openvino.Core().compile_model(sys.argv[1], "CPU", settings).create_infer_request()
run = lambda: request.infer([x])[0]
""",
}
"""The shortest program that runs each file."""


def write_networks(folder: Path) -> None:
    """Write the network in every format; the converters print much, so in a process of its own."""
    subprocess.run([sys.executable, "-c", MODEL, str(folder)], check=True, capture_output=True)


def bare_mib(runtime: str, path: Path) -> float:
    """Peak resident set of the shortest program that runs a file 100 times."""
    head = "import os, sys\nos.environ.update(OPENBLAS_NUM_THREADS='1', ORT_DISABLE_TELEMETRY='1', CI='true')\n"
    feed = f"import numpy as np\nx = np.random.default_rng(0).standard_normal((1, 3, {SIDE}, {SIDE})).astype('float32')\n"
    tail = "for _ in range(100): run()\nprint([line for line in open('/proc/self/status') if 'VmHWM' in line][0].split()[1])"
    command = [sys.executable, "-c", head + feed + BARE[runtime] + tail, str(path)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]) / 1024


def started(starter: Agents, runtime: str, path: Path) -> Agent:
    """Start an agent with a file."""
    agent = starter.start(Variant(runtime, runtime, path), runtime)
    agent.ask("start", 60, runtime=runtime, path=str(path), threads=1)
    return agent


def agent_ms(starter: Agents, runtime: str, path: Path) -> float:
    """p50 of the agent."""
    agent = started(starter, runtime, path)
    agent.ask("warmup", 60, runs=20, ms=300, limit_ms=1000)
    samples = agent.ask("block", 60, runs=30, ms=1000 * SECONDS)["samples"]
    agent.close(grace=2)
    return float(statistics.median(samples))


def agent_mib(starter: Agents, runtime: str, path: Path) -> float:
    """Peak resident set of the agent after 100 inferences."""
    agent = started(starter, runtime, path)
    agent.ask("block", 60, runs=97, ms=0)
    peak = float(agent.ask("memory", 60)["peak_mib"])
    agent.close(grace=2)
    return peak


def benchmark_app_ms(path: Path, folder: Path) -> float:
    """p50 of OpenVINO's tool, with the filling of inputs, which the agent counts too."""
    options = f"-d CPU -api sync -hint none -nthreads 1 -nstreams 1 -b 1 -t {SECONDS:.0f} -infer_precision f32"
    report = "-inference_only False -json_stats -report_type no_counters -report_folder"
    command = [tool("benchmark_app"), "-m", str(path), *options.split(), *report.split(), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    value = json.loads((folder / "benchmark_report.json").read_text())
    return float(value["execution_results"]["latency (ms)"])


def litert_benchmark_ms(path: Path, folder: Path) -> float:
    """p50 of LiteRT's tool."""
    result = folder / "litert.json"
    options = ["--num_threads", "1", "--warmup_runs", "100", "--num_runs", "500", "--result_json", str(result)]
    subprocess.run([tool("litert-benchmark"), "--model", str(path), *options], check=True, capture_output=True)
    return float(json.loads(result.read_text())["latency"]["median_ms"])


def tool(name: str) -> str:
    """Path of a program that is installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


def in_turns(turns: int, ours: Callable[[], float], theirs: Callable[[], float]) -> dict[str, Any]:
    """Measure in turns, each first every other time."""
    pairs = []
    for turn in range(turns):
        if turn % 2:
            other, own = theirs(), ours()
        else:
            own, other = ours(), theirs()
        pairs.append((own, other))
    ratios = [own / other for own, other in pairs]
    low, high = compare.sign_interval(ratios, level=0.95)
    return {
        "agent_ms": round(statistics.median(own for own, _ in pairs), 4),
        "tool_ms": round(statistics.median(other for _, other in pairs), 4),
        "ratio": round(statistics.median(ratios), 4), "low": round(low, 4), "high": round(high, 4), "turns": turns,
    }  # fmt: skip


class _Nothing:
    def run(self, feed: Any) -> None:
        """Do nothing: what remains is the loop."""


def loop_us() -> dict[str, float]:
    """Microseconds of an iteration of the agent's loop around nothing: in all, and the part that is counted as inference."""
    timing = Timing()
    timing.runtime, timing.feeds = _Nothing(), [{}]
    inside, whole = [], []
    for _ in range(20):
        began = time.perf_counter_ns()
        times = timing._repeat(20000, 0)
        whole.append((time.perf_counter_ns() - began) / 1e3 / len(times))
        inside.append(1000 * statistics.median(times))
    return {"whole": round(statistics.median(whole), 3), "counted": round(statistics.median(inside), 3)}


def page(value: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    machine, loop = value["machine"], value["loop_us"]
    names = ("onnxruntime", "ai-edge-litert", "openvino", "numpy")
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in names)
    lines = [
        "# edgekd's agent beside the runtimes' own tools", "",
        f"Made by `benchmarks/agent.py`: {LAYERS} convolutions of {CHANNELS} channels at {SIDE}×{SIDE}, float32, 1 thread,"
        f" agent and tool in turns, each in a process of its own. Commit {machine['commit']}, {machine['cpu']},"
        f" {machine['cores']} cores, {machine['priority']}, Python {machine['python']}, {packages}."
        " Other programs used the machine meanwhile: milliseconds are not to be quoted.", "",
        f"| tool | turns | agent, p50 ms | tool, p50 ms | agent / tool, 95 % interval (goal: within {AGREE:.0%}) |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['turns']} | {row['agent_ms']:.3f} | {row['tool_ms']:.3f} |"
            f" {row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}] |"
            for name, row in value["agreement"].items()
        ), "",
        "The agent times an inference as a user writes it, `request.infer([x])[0]`; `benchmark_app` times `request.infer()`,"
        " which spares about 50 µs of Python here.", "",
        f"| runtime | peak of the agent, MiB | peak of the shortest script, MiB | difference (goal: at most {RSS_MIB:g}) |",
        "|---|---|---|---|",
        *(
            f"| {name} | {row['agent']:.1f} | {row['bare']:.1f} | {row['agent'] - row['bare']:+.1f} |"
            for name, row in value["memory_mib"].items()
        ), "",
        f"An iteration of the agent's loop around nothing takes {loop['whole']:.2f} µs, of which {loop['counted']:.2f} µs"
        f" are counted as inference: {loop['whole'] / 10:.2f} % of 1 ms (goal: at most {LOOP:.0%}).", "",
    ]  # fmt: skip
    return "\n".join(lines)


def missed(value: dict[str, Any]) -> list[str]:
    """Goals that are missed."""
    apart = [name for name, row in value["agreement"].items() if abs(row["ratio"] - 1) > AGREE]
    heavy = [f"memory of {name}" for name, row in value["memory_mib"].items() if row["agent"] - row["bare"] > RSS_MIB]
    return apart + heavy + (["loop"] if value["loop_us"]["whole"] > 1000 * LOOP else [])


def main() -> int:
    """Measure, write the results and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args()
    host, known = schema.load("host"), environment.describe()
    done = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    priority = "real-time priority" if os.sched_getscheduler(0) == os.SCHED_RR else "usual priority"
    kept = {key: known[key] for key in ("cpu", "cores", "python", "packages")}
    with tempfile.TemporaryDirectory() as temporary, Host() as way:
        folder = Path(temporary)
        write_networks(folder)
        starter = agents.of(host, way, doctor.examine(host, way, ("onnx", "tflite", "openvino")).runtimes)
        paths = {runtime: folder / name for runtime, name in FILES.items()}
        value = {
            "machine": {"commit": done.stdout.strip(), "priority": priority, **kept},
            "agreement": {
                "benchmark_app (OpenVINO)": in_turns(
                    options.turns,
                    lambda: agent_ms(starter, "openvino", paths["openvino"]),
                    lambda: benchmark_app_ms(paths["openvino"], folder),
                ),
                "litert-benchmark (LiteRT)": in_turns(
                    options.turns,
                    lambda: agent_ms(starter, "tflite", paths["tflite"]),
                    lambda: litert_benchmark_ms(paths["tflite"], folder),
                ),
            },
            "memory_mib": {
                runtime: {
                    "agent": round(statistics.median(agent_mib(starter, runtime, path) for _ in range(5)), 2),
                    "bare": round(statistics.median(bare_mib(runtime, path) for _ in range(5)), 2),
                }
                for runtime, path in paths.items()
            },
            "loop_us": loop_us(),
        }
    (RESULTS / "agent.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "agent.md").write_text(page(value), encoding="utf-8")
    print(page(value))
    print("missed:", ", ".join(missed(value)) or "none")
    return 1 if missed(value) else 0


if __name__ == "__main__":
    sys.exit(main())
