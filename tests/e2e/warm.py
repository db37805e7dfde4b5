"""Runs edgekd in fresh processes that need not import torch: each is forked from one that has, and does nothing else.

A process of its own keeps what a test must see: exit code, both streams as they are, and no state of another run. Only the
seconds that torch and the converters take to import are spent once.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from edgekd.cli import main


class Server:
    """The process that the others are forked from."""

    def __init__(self) -> None:
        # Read while torch is loaded; edgekd sets them for a process that starts without torch.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", **os.environ}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(
        self, args: Sequence[str], cwd: Path, environment: Mapping[str, str], output: Path, program: str = "edgekd"
    ) -> tuple[int, str, str]:
        """Run ``edgekd ARGS``, ``pytest ARGS`` or ``python -c ARGS``; exit code, standard output and standard error."""
        assert self._process.stdin
        assert self._process.stdout
        given = {"args": args, "cwd": str(cwd), "environment": dict(environment), "output": str(output)}
        request = {**given, "program": program}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that the others are forked from has died"
        return int(answer), *((output / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))  # type: ignore[return-value]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


_servers: list[Server] = []


def server() -> Server:
    """The process that all tests share."""
    if not _servers:
        _servers.append(Server())
    return _servers[0]


def ran(
    args: Sequence[str], cwd: Path, environment: Mapping[str, str], program: str = "edgekd"
) -> subprocess.CompletedProcess[str]:
    """Run ``edgekd ARGS``, ``pytest ARGS`` or ``python -c ARGS`` in a process that is forked from the one that all share."""
    with tempfile.TemporaryDirectory() as output:
        found = server().run(args, cwd, environment, Path(output), program)
    return subprocess.CompletedProcess([program, *args], *found)


def close() -> None:
    """End the process that the others were forked from, if there is one."""
    while _servers:
        _servers.pop().close()


def _load() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.hurried import hurry

    del sys.path[0]
    import ai_edge_quantizer  # noqa: F401
    import lightning_fabric  # noqa: F401
    import litert_torch  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    from tqdm import tqdm

    import edgekd.engine.runner
    import edgekd.report.layouts.terminal  # noqa: F401
    from edgekd.exporting.exporter import Options, Source
    from edgekd.exporting.formats.onnx import OnnxExporter
    from edgekd.models.torchvision import import_torchvision
    from edgekd.quantization import qat  # noqa: F401
    from edgekd.quantization.fold import fold
    from edgekd.runtimes import onnxruntime, openvino

    hurry()
    tqdm.monitor_interval = 0  # no thread: a fork has one, and what others hold would be locked for ever
    import_torchvision()
    onnxruntime.imported()
    openvino.imported()
    image = torch.zeros(1, 3, 8, 8)
    network = fold(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 8), torch.nn.Flatten()).eval(), image)
    with tempfile.TemporaryDirectory() as folder:  # torch imports half of itself on its first export
        OnnxExporter().export(Source(network, image), Path(folder) / "first.onnx", Options("float32"))


def _find_wheels() -> None:
    """Look where PYTHONPATH says, as a Python does that starts with it."""
    sys.path[1:1] = [
        folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder not in {"", *sys.path}
    ]
    importlib.invalidate_caches()


def _run(program: str, args: list[str]) -> None:
    if program == "pytest":
        import pytest

        sys.exit(pytest.main(args))
    if program == "python":
        sys.argv = ["-c", *args[1:]]
        exec(compile(args[0], "<string>", "exec"), {"__name__": "__main__"})
        sys.exit(0)
    main(args)


def _serve(answers: TextIO) -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            answers.close()
            request = json.loads(line)
            break
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
    else:
        return
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    _find_wheels()
    for number, name in ((1, "stdout"), (2, "stderr")):
        with (Path(request["output"]) / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    code = 1
    try:
        _run(request["program"], request["args"])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # to take torch down module by module costs more than many a command


if __name__ == "__main__":  # a spawned training process imports this file under another name
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    _load()
    gc.freeze()  # a collection in a child would copy every page
    gc.set_threshold(20_000, 20, 100)
    _serve(own)
