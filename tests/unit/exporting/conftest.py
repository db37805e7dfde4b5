from __future__ import annotations

import pytest
import torch
from tests.unit.exporting.nets import Residual, make_source

from edgekd.exporting.exporter import Source


@pytest.fixture(scope="session")
def small_source() -> Source:
    """A net with the operators of a residual network."""
    torch.manual_seed(0)
    return make_source(Residual())
