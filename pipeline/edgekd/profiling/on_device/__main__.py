"""Answer the host's commands until ``stop`` or the end of stdin."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from .commands import Commands
from .errors import UnfitError


def main() -> None:
    """Answer commands until ``stop`` or the end of stdin; with ``probe``, try one runtime and end."""
    # Idle OpenBLAS threads spin, and numpy's arithmetic is not what is measured; onnxruntime must not phone home.
    # CI: openvino reports home on import, unless it believes it is in continuous integration.
    os.environ.update(OPENBLAS_NUM_THREADS="1", ORT_DISABLE_TELEMETRY="1", CI="true")
    if "EDGEKD_SESSION" in os.environ:  # for the keeper, which removes what a runtime leaves in /tmp under this number
        (Path(os.environ["TMPDIR"]) / f"process-{os.getpid()}").touch()
    if sys.argv[1:2] == ["probe"]:
        from . import probe

        probe.main(*sys.argv[2:])
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # runtimes print on the real stdout, which is the protocol's
    commands = Commands()
    for line in sys.stdin:
        request = json.loads(line)
        command = request.pop("command")
        if command == "stop":
            break
        try:
            answer = getattr(commands, command)(**request)
        except UnfitError as error:
            answer = {"error": str(error), "unfit": True}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
    answers.flush()
    os._exit(0)  # a runtime that crashes while it is taken down must not spoil a good measurement


if __name__ == "__main__":
    main()
