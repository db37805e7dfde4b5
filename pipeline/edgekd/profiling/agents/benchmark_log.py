"""The output of TensorFlow Lite's ``benchmark_model``, as its versions since 2020 print it.

Lines begin with ``INFO: `` in newer versions and with nothing in older ones. Times there are microseconds, here
milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgekd.errors import DeviceError
from edgekd.results.profile import Operation

_NAMES = {"TfLiteXNNPackDelegate": "XNNPACK", "TfLiteGpuDelegateV2": "GPU", "TfLiteNnapiDelegate": "NNAPI"}
_STAT = re.compile(r"^(?:INFO: )?count=(\d+)(?= )(.*)$", re.MULTILINE)
_TIMINGS = re.compile(r"Inference timings in us: Init: (\S+), First inference: (\S+), Warmup \(avg\): (\S+),")
_FOOTPRINT = re.compile(r"footprint (?:delta from the start of the tool )?\(MB\): init=(\S+) overall=(\S+)")
_PEAK = re.compile(r"Overall peak memory footprint \(MB\) via periodic monitoring: (\S+)")
_REPLACED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((.*?)\) node")
_APPLIED = re.compile(r"Explicitly applied (\S+) delegate, and the model graph will be (completely|partially)")
_REFUSED = re.compile(r"Though (\S+) delegate is explicitly applied, the model graph will not be")
_THREADS = re.compile(r"#threads used for CPU inference: \[(-?\d+)\]")
_UNKNOWN = re.compile(r"Unconsumed cmdline flags: (.+)")
_ERROR = re.compile(r"^(?:ERROR|FATAL): (.+)$", re.MULTILINE)
_LEGEND = re.compile(r"node type, (?:start, )?first, avg_ms, %, cdf%, mem KB, times called, name")
_ROW = re.compile(r"(.+?), (?:N, )?N, (N), N%, N%, N, (N), (.+)".replace("N", r"[\d.e+-]+"))
_REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:"


@dataclass(frozen=True)
class Times:
    """Milliseconds over ``n`` inferences; the median is None in versions that do not print it."""

    n: int
    mean: float
    min: float
    median: float | None


@dataclass(frozen=True)
class Log:
    """Figures in the log of one run of the program.

    Attributes:
        load_ms: Load and initialization.
        first_ms: First inference.
        warmup: Inferences before the measured ones.
        times: The measured ones.
        added_mib: Resident set that was added since the program's start.
        peak_mib: Peak resident set; None where it was not asked for.
        threads: Threads for what runs on the CPU.
        delegates: What took operations, as ``Delegate`` has it; None where the program tells of none.
        refused: Delegates that were asked for and took nothing.
    """

    load_ms: float
    first_ms: float
    warmup: Times
    times: Times
    added_mib: float | None
    peak_mib: float | None
    threads: int | None
    delegates: list[dict[str, Any]] | None
    refused: tuple[str, ...]


def read(text: str) -> Log:
    """Read the output of a run that ended well.

    Raises:
        DeviceError: It is not what benchmark_model prints.
    """
    timings, stats = _TIMINGS.search(text), [_times(match) for match in _STAT.finditer(text)]
    if timings is None or len(stats) != 2:
        raise DeviceError(
            f"its output is not that of benchmark_model: {_beginning(text)}",
            "benchmark_model: in the device's file must name TensorFlow Lite's program for this phone",
        )
    added, peak, threads = _FOOTPRINT.search(text), _PEAK.search(text), _THREADS.search(text)
    return Log(
        load_ms=float(timings[1]) / 1000,
        first_ms=float(timings[2]) / 1000,
        warmup=stats[0],
        times=stats[1],
        added_mib=float(added[2]) if added else None,
        peak_mib=float(peak[1]) if peak else None,
        threads=int(threads[1]) if threads and int(threads[1]) > 0 else None,
        delegates=_delegates(text) or None,
        refused=tuple(match[1] for match in _REFUSED.finditer(text)),
    )


def unknown(text: str) -> str:
    """Options that the program did not know; empty if it knew all."""
    match = _UNKNOWN.search(text)
    return match[1].strip() if match else ""


def errors(text: str) -> str:
    """Return the program's error messages, else its last words."""
    found = [line for line in _ERROR.findall(text) if line != "Benchmarking failed."]
    return "; ".join(found)[:300] or text.strip().rpartition("\n")[2][:300] or "it printed nothing"


def operations(text: str) -> list[Operation]:
    """Read the table of operations, in the order they run, of a CSV file of ``--enable_op_profiling``.

    Raises:
        DeviceError: There is no such table.
    """
    _, _, table = text.partition(_REGULAR)
    legend = _LEGEND.search(table)
    if legend is None:
        raise DeviceError(f"its table of operations cannot be read: {_beginning(text)}")
    found = []
    for line in table[legend.end() :].strip().splitlines():
        row = _ROW.fullmatch(line)
        if row is None:
            break
        kind, ms, calls, name = row.groups()
        inside = name.removeprefix("Delegate/")
        where = "delegate" if inside != name else ""
        title = re.sub(r"^\[(.*)\](:\d+)$", r"\1\2", inside)
        found.append(Operation(title, kind, float(ms) * max(1.0, float(calls)), where=where))
    return found


def _times(match: re.Match[str]) -> Times:
    values = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.e+-]+)", match[2])}
    same = values.get("curr", 0.0)  # the only one, or all the same
    median = values.get("median", same if "avg" not in values else None)
    return Times(
        int(match[1]), values.get("avg", same) / 1000, values.get("min", same) / 1000,
        None if median is None else median / 1000,
    )  # fmt: skip


def _delegates(text: str) -> list[dict[str, Any]]:
    found = [
        {"name": _NAMES.get(match[3], match[3]), "taken": int(match[1]), "of": int(match[2])}
        for match in _REPLACED.finditer(text)
    ]
    if not found:
        found = [{"name": match[1], "whole": match[2] == "completely"} for match in _APPLIED.finditer(text)]
        if "Created TensorFlow Lite XNNPACK delegate for CPU" in text:
            found.append({"name": "XNNPACK"})
    return [one for at, one in enumerate(found) if one not in found[:at]]


def _beginning(text: str) -> str:
    return repr(text.strip()[:120]) if text.strip() else "it printed nothing"
