"""Runtimes that report home do not do so from here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def off() -> Iterator[None]:
    """Keep openvino and onnxruntime from sending anything; import and convert inside.

    Both read the environment, openvino already while it is imported (it then sends from a forked process).
    """
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# openvino has no switch of its own but a file in the home directory; it is silent in continuous integration.
_SETTINGS = {"CI": "true", "ORT_DISABLE_TELEMETRY": "1"}
