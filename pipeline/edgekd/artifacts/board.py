"""Measure the model files of this folder on this board, without a network: ``python3 profile.py``.

It needs Python 3.8 or later, numpy and a runtime: onnxruntime, ai-edge-litert (or tflite-runtime), openvino. It prints the
figures and writes edgekd-result.json. Copy that file to a machine with edgekd: ``edgekd report edgekd-result.json`` there
makes the report.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import importlib
import json
import os
import selectors
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
START_S, ANSWER_S, LOOK_S, PROBE_S, IMAGE_S = 300.0, 60.0, 300.0, 120.0, 10.0
"""Seconds that loading, an answer, a look at outputs, the trial of a runtime and an image may take."""
WARM_UP_S = 10.0
"""Seconds after which a warm-up ends although the times are not steady."""
SCHEMA = 2
"""Version of the plan and of the result."""
CHANGED = "missing, or changed since edgekd packed it; copy the pack here again"
REFERENCE = "reference workload"
REFERENCE_WORK = {"runs": 5, "ms": 20}
MOST_BYTES = 8 << 20
"""Outputs of a model that are larger stay on the board."""


class MeasuringError(Exception):
    """A file cannot be measured; the text says why."""


class PackError(Exception):
    """The pack or the command line is wrong: nothing can be measured; the text says why."""


def sha256(path: Path) -> str:
    """Return the hash of a file; ``missing`` where it cannot be read."""
    whole = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                whole.update(piece)
    except OSError:
        return "missing"
    return whole.hexdigest()


def read(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the plan and hash every file of the pack; only model files may be other files than were packed.

    plan.sha256 has the hash of the plan, and the plan those of all other files, so that a change of any is found.

    Args:
        folder: The pack.

    Returns:
        The plan, and the hashes of now by the names of the files.

    Raises:
        PackError: Something else is missing or changed.
    """
    try:
        packed = (folder / "plan.sha256").read_text(encoding="utf-8").partition(" ")[0]
    except (OSError, ValueError):
        packed = ""
    if sha256(folder / "plan.json") != packed:
        raise PackError(f"plan.json: {CHANGED}")
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    now = {name: sha256(folder / name) for name in plan["sha256"]}
    models = {part for file in plan["files"] for part in file["parts"]}
    wrong = sorted(name for name in now if name not in models and now[name] != plan["sha256"][name])
    if wrong:
        raise PackError(f"{', '.join(wrong)}: {CHANGED}")
    return plan, now


class Agent:
    """A running agent: one question, one answer.

    Args:
        program: The agent's file.
    """

    def __init__(self, program: Path) -> None:
        self.noise = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the agent
        self.process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.noise,
            start_new_session=True,  # Ctrl-C is for this program alone, which ends it
        )  # fmt: skip
        self.ready = selectors.DefaultSelector()
        self.ready.register(self.process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        self.rest = b""

    def ask(self, command: str, limit: float, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self.process.stdin  # opened as a pipe
        try:
            self.process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise MeasuringError(self.death(command)) from None
        answer: dict[str, Any] = json.loads(self.line(command, limit))
        if "error" in answer:
            who = "" if answer.get("unfit") else f"the runtime refused ({command}): "
            raise MeasuringError(f"{who}{answer['error']}")
        return answer

    def line(self, command: str, limit: float) -> bytes:
        """The next line of its answers."""
        assert self.process.stdout  # opened as a pipe
        end = time.monotonic() + limit
        while b"\n" not in self.rest:
            if not self.ready.select(max(0.0, end - time.monotonic())):
                self.process.kill()
                raise MeasuringError(f"no answer within {limit:.0f} s ({command})")
            piece = os.read(self.process.stdout.fileno(), 1 << 16)
            if not piece:
                raise MeasuringError(self.death(command))
            self.rest += piece
        line, self.rest = self.rest.split(b"\n", 1)
        return line

    def death(self, command: str) -> str:
        """Return the reason why it ended, in words."""
        code = self.process.wait(5)
        if code < 0:
            return f"the runtime died with {signal.Signals(-code).name} ({command})"
        self.noise.seek(0)
        lines = self.noise.read().decode(errors="replace").strip().splitlines()
        return f"the agent ended with code {code} ({command}): {lines[-1][:300] if lines else ''}"

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


class Run:
    """A file while it is measured, and all answers about it."""

    def __init__(self, file: dict[str, Any], agent: Agent) -> None:
        self.file, self.agent = file, agent
        self.model = file["record"]["name"]
        self.answers: dict[str, Any] = {"start": {}, "warmup": {}, "blocks": [], "rounds": [], "end": {}, "looks": {}}


class Board:
    """The measuring: all files in turns, block by block, as edgekd does it over a network.

    Args:
        plan: What edgekd has packed.
        now: Hashes of its files, by their names.
        program: The agent's file.
    """

    def __init__(self, plan: dict[str, Any], now: dict[str, str], program: Path) -> None:
        self.plan, self.now, self.program = plan, now, program
        self.agents: list[Agent] = []
        self.live: list[Run] = []
        self.done: list[Run] = []
        self.reference: Any = None
        self.failures: dict[str, str] = {}
        self.packages: dict[str, str] = {}

    def measure(self) -> dict[str, Any]:
        """Measure everything; returns the answers."""
        facts, runtimes = self.look_around()
        for file in self.plan["files"]:
            changed = [part for part in file["parts"] if self.now[part] != self.plan["sha256"][part]]
            if changed:
                self.failures[file["record"]["name"]] = f"{' and '.join(changed)}: {CHANGED}"
            else:
                self.live.append(Run(file, self.agent()))
        self.reference = Run({"record": {"name": REFERENCE}}, self.agent())
        self.each("load", lambda run: run.answers.update(start=self.start(run, run.agent)))
        self.each("warm up", self.warm_up)
        self.state = before = self.reference.agent.ask("state", ANSWER_S) if self.reference else {}
        for turn in range(self.plan["protocol"]["blocks"]):
            self.each(f"block {turn + 1}", self.block, turn)
        self.each("read", self.finish)
        self.done = list(self.live)
        for run in self.done:
            self.look(run)
        return {
            "facts": facts, "runtimes": runtimes, "before": before, "after": self.state, "failures": self.failures,
            "reference": self.reference.answers if self.reference else None, "python": sys.executable,
            "models": {run.model: run.answers for run in self.done}, "at": time.time(),
            "sha256": {run.model: [self.now[part] for part in run.file["parts"]] for run in self.done},
        }  # fmt: skip

    def agent(self) -> Agent:
        """Start an agent."""
        self.agents.append(Agent(self.program))
        return self.agents[-1]

    def close(self) -> None:
        """End all agents."""
        for agent in self.agents:
            agent.close()

    def look_around(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Describe the board and its runtimes."""
        agent = self.agent()
        formats = sorted({file["format"] for file in self.plan["files"]})
        limit = ANSWER_S + 2 * len(formats) * PROBE_S
        try:
            facts = agent.ask("facts", ANSWER_S)
            rows = agent.ask("runtimes", limit, formats=formats, infer=True, thorough=False, limit_s=PROBE_S)["runtimes"]
        finally:
            agent.close()
        for row in rows:
            if row.get("works", True):
                self.packages.setdefault(row["format"], row["module"])
        return facts, list(rows)

    def each(self, what: str, work: Any, shift: int = 0) -> None:
        """Do something for every file and the reference workload, beginning with number ``shift``."""
        runs = [*self.live, *([self.reference] if self.reference else [])]
        start = shift % max(1, len(runs))
        for run in runs[start:] + runs[:start]:
            print(f"  {what}: {run.model}", file=sys.stderr)
            try:
                work(run)
            except MeasuringError as error:
                run.agent.close()
                if run is self.reference:
                    self.reference = None
                    continue
                self.live.remove(run)
                self.failures[run.model] = str(error)

    def start(self, run: Run, agent: Agent) -> dict[str, Any]:
        """Load a model."""
        cores = {"cores": self.plan["cores"]} if self.plan["cores"] else {}
        if run is self.reference:
            return agent.ask("start", START_S, runtime="reference", path="", threads=1, **cores)
        file = run.file
        if file["format"] not in self.packages:
            raise MeasuringError(f"no runtime for {file['format']} works here")
        inputs = {**file["shapes"], **{name: str(HERE / path) for name, path in file["inputs"].items()}}
        return agent.ask(
            "start", START_S, runtime=file["format"], path=str(HERE / file["path"]), threads=self.plan["threads"],
            inputs=inputs or None, package=self.packages[file["format"]], **cores,
        )  # fmt: skip

    def warm_up(self, run: Run) -> None:
        """Run until the times are steady."""
        least = self.least(run, "warmup")
        limit = self.limit(run, least) + WARM_UP_S
        run.answers["warmup"] = run.agent.ask("warmup", limit, limit_ms=WARM_UP_S * 1000, **least)

    def block(self, run: Run) -> None:
        """Time one block."""
        least = self.least(run, "block")
        answer = run.agent.ask("block", self.limit(run, least), **least)
        after = answer["state"]
        run.answers["blocks"].append(answer)
        run.answers["rounds"].append([self.state, after])
        self.state = after

    def least(self, run: Run, what: str) -> dict[str, Any]:
        """Inferences and milliseconds at the least."""
        protocol = self.plan["protocol"]
        return REFERENCE_WORK if run is self.reference else {"runs": protocol[f"{what}_runs"], "ms": protocol[f"{what}_ms"]}

    def limit(self, run: Run, least: dict[str, Any]) -> float:
        """Seconds to wait for inferences: ten times what the first one, the slowest, lets expect."""
        first = float(run.answers["start"]["first_ms"])
        return ANSWER_S + 10 * max(float(least["ms"]), float(least["runs"]) * first) / 1000

    def finish(self, run: Run) -> None:
        """Read memory and settings, and end the agent."""
        if run is not self.reference:
            run.answers["end"] = {**run.agent.ask("memory", ANSWER_S), **run.agent.ask("effective", ANSWER_S)}
        run.agent.close()

    def look(self, run: Run) -> None:
        """Outputs, the whole path, the classes of images, single operations: by an agent of their own."""
        given = {**self.plan["preprocessing"], "layout": run.file["layout"]} if self.plan["preprocessing"] else None
        images = [str(HERE / path) for path in self.plan["encoded"]]
        print(f"  look into: {run.model}", file=sys.stderr)
        agent = self.agent()
        asked: list[tuple[str, float, dict[str, Any]]] = [("outputs", LOOK_S, {"into": "outputs.npz"})]
        if given and run.file["layout"]:
            protocol = self.plan["protocol"]
            ms = protocol["blocks"] * protocol["block_ms"]
            asked += [("whole", LOOK_S, {"files": images, "given": given, "ms": ms})] if images else []
            limit = LOOK_S + IMAGE_S * self.plan["counted"]
            split = {"images": str(HERE / str(self.plan["images"])), "given": given}
            asked += [("answers", limit, split)] if self.plan["images"] else []
        asked.append(("operations", LOOK_S, {}))
        try:
            self.start(run, agent)
            for command, limit, arguments in asked:
                answer = agent.ask(command, limit, **arguments)
                if command == "outputs":
                    content = Path(answer["path"]).read_bytes()
                    answer["content"] = base64.b64encode(content).decode() if len(content) <= MOST_BYTES else None
                run.answers["looks"][command] = answer
        except MeasuringError as error:
            run.answers["looks"]["failed"] = str(error)
        finally:
            agent.close()


@contextlib.contextmanager
def held(program: Path) -> Iterator[None]:
    """Hold the board's lock, as edgekd does over a network: two sessions at once would spoil both.

    Args:
        program: The agent's file, which has the lock in it.

    Raises:
        MeasuringError: Another session has it.
    """
    sys.path.insert(0, str(program))
    keeper = importlib.import_module("edgekd_agent.keeper")
    try:
        handle, holder = keeper.lock(f"profile.py of a pack (process {os.getpid()}) since {time.strftime('%Y-%m-%d %H:%M')}")
    except OSError as error:
        raise MeasuringError(f"{keeper.LOCK} cannot be locked: {error.strerror}") from None
    if handle < 0:
        raise MeasuringError(f"this board is in use by {holder}; run again when that session has ended")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            keeper.LOCK.unlink()  # before it is let go
        os.close(handle)


def table(answers: dict[str, Any]) -> list[str]:
    """The figures as lines."""
    width = max([len(name) for name in answers["models"]] + [4])
    lines = [f"{'file':<{width}}  {'p50 ms':>9}  {'p90 ms':>9}  {'cold ms':>9}  {'peak MiB':>9}  runtime"]
    for name, found in answers["models"].items():
        times = sorted(ms for block in found["blocks"] for ms in block["samples"])
        p50, p90 = statistics.median(times), times[min(len(times) - 1, int(0.9 * len(times)))]
        start, end = found["start"], found["end"]
        known = (p50, p90, start["cold_ms"], end["peak_mib"])
        figures = "  ".join(f"{'-' if value is None else format(value, '.3f'):>9}" for value in known)
        lines.append(f"{name:<{width}}  {figures}  {start['runtime']}")
    return lines + [f"{name}: not measured: {reason}" for name, reason in answers["failures"].items()]


def measured(plan: dict[str, Any], now: dict[str, str]) -> dict[str, Any]:
    """Measure, and leave no agent and no file behind."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "agent.pyz"
        shutil.copyfile(HERE / "agent.pyz", program)
        board = Board(plan, now, program)
        with held(program), contextlib.closing(board):
            return board.measure()


def lean(plan: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    """Return the plan without the expected outputs of files whose outputs are not here to be compared."""
    found = {name: one["looks"].get("outputs", {}).get("content") for name, one in answers["models"].items()}
    nothing = {"host": None, "torch": None}
    return {**plan, "files": [file if found.get(file["record"]["name"]) else {**file, **nothing} for file in plan["files"]]}


def write(out: Path, mode: str, text: str = "") -> None:
    """Open the file of the result and write into it."""
    try:
        with out.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise PackError(f"--out {out} cannot be written: {error.strerror}; choose another file") from error


def run(out: Path, name: str, emulated: bool) -> int:
    """Measure, print and write the result."""
    plan, now = read(HERE)
    is_new = not out.exists()
    write(out, "a")  # it is known before the measurement that its result can be kept
    try:
        answers = measured(plan, now)
        answers["board"] = {"name": name, "emulated": emulated}
        print("\n".join(table(answers)))
        write(out, "w", json.dumps({"edgekd_pack": SCHEMA, "plan": lean(plan, answers), "answers": answers}))
        is_new = False
    finally:
        if is_new:
            out.unlink()
    print(f"\nThe report says whether these figures can be trusted: edgekd report {out}")
    return 4 if answers["failures"] else 0


def interrupt(number: int, frame: Any) -> None:
    """End everything, once."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Measure as the command line says; every error becomes words and its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", default="edgekd-result.json", help="file of the result (default: %(default)s)")
    parser.add_argument("--name", default="", help="name of this board in the report")
    parser.add_argument("--emulated", action="store_true", help="this board is emulated: its times are stamped so")
    options = parser.parse_args()
    if options.name == "host":
        parser.error("--name host: host is the machine that makes the report; choose another name, such as pi4")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)
    try:
        return run(Path(options.out), options.name, options.emulated)
    except PackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (MeasuringError, OSError) as error:
        print(f"error: nothing was measured: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        print("error: interrupted: there is no result; the same command measures all again", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
