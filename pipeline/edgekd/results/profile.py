"""Records of figures on a device: latency, memory, correctness, and the reasons to trust them.

Times are milliseconds, memory is MiB (2**20 bytes), temperatures are degrees Celsius, frequencies are MHz. A figure that was
not measured is ``None`` or empty, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgekd.results.findings import Finding
from edgekd.results.runtime import Delegate


@dataclass(frozen=True)
class Latency:
    """Steady-state milliseconds over ``n`` inferences.

    ``ci`` and ``ci_p90`` are the 95 % intervals of p50 and p90 (bootstrap over blocks); runs of earlier versions have no
    ``ci_p90``. ``p90`` and ``p99`` are None where the agent gives no single times, as ``benchmark_model`` does not.
    """

    p50: float
    p90: float | None
    p99: float | None
    min: float
    mean: float
    n: int
    ci: tuple[float, float]
    ci_p90: tuple[float, float] | None = None


@dataclass(frozen=True)
class LoadTime:
    """Milliseconds to load: ``cold`` with the file out of the page cache, ``warm`` right after.

    ``cold`` is None where the file cannot be taken out of it. ``is_cold`` is false where that was tried and the file
    stayed in it, so that ``cold`` is no cold load; runs of earlier versions do not tell.
    """

    cold: float | None
    warm: float
    is_cold: bool | None = None


@dataclass(frozen=True)
class Memory:
    """MiB (2**20 bytes) of the measuring process; None where the device does not tell.

    Attributes:
        peak: Peak resident set (VmHWM) after all inferences.
        runtime: The same process with the runtime imported and no model.
        model: The difference: what the model and its arena added.
        trivial: Peak with a trivial model (one fully connected layer, 4×4) in its place, measured in a process of its own;
            the inputs are counted in it.
    """

    peak: float | None
    runtime: float | None
    model: float | None
    trivial: float | None = None


@dataclass(frozen=True)
class Effective:
    """Settings that the runtime reports.

    Attributes:
        runtime: Its name and version.
        threads: Threads that worked.
        operations: Number of operations by the type that they compute in, 0 where edgekd 0.1 did not count them; empty
            where the runtime does not tell.
        delegates: What took operations; None where the runtime has none, or does not tell.
        settings: What else it says it was set to, by its own names.
        asked_threads: The requested number of threads.
    """

    runtime: str
    threads: int
    operations: Mapping[str, int] = field(default_factory=dict)
    delegates: tuple[Delegate, ...] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    asked_threads: int | None = None


@dataclass(frozen=True)
class Trust:
    """Verdict on the conditions of a figure.

    Attributes:
        verdict: ``trusted``, or ``untrusted`` with reasons.
        reasons: Of :mod:`edgekd.profiling.stats`, with their figures; empty when trusted.
        drift: Median of the last block over that of the first, minus 1.
        spread: Interquartile range of the block medians over their median.
        load_before: One-minute load average before the session.
        load_after: The same after.
    """

    verdict: Literal["trusted", "untrusted"]
    reasons: tuple[Finding, ...]
    drift: float
    spread: float
    load_before: float
    load_after: float


@dataclass(frozen=True)
class BlockState:
    """The device around one block: what can be read of it.

    Attributes:
        celsius: Temperature after the block; of a phone, its battery's.
        mhz: Clock of the fastest core after the block.
        throttled: Throttling was newly reported during the block.
        others: Cores that other processes kept busy meanwhile.
        battery_percent: Charge of a phone's battery after the block.
        charging: Whether it was being charged.
    """

    celsius: float | None = None
    mhz: float | None = None
    throttled: bool = False
    others: float | None = None
    battery_percent: float | None = None
    charging: bool | None = None


@dataclass(frozen=True)
class Attempt:
    """A measurement that was made again, as this artifact or another of its session was not trusted.

    Attributes:
        reasons: Why this artifact was not trusted; empty where it was.
        cooled_s: Seconds of cool-down after it.
        p50: Median in milliseconds.
    """

    reasons: tuple[Finding, ...]
    cooled_s: float
    p50: float | None = None


@dataclass(frozen=True)
class Outputs:
    """Outputs of an artifact on the device against a reference, on the same ``n`` samples.

    Attributes:
        reference: ``host`` (the same file in the same runtime's format on the host) or ``torch`` (the expected output).
        n: Samples.
        max_error: Largest absolute difference of an output value.
        cosine: Smallest cosine of an output with its reference.
        agreement: Share of samples with the same class; None where the output has no classes.
        p99_lsb: 99th percentile of the difference in steps of the output's scale, for int8 files.
        max_lsb: The largest.
        flips: Samples with another class whose two best differ by more than two steps in the reference.
        worst_layer: Where the difference begins, when it is larger than allowed.
        differs: What of it is more than two correct programs differ by: ``lsb``, ``float_error`` and ``flips``, of
            :mod:`edgekd.evaluation.device_outputs`; empty where nothing is.
    """

    reference: Literal["host", "torch"]
    n: int
    max_error: float
    cosine: float
    agreement: float | None = None
    p99_lsb: float | None = None
    max_lsb: float | None = None
    flips: int | None = None
    worst_layer: str = ""
    differs: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Operation:
    """One operation in the profiled run: mean ``ms`` an inference, type it computes in, and what ran it."""

    name: str
    kind: str
    ms: float
    precision: str = ""
    where: str = ""


@dataclass(frozen=True)
class Operations:
    """Times of single operations, from a run of its own.

    Attributes:
        operations: In the order they run.
        source: What told them, such as ``ONNX Runtime profiler``.
        p50: Of an inference of this run, recording included.
        attributed: Sum of the operations' times over the inference's time of the same run, 0 to 1.
        overhead: This run's p50 over the p50 of the measurement, minus 1: what the recording costs.
    """

    operations: tuple[Operation, ...]
    source: str
    p50: float
    attributed: float
    overhead: float

    @property
    def mean(self) -> float:
        """Mean milliseconds of an inference of this run; the times of operations are means, so their shares are of this."""
        return sum(operation.ms for operation in self.operations) / self.attributed if self.attributed else 0.0


@dataclass(frozen=True)
class Part:
    """One part of the whole path from file to answer (``decode``, ``preprocess``, ``network``, ``postprocess``), median."""

    name: str
    ms: float


@dataclass(frozen=True)
class Energy:
    """Millijoules an inference above idle, and the meter that told them."""

    mj: float
    meter: str


@dataclass(frozen=True)
class Sustained:
    """Minutes of inferences without a pause: median of each ten seconds, in order, with the temperatures."""

    minutes: float
    medians: tuple[float, ...]
    celsius: tuple[float, ...] = ()


@dataclass(frozen=True)
class Accuracy:
    """A metric of the task on ``n`` samples of the test split that were run on a device.

    Attributes:
        metric: Its name, such as ``top1``.
        n: Number of samples.
        value: Its value on the device.
        host: The host's on the same samples; None where it is not known.
    """

    metric: str
    n: int
    value: float
    host: float | None = None


@dataclass(frozen=True)
class ProfileRecord:
    """One artifact on one device.

    Attributes:
        blocks: Median of each block, in the order they ran.
        images: How many test images were timed in turn; 0 where random values were.
        agent: What measured: ``python`` or ``benchmark_model``.
        cores: Cores it was pinned to; empty where it was not.
        states: The device around each block.
        attempts: Measurements before this one that were not trusted.
        reference_ms: Pace of the reference workload during the session (median), beside which days can be compared.
        reference: What that workload is; paces are compared only where it is the same.
        warmup_runs: Inferences of the warm-up.
        warmup_steady: Whether the times had become steady when it ended; None where that was not looked at.
        governor: Frequency governor of the first core.
        inputs: Digest of what was fed; ``random`` for random values.
        outputs: Correctness on the device, by reference.
        path: The parts of the whole path.
    """

    model: str
    device: str
    emulated: bool
    effective: Effective
    load_ms: LoadTime
    first_ms: float
    warmup_ms: float
    latency_ms: Latency
    memory: Memory
    trust: Trust
    blocks: tuple[float, ...]
    samples: str = ""
    images: int = 0
    agent: str = "python"
    cores: tuple[int, ...] = ()
    states: tuple[BlockState, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    reference_ms: float | None = None
    reference: str = ""
    warmup_runs: int | None = None
    warmup_steady: bool | None = None
    governor: str = ""
    inputs: str = ""
    outputs: tuple[Outputs, ...] = ()
    accuracy: Accuracy | None = None
    operations: Operations | None = None
    path: tuple[Part, ...] = ()
    sustained: Sustained | None = None
    energy: Energy | None = None


@dataclass(frozen=True)
class Comparison:
    """An artifact beside another measurement on the same device.

    Attributes:
        model: The artifact in question.
        before: The one that it is compared with, by the name it had there.
        way: ``one session``: both were measured in turns. ``two sessions``: an earlier run's figures.
        verdict: ``refused`` where device state, runtime, threads, cores or inputs differ.
        ratio: Its time over the other's; None where refused.
        low: Lower end of the 99 % interval of the ratio.
        high: Upper end.
        scaled: The ratio is scaled by the pace of the reference workload in both sessions.
        reasons: Why it was refused, or what is doubtful of the times themselves.
    """

    model: str
    before: str
    device: str
    way: Literal["one session", "two sessions"]
    verdict: Literal["faster", "slower", "no difference shown", "refused"]
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    scaled: bool = False
    reasons: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class RuntimeFound:
    """A runtime on a device, after a real inference in a process of its own.

    Attributes:
        format: Name of the runtime, such as ``onnx``.
        package: Distribution, such as ``tflite-runtime``.
        version: Its version.
        python: The interpreter that has it; empty for ``benchmark_model``.
        works: Whether the inference gave the right output; of ``benchmark_model``, which gives none, whether it ran.
        problem: Why not.
        fix: What to do about it.
        module: What Python calls the package, such as ``tflite_runtime``.
    """

    format: str
    package: str
    version: str = ""
    python: str = ""
    works: bool = True
    problem: str = ""
    fix: str = ""
    module: str = ""


@dataclass(frozen=True)
class Failure:
    """A file that could not be measured on a device, and why."""

    model: str
    device: str
    reason: str


@dataclass(frozen=True)
class DeviceRecord:
    """A device as it was found; what could not be read is empty or None.

    Attributes:
        name: Of its file.
        answered: Whether it did; if not, ``problems`` says why.
        model: Board or phone, as it calls itself.
        os: Name and version of the operating system.
        cores: Clock limit in MHz of each core; 0 where it cannot be read.
        governor: Frequency governor.
        celsius: Temperature when it was asked.
        throttled: Throttling flags in words, now and since boot.
        memory_mib: All of its memory.
        available_mib: What of it was free to use.
        disk_mib: Free in the folder that edgekd uses.
        python: Version of the first interpreter.
        numpy: Version of numpy in it.
        clock_ns: Resolution of the clock that times.
        problems: What stands in the way of measuring, each with what to do.
        traps: Known faults of this device with its runtimes, which edgekd works round.
        notes: Remarks that are in nobody's way.
        more: Further facts by name: load, frequency driver.
    """

    name: str
    description: str
    transport: str
    emulated: bool
    answered: bool = True
    model: str = ""
    arch: str = ""
    isa: tuple[str, ...] = ()
    os: str = ""
    kernel: str = ""
    cores: tuple[int, ...] = ()
    governor: str = ""
    celsius: float | None = None
    throttled: tuple[str, ...] = ()
    memory_mib: float | None = None
    available_mib: float | None = None
    disk_mib: float | None = None
    python: str = ""
    numpy: str = ""
    clock_ns: float | None = None
    runtimes: tuple[RuntimeFound, ...] = ()
    problems: tuple[str, ...] = ()
    traps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    more: Mapping[str, str] = field(default_factory=dict)
