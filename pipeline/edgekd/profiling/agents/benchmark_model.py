"""TensorFlow Lite's own ``benchmark_model`` as an agent, for phones without Python.

The user gives the program; it is pushed and runs once for every block. It gives no single times: no p90 and no p99. Every
figure is from a process of its own, which warms up first. It has one row of the inputs, or the program's own random values
where none are given. Newer programs write the outputs of their last inference: they run once more for every row.
"""

from __future__ import annotations

import hashlib
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn

from numpy.typing import NDArray

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError
from edgekd.profiling.agents import benchmark_log, phone, raw_tensors
from edgekd.profiling.agents.raw_tensors import RawTensors, RawTensorsError
from edgekd.profiling.on_device import looking
from edgekd.profiling.transports.base import Transport
from edgekd.reads import file_sha256

if TYPE_CHECKING:
    from edgekd.profiling.variant import Variant

OURS = (
    "graph", "num_threads", "num_runs", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs", "enable_op_profiling",
    "profiling_output_csv_file", "report_peak_memory_footprint", "input_layer", "input_layer_shape",
    "input_layer_value_files", "input_layer_value_range", "output_filepath",
)  # fmt: skip
"""Options that edgekd sets itself."""
ONCE = {"warmup_runs": 1, "warmup_min_secs": 0, "num_runs": 1, "min_secs": 0}
"""Options of the shortest run: one inference after one to warm up, without which older programs print no times."""
LACKS = {"input_layer_value_files": "takes no values of inputs", "output_filepath": "writes no outputs"}
"""Options that older programs do not have, and what these programs then do not do."""
SLACK_S = 30.0
"""Seconds of an answer's time that are left for loading; the measuring ends by itself before."""
# $@ the program. Its cores and its CPU time come back on stdout.
_RUN = 'grep Cpus_allowed_list /proc/self/status; "$@"; c=$?; echo; times; exit $c'
_NOT_STARTED = (126, 127)
"""Exit codes of a shell that could not start a program."""


class BenchmarkAgents:
    """Starts ``benchmark_model`` on a phone.

    Args:
        device: The phone; ``benchmark_model`` is the program here, ``benchmark_options`` are options of it.
        way: The open way to it.
    """

    name = "benchmark_model"

    def __init__(self, device: Device, way: Transport) -> None:
        self._device, self._way = device, way
        self._sent: dict[bytes, str] = {}

    @cached_property
    def local(self) -> Path:
        """The program here.

        Raises:
            DeviceError: There is none.
        """
        assert self._device.benchmark_model is not None  # the schema refuses this agent without a program
        path = Path(self._device.benchmark_model).expanduser()
        if not path.is_file():
            raise DeviceError(
                f"there is no benchmark_model: {path} is not a file",
                "build or download TensorFlow Lite's benchmark_model for the phone (android_aarch64) and write its path as "
                f"benchmark_model: into devices/{self._device.name}.yaml",
            )
        return path

    @cached_property
    def _program(self) -> str:
        """Path of the program on the phone."""
        remote = self._way.put(self.local)
        self._way.run(["chmod", "755", remote], timeout=phone.ANSWER_S)
        return remote

    def start(self, variant: Variant, label: str) -> BenchmarkAgent:
        """Start an agent for one model file.

        Raises:
            DeviceError: There is no program, or the phone does not answer.
        """
        taken = sorted(set(self._device.benchmark_options) & set(OURS))
        if taken:
            raise DeviceError(
                f"{label}: benchmark_options: {', '.join(taken)} is set by edgekd",
                f"take it out of devices/{self._device.name}.yaml; threads and cores are keys of their own, and inputs "
                "are given with --input and --shape",
            )
        try:
            version = f"benchmark_model {file_sha256(self.local)}"
            return BenchmarkAgent(self._way, self._program, version, label, self._device, variant, self._send)
        except DeviceError as error:
            raise error.labelled(label) from error

    def _send(self, data: bytes) -> str:
        """Make a file on the phone and return its path; the same bytes are sent once."""
        key = hashlib.sha256(data).digest()
        if key not in self._sent:
            self._sent[key] = self._way.write(f"values{len(self._sent)}.bin", data)
        return self._sent[key]


class BenchmarkAgent:
    """The program with one model file.

    Args:
        way: The way to the phone.
        program: The program there.
        version: What tells it from others.
        label: What it is for, in messages.
        device: The phone.
        variant: The model file on this machine, and its inputs.
        send: Makes a file on the phone and returns its path.
    """

    def __init__(
        self,
        way: Transport,
        program: str,
        version: str,
        label: str,
        device: Device,
        variant: Variant,
        send: Callable[[bytes], str],
    ) -> None:
        self.label, self._way, self._program, self._version, self._device = label, way, program, version, device
        self._variant, self._send = variant, send
        self._unfed = ""  # why the inputs that are given are not fed
        self._feeds = self._turn = 0  # rows that are fed; blocks so far
        self._spent_s = 0.0
        self._allowed: list[int] = []
        self._last: benchmark_log.Log | None = None
        self._warmup: dict[str, float] = {}

    def ask(self, command: str, timeout: float, **arguments: Any) -> Mapping[str, Any]:
        """Answer a command as edgekd's own program does; what cannot be known is None."""
        commands: dict[str, Callable[..., Mapping[str, Any]]] = {
            "start": self._start, "warmup": self._warm_up, "block": self._block, "state": self._state,
            "memory": self._memory, "effective": self._effective, "operations": self._operations, "window": self._window,
            "outputs": self._outputs, "whole": self._whole, "answers": self._answers,
        }  # fmt: skip
        if command not in commands:
            raise DeviceError(f"{self.label}: benchmark_model gives no {command}")
        try:
            return commands[command](timeout, **arguments)
        except DeviceError as error:
            raise error.labelled(self.label) from error

    def close(self, *, grace: float = 0.0) -> None:
        """Do nothing: every process has ended with its answer."""

    def _start(
        self, timeout: float, runtime: str, path: str, threads: int, inputs: Any = None, cores: Sequence[int] = (), **_: Any
    ) -> dict[str, Any]:
        """Load the model and run it once."""
        self._path, self._threads, self._cores = path, threads, cores
        log = None
        if inputs is not None:
            try:
                log, self._feeds = self._ran(timeout, **self._feed(0), **ONCE), len(self._tensors.rows)
            except RawTensorsError as error:
                self._unfed = error.message
        log = log or self._ran(timeout, **ONCE)
        loads = {"cold_ms": None, "is_cold": False, "warm_ms": log.load_ms, "first_ms": log.first_ms}
        return {"agent": "benchmark_model", "runtime": self._version, "bare_mib": None, "feeds": self._feeds, **loads}

    @cached_property
    def _tensors(self) -> RawTensors:
        return raw_tensors.read(self._variant)

    def _feed(self, row: int) -> dict[str, str]:
        return self._tensors.options(row, self._send)

    def _warm_up(self, timeout: float, runs: int, ms: float, **_: Any) -> dict[str, Any]:
        """Warm up once; every block does it again, in its own process."""
        self._warmup, self._turn = {"warmup_runs": runs, "warmup_min_secs": ms / 1000}, 0
        log = self._timed(timeout, {**self._warmup, "num_runs": 1, "min_secs": 0})
        return {"runs": log.warmup.n, "ms": log.warmup.n * log.warmup.mean, "spent_s": self._spent_s}

    def _block(self, timeout: float, runs: int, ms: float) -> dict[str, Any]:
        """Measure at least ``runs`` inferences and ``ms`` milliseconds, of the next row: a process has one."""
        log = self._timed(timeout, {**self._warmup, "num_runs": runs, "min_secs": ms / 1000}, row=self._turn)
        self._turn += 1
        summary = {"n": log.times.n, "mean": log.times.mean, "min": log.times.min, "median": _median(log)}
        told = {"wall_ms": None, "cpu_ms": None, "threads": log.threads or self._threads}
        return {"samples": [], "summary": summary, "state": phone.state(self._way), "spent_s": self._spent_s, **told}

    def _window(self, timeout: float, ms: float) -> dict[str, Any]:
        """Run for ``ms`` milliseconds without a warm-up; between two windows the model is loaded anew."""
        log = self._timed(timeout, {**ONCE, "min_secs": ms / 1000})
        return {"median_ms": _median(log), "state": phone.state(self._way)}

    def _state(self, timeout: float) -> dict[str, Any]:
        return phone.state(self._way)

    def _memory(self, timeout: float) -> dict[str, Any]:
        """Peak resident set in a run of its own: asking for it disturbs the times."""
        log = self._timed(timeout, {"num_runs": 5, "min_secs": 0, "report_peak_memory_footprint": "true"})
        return {"peak_mib": log.peak_mib, "model_mib": log.added_mib, "allowed": self._allowed}

    def _effective(self, timeout: float) -> dict[str, Any]:
        """Return the threads and delegates that the program printed; it does not print its precision.

        ``feeds`` are the rows that were timed: there may be fewer blocks than rows.
        """
        log = self._last or self._timed(timeout, {"num_runs": 1, "min_secs": 0})
        notes = [f"{name} was asked for and took no operation of the model" for name in log.refused]
        if self._unfed:
            notes.append(f"it is timed with random values, not with the inputs given: {self._unfed}")
        feeds = min(self._turn, self._feeds)
        return {"threads": log.threads, "delegates": log.delegates, "ops": {}, "notes": notes, "feeds": feeds}

    def _outputs(self, timeout: float, into: str) -> dict[str, Any]:
        """Return the outputs for every row, from a process for each."""
        tensors, end = self._tensors, time.monotonic() + timeout
        tensors.check()
        rows = (self._output(row, end - time.monotonic()) for row in range(len(tensors.rows)))
        values, kinds, _ = looking.gathered(rows)
        return {"values": values, "kinds": kinds}

    def _output(self, row: int, timeout: float) -> dict[str, NDArray[Any]]:
        if timeout <= 0:
            raise DeviceError("the time for its outputs is over: it takes a process for each row of the inputs")
        remote = f"{self._path}.out"
        self._way.run(["rm", "-f", remote], timeout=phone.ANSWER_S)  # the program says nothing where it cannot write
        self._ran(timeout, **self._feed(row), **ONCE, output_filepath=remote)
        with TemporaryDirectory(prefix="edgekd-") as folder:
            file = Path(folder) / "outputs"
            self._way.get(remote, file)
            return self._tensors.split(file.read_bytes())

    def _whole(self, timeout: float, **_: Any) -> dict[str, Any]:
        return {"why": "benchmark_model runs only the network"}

    def _answers(self, timeout: float, **_: Any) -> NoReturn:
        raise DeviceError("benchmark_model takes one image a process, which is too slow for a test split")

    def _operations(self, timeout: float) -> dict[str, Any]:
        """Times of operations, in a run of its own."""
        remote = f"{self._path}.csv"
        options = {"enable_op_profiling": "true", "profiling_output_csv_file": remote}
        log = self._timed(timeout, {**self._warmup, "num_runs": 20, "min_secs": 0, **options})
        told = self._way.run(["cat", remote], timeout=phone.ANSWER_S).out.decode(errors="replace")
        rows = [
            {"name": found.name, "kind": found.kind, "ms": found.ms, "precision": "", "where": found.where}
            for found in benchmark_log.operations(told)
        ]
        middle = log.times.mean if log.times.median is None else log.times.median
        return {"operations": rows, "source": "benchmark_model", "times": [log.times.mean], "p50": middle}

    def _timed(self, timeout: float, options: Mapping[str, Any], row: int = 0) -> benchmark_log.Log:
        """Run with a row of the inputs, if they are fed, for figures of the model."""
        return self._ran(timeout, **options, **(self._feed(row) if self._feeds else {}))

    def _ran(self, timeout: float, **options: Any) -> benchmark_log.Log:
        """Run the program once and read what it prints."""
        given = {"graph": self._path, "num_threads": self._threads, "max_secs": max(1.0, timeout - SLACK_S), **options}
        flags = [f"--{name}={_text(value)}" for name, value in {**given, **self._device.benchmark_options}.items()]
        mask = sum(1 << core for core in self._cores)
        pinned = ["taskset", f"{mask:x}"] if mask else []
        argv = [*pinned, "sh", "-c", _RUN, "sh", self._program, *flags]
        done = self._way.run(argv, timeout=timeout, env=self._device.env or None)
        out, err = (part.decode(errors="replace") for part in (done.out, done.err))
        if done.code:
            self._failed(done.code, err or out)
        told = f"{out}\n{err}"
        if unknown := benchmark_log.unknown(told):
            for name, what in LACKS.items():
                if f"--{name}=" in unknown:
                    raise RawTensorsError(f"this benchmark_model {what}; take a newer one")
            raise DeviceError(
                f"this benchmark_model does not know {unknown}",
                f"take it out of benchmark_options in devices/{self._device.name}.yaml, or use a program that has it",
            )
        children = re.findall(r"(\d+)m([\d.]+)s", out)[-2:]  # user and system time, in the last line of `times`
        self._spent_s += sum(float(minutes) * 60 + float(seconds) for minutes, seconds in children)
        self._allowed = _cores(out)
        self._last = benchmark_log.read(told)
        return self._last

    def _failed(self, code: int, told: str) -> NoReturn:
        name = next((item.name for item in signal.Signals if item == code - 128), "")
        hint = "it must be built for this phone: android_aarch64 for most of today's" if code in _NOT_STARTED else ""
        how = f"died with {name}" if name else f"ended with code {code}"
        raise DeviceError(f"benchmark_model {how}: {benchmark_log.errors(told)}", hint)


def _median(log: benchmark_log.Log) -> float:
    if log.times.median is None:
        raise DeviceError(
            "this benchmark_model prints no median, only a mean", "take a newer one, such as LiteRT's of today"
        )
    if log.times.median == 0:
        raise DeviceError("an inference takes less than a microsecond, the unit of benchmark_model: it cannot time it")
    return log.times.median


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cores(told: str) -> list[int]:
    """Cores in a line such as ``Cpus_allowed_list: 0-3,6``."""
    match = re.search(r"Cpus_allowed_list:\s*([\d,-]+)", told)
    found: list[int] = []
    for part in match[1].split(",") if match else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
