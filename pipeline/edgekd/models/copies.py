"""Copies of graphs."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx


def copied(graph: fx.GraphModule) -> fx.GraphModule:
    """Copy a graph and its weights, without the FutureWarning that torch raises of a class of its own meanwhile."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        return copy.deepcopy(graph)
