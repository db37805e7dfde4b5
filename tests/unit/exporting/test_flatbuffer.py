"""Reading TFLite files that others wrote."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekd.runtimes.tflite import flatbuffer


def test_constants_behind_the_tables_come_along() -> None:
    """ai-edge-quantizer puts the weights of larger networks there."""
    weights = np.arange(64, dtype=np.uint8)
    model = schema.ModelT()
    model.subgraphs = []
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].offset, model.buffers[1].size = 4096, weights.size
    content = flatbuffer.write(model).ljust(4096, b"\0") + weights.tobytes()
    again = flatbuffer.read(flatbuffer.write(flatbuffer.read(content)))
    assert again.buffers[0].data is None
    assert bytes(again.buffers[1].data) == weights.tobytes()
