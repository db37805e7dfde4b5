"""Reading what benchmark_model prints.

The texts below are in the program's formats, with figures of our own: LiteRT's tflite/tools/benchmark/benchmark_model.cc and
benchmark_tflite_model.cc (2026), tsl/util/stats_calculator.cc for the table; the older ones as in the reports
tensorflow/tensorflow#43541 (2.3, GPU) and #56301 (2.9, NNAPI) and google/XNNPACK#999 (2.8).
"""

import pytest

from edgekd.errors import DeviceError
from edgekd.profiling.agents import benchmark_log

NEW = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Num threads: [4]
INFO: Graph: [/data/local/tmp/edgekd-1/file1.tflite]
INFO: Signature to run: []
INFO: #threads used for CPU inference: [4]
INFO: Loaded model /data/local/tmp/edgekd-1/file1.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 29 out of 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions for subgraph 0.
INFO: The input model file size (MB): 4.2761
INFO: Initialized session in 12.5ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=5 first=9500 curr=8600 min=8500 max=9500 avg=8800 std=350 p5=8500 median=8600 p95=9500

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=120 first=8700 curr=8450 min=8400 max=9900 avg=8500.25 std=120 p5=8420 median=8480 p95=8700

INFO: Inference timings in us: Init: 12500, First inference: 9500, Warmup (avg): 8800, Inference (avg): 8500.25
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE ...
INFO: Memory footprint delta from the start of the tool (MB): init=9.5 overall=14.25
INFO: Overall peak memory footprint (MB) via periodic monitoring: 41.5
"""
OLD = """\
STARTING!
Log parameter values verbosely: [0]
#threads used for CPU inference: [1]
Use gpu: [1]
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite delegate for GPU.
Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
The input model file size (MB): 7.1
Initialized session in 870.5ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1 curr=3512391

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 870500, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
Peak memory footprint (MB): init=0 overall=12.875
"""
CSV = """\
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
AllocateTensors, 0.029, 0.029, 100%, 100%, 0, 1, AllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
node type, first, avg_ms, %, cdf%, mem KB, times called, name
QUANTIZE, 0.199, 0.203, 1.3%, 1.3%, 0, 1, [tfl.quantize]:0
Convolution (NHWC, QC8) DWConv, 0.428, 0.05, 4.3%, 5.6%, 0, 13, Delegate/Convolution (NHWC, QC8) DWConv:1
CONV_2D, 0.11, 0.093, 44.9%, 50.5%, 0, 1, [a/conv, b/Relu]:3

============================== Top by Computation Time ==============================
"""


def test_a_newer_version_gives_the_median_and_what_ran_where():
    log = benchmark_log.read(NEW)
    assert (log.load_ms, log.first_ms, log.threads) == (12.5, 9.5, 4)
    assert log.times == benchmark_log.Times(120, 8.50025, 8.4, 8.48)
    assert log.warmup.n == 5
    assert (log.added_mib, log.peak_mib) == (14.25, 41.5)
    assert log.delegates == [{"name": "XNNPACK", "taken": 29, "of": 31}]
    assert log.refused == ()


def test_an_older_version_gives_no_median_and_none_is_invented():
    log = benchmark_log.read(OLD)
    assert log.times == benchmark_log.Times(50, 2950.34, 2727.568, None)
    assert log.warmup == benchmark_log.Times(1, 3512.391, 3512.391, 3512.391)  # one inference is its own median
    assert (log.added_mib, log.peak_mib) == (12.875, None)
    assert log.delegates == [{"name": "GPU", "whole": True}]


def test_a_delegate_that_took_nothing_is_told():
    text = OLD.replace(
        "Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.",
        "Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate.",
    )
    log = benchmark_log.read(text)
    assert (log.delegates, log.refused) == (None, ("NNAPI",))
    part = OLD.replace("completely executed by the delegate.", "partially executed by the delegate w/ 44 delegate kernels.")
    assert benchmark_log.read(part).delegates == [{"name": "GPU", "whole": False}]


def test_operations_are_read_with_their_calls():
    found = benchmark_log.operations(CSV)
    assert [(row.name, row.kind, round(row.ms, 3), row.where) for row in found] == [
        ("tfl.quantize:0", "QUANTIZE", 0.203, ""),
        ("Convolution (NHWC, QC8) DWConv:1", "Convolution (NHWC, QC8) DWConv", 0.65, "delegate"),
        ("a/conv, b/Relu:3", "CONV_2D", 0.093, ""),
    ]
    older = CSV.replace("node type, first", "node type, start, first").replace("QUANTIZE, ", "QUANTIZE, 0, ")
    assert benchmark_log.operations(older)[0].ms == 0.203


@pytest.mark.parametrize("text", ["", "usage: another program", NEW.partition("INFO: Running")[0]])
def test_the_output_of_another_program_is_refused(text):
    with pytest.raises(DeviceError, match="not that of benchmark_model"):
        benchmark_log.read(text)
    with pytest.raises(DeviceError, match="table of operations cannot be read"):
        benchmark_log.operations(text)


def test_failures_are_told_in_its_own_words():
    assert benchmark_log.errors("ERROR: Failed to load model x\nERROR: Benchmarking failed.\n") == "Failed to load model x"
    assert benchmark_log.errors("Illegal instruction\n") == "Illegal instruction"
    assert benchmark_log.errors("") == "it printed nothing"
    assert benchmark_log.unknown("WARN: Unconsumed cmdline flags: --use_nnapi=true\n") == "--use_nnapi=true"
    assert benchmark_log.unknown(NEW) == ""
