#!/usr/bin/python3
"""A stand-in for TensorFlow Lite's ``benchmark_model`` on the test phone, where no build of it for aarch64 can be had.

It takes the program's options and prints in its formats (tensorflow/lite/tools/benchmark in LiteRT of 2026; the CSV as
tsl/util/stats_calculator writes it), and what it prints is measured: it runs the model in ai-edge-litert's Interpreter.
What it does not do: input files, delegates other than XNNPACK. It takes ``--use_gpu``, and its GPU refuses the model.
"""

import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

KNOWN = {
    "graph": "", "num_threads": "-1", "num_runs": "50", "min_secs": "1", "max_secs": "150", "warmup_runs": "1",
    "warmup_min_secs": "0.5", "use_xnnpack": "", "use_gpu": "false", "enable_op_profiling": "false",
    "profiling_output_csv_file": "", "report_peak_memory_footprint": "false",
}  # fmt: skip


def info(text):
    print(f"INFO: {text}", flush=True)


def fail(text):
    sys.stderr.write(f"ERROR: {text}\nERROR: Benchmarking failed.\n")
    sys.exit(1)


def number(value):
    return f"{value:.6g}"


def stat(times):
    """Microseconds, as StatWithPercentiles prints them."""
    if len(set(times)) == 1:
        return f"count={len(times)} curr={times[0]}" + ("(all same)" if len(times) > 1 else "")
    std = int(statistics.pstdev(times))
    first, last, low, high = times[0], times[-1], min(times), max(times)
    text = (
        f"count={len(times)} first={first} curr={last} min={low} max={high} avg={number(statistics.mean(times))} std={std}"
    )
    rank = sorted(times)
    low, middle, high = (rank[min(len(rank) - 1, int(share * len(rank)))] for share in (0.05, 0.5, 0.95))
    return f"{text} p5={low} median={middle} p95={high}"


def repeat(model, runs, seconds, limit):
    info(
        f"Running benchmark for at least {runs} iterations and at least {number(seconds)} seconds but terminate if exceeding"
        f" {number(limit)} seconds."
    )
    begin, times = time.monotonic(), []
    while (len(times) < runs or time.monotonic() < begin + seconds) and time.monotonic() <= begin + limit:
        at = time.perf_counter_ns()
        model.invoke()
        times.append((time.perf_counter_ns() - at) // 1000)
    info(stat(times) + "\n")
    return times


def write_csv(path, model, times):
    """One row: what the delegate took; the Interpreter of Python times no single operations."""
    mean = statistics.mean(times) / 1000
    nodes = [node for node in model._get_ops_details() if node["op_name"] != "DELEGATE"]
    with Path(path).open("w") as file:
        file.write("Operator-wise Profiling Info for Regular Benchmark Runs:\n")
        file.write("============================== Run Order ==============================\n")
        file.write("node type, first, avg_ms, %, cdf%, mem KB, times called, name\n")
        file.write(f"TfLiteXNNPackDelegate, {times[0] / 1000}, {mean}, 100%, 100%, 0, 1, [output]:{len(nodes)}\n\n")


def main():
    info("STARTING!")
    options, unknown = dict(KNOWN), []
    for word in sys.argv[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        if name in KNOWN:
            options[name] = value
        else:
            unknown.append(word)
    if unknown:
        print(f"WARN: Unconsumed cmdline flags: {' '.join(unknown)}")
    threads = max(1, int(options["num_threads"]))
    info("Log parameter values verbosely: [0]")
    info(f"Num threads: [{threads}]")
    info(f"Graph: [{options['graph']}]")
    info(f"#threads used for CPU inference: [{threads}]")
    began, before = time.perf_counter_ns(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if options["use_xnnpack"] == "false" else OpResolverType.AUTO
    try:
        model = Interpreter(options["graph"], num_threads=threads, experimental_op_resolver_type=kernels)
        model.allocate_tensors()
    except (ValueError, RuntimeError, OSError):
        fail(f"Failed to load model {options['graph']}")
    loaded, after = (time.perf_counter_ns() - began) // 1000, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    info(f"Loaded model {options['graph']}")
    details = model._get_ops_details()
    nodes, parts = [d for d in details if d["op_name"] != "DELEGATE"], [d for d in details if d["op_name"] == "DELEGATE"]
    if parts:
        info("Created TensorFlow Lite XNNPACK delegate for CPU.")
        sys.stderr.write(
            f"VERBOSE: Replacing {len(nodes)} out of {len(nodes)} node(s) with delegate (TfLiteXNNPackDelegate) node, "
            f"yielding {len(parts)} partitions for subgraph 0.\n"
        )
    if options["use_gpu"] == "true":
        info("Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.")
    info(f"The input model file size (MB): {number(Path(options['graph']).stat().st_size / 1e6)}")
    info(f"Initialized session in {number(loaded / 1000)}ms.")
    random = np.random.default_rng(0)
    for spec in model.get_input_details():
        kind = spec["dtype"]
        x = random.random(spec["shape"]) if kind == np.float32 else random.integers(-128, 127, spec["shape"])
        model.set_tensor(spec["index"], x.astype(kind))
    limit = float(options["max_secs"])
    warm = repeat(model, int(options["warmup_runs"]), float(options["warmup_min_secs"]), limit)
    times = repeat(model, int(options["num_runs"]), float(options["min_secs"]), limit)
    info(
        f"Inference timings in us: Init: {loaded}, First inference: {warm[0]}, "
        f"Warmup (avg): {number(statistics.mean(warm))}, Inference (avg): {number(statistics.mean(times))}"
    )
    info(
        "Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual "
        "memory footprint of the model at runtime. Take the information at your discretion."
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    info(
        f"Memory footprint delta from the start of the tool (MB): init={number((after - before) / 1024)} "
        f"overall={number((peak - before) / 1024)}"
    )
    if options["report_peak_memory_footprint"] == "true":
        info(f"Overall peak memory footprint (MB) via periodic monitoring: {number(peak / 1024)}")
    if options["enable_op_profiling"] == "true":
        write_csv(options["profiling_output_csv_file"], model, times)


main()
