"""Operators that the LiteRT converter writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from edgekd.exporting.lacks import is_composite


@cache
def has(operator: Any) -> bool:
    """Return whether the converter knows an operator."""
    return any(known(operator) for known in _tables()) or is_composite(operator)


@cache
def _tables() -> tuple[Callable[[Any], bool], ...]:
    """Return what the converter knows: its lowerings, what it takes apart, and what it writes as one operator."""
    from litert_torch._convert.fx_passes import build_aten_composite_pass
    from litert_torch.backend import lowerings
    from litert_torch.fx_infra import decomp

    tables = (build_aten_composite_pass._composite_builders, decomp.pre_convert_decomp(), decomp.pre_lower_decomp())
    return (lambda operator: lowerings.lookup(operator) is not None, *(table.__contains__ for table in tables))
