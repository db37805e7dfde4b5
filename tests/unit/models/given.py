"""Small networks, checkpoints and data for the tests of models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekd.errors import EdgekdError
from edgekd.recipe.data import Data

DATA = Data(source="fashion-mnist-mini", image_size=32)


def text_of(kind: type[EdgekdError], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.hint
    return str(caught.value)


def small(classes: int = 5, width: int = 4) -> nn.Module:
    torch.manual_seed(classes)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, classes))


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)


def stored(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(state, tmp_path / "w.pt")
    return tmp_path / "w.pt"
