"""Advice that is typed as ``--set KEY=VALUE``: each works on the recipe of the run that it is printed for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.loading.lock import flow

_SHARED: Mapping[str, Sequence[Any]] = {"weight_bits": (None, "auto"), "keep_float": (None, [], ())}
"""Keys that both methods of int8 have, with the values that need not be typed."""


def typed(key: str, value: object) -> str:
    """Return what to type.

    Example:
        >>> typed("quantize.keep_float", ["features.0"])
        "--set 'quantize.keep_float=[features.0]'"
    """
    text = f"{key}={flow(value)}"
    # YAML has single quotes around some names; in double ones they stay as they are.
    return f'--set "{text}"' if "'" in text and not {*text} & {*'"$`\\!'} else f"--set {shlex.quote(text)}"


def other_method(section: Mapping[str, Any], method: str) -> str:
    """Return how to quantize with the other method: its section has other keys, so that the whole of it is replaced."""
    shared = {key: section[key] for key, usual in _SHARED.items() if key in section and section[key] not in usual}
    return typed("quantize", {"method": method, **shared})


def in_float(section: Mapping[str, Any], *layers: str, found: Sequence[str] = ()) -> str:
    """Return how to keep layers in float, beside those that are named already.

    Args:
        section: The recipe's ``quantize``.
        layers: Paths of modules, or ``%`` and the name of a node.
        found: What ``keep_float: auto`` has found, which a list takes the place of.
    """
    named = section.get("keep_float")
    before = list(named) if isinstance(named, list | tuple) else list(found)
    return typed("quantize.keep_float", [*before, *layers])
