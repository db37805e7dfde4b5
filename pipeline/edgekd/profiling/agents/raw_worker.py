"""Read the inputs and outputs of a .tflite file, in a process of its own: a damaged file may end it.

    python -m edgekd.profiling.agents.raw_worker FILE INPUTS INTO

``INPUTS`` is JSON, see ``on_device/feeds.py``. ``INTO`` becomes an .npz file with an array for each input, a row for each
feed, and ``outputs``: JSON. On an error the last line of stderr says what is wrong.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from edgekd.errors import cause_of
from edgekd.profiling.on_device import feeds
from edgekd.profiling.on_device.runtimes.tflite import TensorFlowLite, named


def main() -> None:
    """Do what the arguments say."""
    path, inputs, into = sys.argv[1:]
    try:
        runtime = TensorFlowLite("ai_edge_litert", 1)
        runtime.load(path)
        rows = feeds.feeds(json.loads(inputs), runtime.inputs())
        runtime.fit(rows[0])
        outputs = [_output(runtime.model, name, spec) for name, spec in named(runtime.model.get_output_details())]
    except Exception as error:  # the runtime raises its own kinds
        sys.exit(cause_of(error))
    stored: dict[str, Any] = {f"input{at}": np.stack([row[name] for row in rows]) for at, name in enumerate(rows[0])}
    np.savez(into, **stored, outputs=np.array(json.dumps(outputs)))


def _output(model: Any, name: str, spec: Any) -> dict[str, Any]:
    """Describe an output; its shape is None where only an inference tells it."""
    scale, zero_point = spec["quantization"]
    try:
        value = model.get_tensor(spec["index"])
    except ValueError:  # nothing is allocated before it is computed
        shape, kind = None, ""
    else:
        shape, kind = list(value.shape), str(value.dtype)
    return {"name": name, "kind": kind, "shape": shape, "scale": float(scale), "zero_point": int(zero_point)}


if __name__ == "__main__":
    main()
