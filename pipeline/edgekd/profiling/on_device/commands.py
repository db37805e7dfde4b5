"""The commands that the host gives, in the order of a session.

Modules that only some commands need are imported by them: what is not imported weighs nothing in the memory figures.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

from . import feeds
from .machine import cores as allowed_cores
from .machine import drop_from_cache, peak_mib, pin, state
from .reference import Reference
from .runtimes import create, files
from .timing import Timing, since


class Commands(Timing):
    """The commands; each returns what is sent back."""

    def facts(self) -> dict[str, Any]:
        """See :func:`facts`."""
        from .facts import facts

        return facts()

    def runtimes(self, formats: list[str], infer: bool, thorough: bool, limit_s: float) -> dict[str, Any]:
        """See :func:`probe.runtimes`."""
        from . import probe

        return {"runtimes": probe.runtimes(formats, infer, thorough, limit_s)}

    def start(
        self, runtime: str, path: str, threads: int, inputs: Any = None, cores: list[int] | None = None, package: str = ""
    ) -> dict[str, Any]:
        """Import the runtime, load the model cold, run it once, and load it again warm.

        Args:
            runtime: Format of the model, or ``reference``.
            path: The model file; empty for the reference workload.
            threads: Threads the runtime may use.
            inputs: See ``feeds``.
            cores: Cores to pin to before anything starts a thread.
            package: The runtime's; by default the first that is installed.
        """
        if cores:
            pin(cores)
        began = time.perf_counter_ns()
        import numpy.random  # noqa: F401  # makes the inputs: it belongs to the bare process, not to the model

        self.path = path
        self.runtime: Any = Reference(threads) if runtime == "reference" else create(runtime, threads, package)
        # Before memory is read: what is fed is not the model's.
        given = {name: feeds.read(part) for name, part in inputs.items()} if isinstance(inputs, dict) else feeds.read(inputs)
        imported, bare = since(began), peak_mib()
        dropped = drop_from_cache(files(runtime, Path(path))) if path else False
        began = time.perf_counter_ns()
        self.runtime.load(path)
        cold = since(began)
        self.feeds = feeds.feeds(given, self.runtime.inputs())
        first = self._first()
        self.runtime.unload()  # two models at once would double the peak
        gc.collect()
        began = time.perf_counter_ns()
        self.runtime.load(path)
        warm = since(began)
        self.runtime.fit(self.feeds[0])
        gc.disable()  # a collection in the middle of an inference is this script's doing, not the model's
        loads = {"import_ms": imported, "cold_ms": cold, "is_cold": dropped, "warm_ms": warm, "first_ms": first}
        return {"runtime": self.runtime.version, "bare_mib": bare, "feeds": len(self.feeds), **loads}

    def state(self) -> dict[str, Any]:
        """See :func:`state`."""
        return state()

    def power(self, ms: float) -> dict[str, Any]:
        """See :func:`meters.power`; no ``meter`` where there is none to read."""
        from . import meters

        meter = meters.find()
        return {"meter": ""} if meter is None else meters.power(meter, ms / 1000)

    def energy(self, ms: float) -> dict[str, Any]:
        """Run for so many milliseconds: joules, seconds and inferences."""
        from . import meters

        meter = meters.find()
        if meter is None:
            raise RuntimeError("the power meter is gone")
        meter.start()
        runs = len(self._repeat(1, ms))
        joules, seconds = meter.stop()
        return {"joules": joules, "seconds": seconds, "runs": runs}

    def window(self, ms: float) -> dict[str, Any]:
        """Run for so many milliseconds: the median time, and the state right after."""
        times = sorted(self._repeat(1, ms))
        return {"median_ms": times[len(times) // 2], "state": state()}

    def memory(self) -> dict[str, Any]:
        """Peak resident set so far, and the cores that its threads may run on."""
        return {"peak_mib": peak_mib(), "allowed": allowed_cores()}

    def effective(self) -> dict[str, Any]:
        """Return the settings that the runtime reports."""
        told: dict[str, Any] = self.runtime.effective(self.path, self.feeds[0])
        return told

    def outputs(self, into: str) -> dict[str, Any]:
        """See :func:`looking.outputs`, of the inputs that are timed; the file lies beside this program."""
        from . import looking

        return looking.outputs(self.runtime, self.feeds, str(Path(sys.argv[0]).resolve().parent / into))

    def operations(self) -> dict[str, Any]:
        """See :func:`looking.operations`."""
        from . import looking

        return looking.operations(self.runtime, self.path, self.feeds[0])

    def answers(self, images: str, given: dict[str, Any]) -> dict[str, Any]:
        """See :func:`looking.answers`."""
        from . import looking

        return looking.answers(self.runtime, images, given)

    def whole(self, files: list[str], given: dict[str, Any], ms: float) -> dict[str, Any]:
        """See :func:`looking.whole`."""
        from . import looking

        return looking.whole(self.runtime, files, given, ms)

    def _first(self) -> float:
        began = time.perf_counter_ns()
        self.runtime.fit(self.feeds[0])
        self._timed(0)
        return since(began)
