#!/usr/bin/python3
"""A stand-in for TensorFlow Lite's ``benchmark_model`` on the test phone, where no build of it for aarch64 can be had.

It takes the program's options and prints in its formats (tensorflow/lite/tools/benchmark in LiteRT of 2026; the CSV as
tsl/util/stats_calculator writes it), and what it prints is measured: it runs the model in ai-edge-litert's Interpreter.
Values of inputs and outputs are read, checked and written by the rules of benchmark_tflite_model.cc. What it does not do:
delegates other than XNNPACK. It takes ``--use_gpu``, and its GPU refuses the model.

The variable ``STAND_IN`` makes it another program: ``wrong`` adds 1 to every output; ``short`` leaves out the last byte;
``fast`` takes no
time; ``old`` does not know ``--output_filepath``; ``older`` does not know ``--input_layer_value_files`` either.
"""

import os
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
    "profiling_output_csv_file": "", "report_peak_memory_footprint": "false", "input_layer": "", "input_layer_shape": "",
    "input_layer_value_files": "", "output_filepath": "",
}  # fmt: skip
KIND = os.environ.get("STAND_IN", "")
UNKNOWN = {"old": ["output_filepath"], "older": ["output_filepath", "input_layer_value_files"]}.get(KIND, [])


def info(text):
    print(f"INFO: {text}", flush=True)


def fail(text):
    sys.stderr.write(f"ERROR: {text}\nERROR: Benchmarking failed.\n")
    sys.exit(1)


def fatal(text):
    sys.stderr.write(f"FATAL: {text}\n")
    os.abort()


def layers(options):
    """Shape and file of each input that is named, by its name, in the order given."""
    names, shapes, files = (
        options[f"input_layer{part}"].split(mark) if options[f"input_layer{part}"] else []
        for part, mark in (("", ","), ("_shape", ":"), ("_value_files", ","))
    )
    if len(names) != len(shapes):
        fail(
            f"The number of items in --input_layer_shape ({options['input_layer_shape']}, with {len(shapes)} items) must "
            f"match the number of items in --input_layer ({options['input_layer']}, with {len(names)} items)."
        )
    found = [[name, [int(side) for side in shape.split(",")], ""] for name, shape in zip(names, shapes)]  # noqa: B905
    for item in files:
        parts = item.replace("::", "\0").split(":")  # the first ':' alone is the end of the name
        if len(parts) != 2:
            fail(f"Wrong input value file item specified: {item}")
        name, file = (part.replace("\0", ":") for part in parts)
        if name not in names:
            fatal(f"Cannot find the corresponding input_layer name({name}) in --input_layer as {options['input_layer']}")
        found[names.index(name)][2] = file
    return found


def resize(model, given):
    specs = model.get_input_details()
    if given and len(given) != len(specs):
        fatal(f"Inputs mismatch: Model inputs #:{len(given)} expected: {len(specs)}")
    for (name, shape, _), spec in zip(given, specs):  # noqa: B905
        if name != spec["name"]:
            print(f"WARN: Tensor # {spec['index']} is named {spec['name']} but flags call it {name}")
        if len(shape) != len(spec["shape"]):
            fail(f"Input tensor #{spec['index']} should have {len(spec['shape'])} dimensions!")
        model.resize_tensor_input(spec["index"], shape)


def values(spec, file, random):
    """Of a file, else random; ``spec`` of an input with its final shape."""
    kind, shape = np.dtype(spec["dtype"]), tuple(spec["shape"])
    if not file:
        x = random.random(shape) if kind == np.float32 else random.integers(-128, 127, shape)
        return x.astype(kind)
    if not Path(file).is_file():
        fatal(f"Failed to read the input_layer_value_file:{file}")
    content, size = Path(file).read_bytes(), int(np.prod(shape)) * kind.itemsize
    if len(content) != size:
        fatal(f"The size of {file} is {len(content)} bytes. It should be {size} bytes.")
    return np.frombuffer(content, kind).reshape(shape)


def write_outputs(path, model):
    """All of them, one after the other."""
    parts = [model.get_tensor(spec["index"]) for spec in model.get_output_details()]
    content = b"".join((part + part.dtype.type(1) if KIND == "wrong" else part).tobytes() for part in parts)
    Path(path).write_bytes(content[:-1] if KIND == "short" else content)


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
        times.append(0 if KIND == "fast" else (time.perf_counter_ns() - at) // 1000)
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
        if name in KNOWN and name not in UNKNOWN:
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
        given = layers(options)
        resize(model, given)
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
    files = [file for _, _, file in given] or [""] * len(model.get_input_details())
    for spec, file in zip(model.get_input_details(), files):  # noqa: B905
        model.set_tensor(spec["index"], values(spec, file, random))
    limit = float(options["max_secs"])
    warm = repeat(model, int(options["warmup_runs"]), float(options["warmup_min_secs"]), limit)
    times = repeat(model, int(options["num_runs"]), float(options["min_secs"]), limit)
    if options["output_filepath"]:
        write_outputs(options["output_filepath"], model)
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
