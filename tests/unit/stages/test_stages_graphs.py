from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from edgekd.assembly import graphs, networks
from edgekd.assembly.context import GRAPHS, recent_graphs
from edgekd.quantization import fold
from edgekd.recipe import Recipe
from edgekd.task.image_classification import purpose

NET = """\
from torch import nn


def Net(num_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


def recipe(net: Path) -> Recipe:
    distill = {"epochs": 1, "losses": [{"kind": "task"}]}
    data = {"source": "fashion-mnist-mini", "image_size": 8}
    return Recipe.model_validate({"edgekd": 1, "data": data, "student": {"model": f"{net}:Net"}, "distill": distill})


def test_a_network_is_traced_once_and_what_one_stage_does_with_it_no_other_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, weights, others = tmp_path / "net.py", tmp_path / "weights.safetensors", tmp_path / "others.safetensors"
    net.write_text(NET)
    for seed, path in enumerate((weights, others)):
        torch.manual_seed(seed)
        networks.save(dict(networks.student(recipe(net), purpose(recipe(net).data, 2)).state_dict()), path)
    traced, made = [], recent_graphs()
    trace = fold.trace
    monkeypatch.setattr(fold, "trace", lambda *given: traced.append(given) or trace(*given))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def expected(path: Path) -> torch.Tensor:
        return networks.student(recipe(net), purpose(recipe(net).data, 2), path).eval()(x)

    first = graphs.folded(made, recipe(net), purpose(recipe(net).data, 2), weights)
    torch.testing.assert_close(first(x), expected(weights))
    for parameter in first.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(graphs.folded(made, recipe(net), purpose(recipe(net).data, 2), weights)(x), expected(weights))
    assert len(traced) == 1
    student = networks.student(recipe(net), purpose(recipe(net).data, 2), weights).eval()
    (logits,) = graphs.normalised(made, recipe(net), purpose(recipe(net).data, 2), student, weights, ())(x)
    torch.testing.assert_close(logits, expected(weights))
    torch.testing.assert_close(graphs.folded(made, recipe(net), purpose(recipe(net).data, 2), others)(x), expected(others))
    net.write_text(NET.replace("ReLU()", "Sigmoid()"))
    torch.testing.assert_close(graphs.folded(made, recipe(net), purpose(recipe(net).data, 2), others)(x), expected(others))
    assert len(traced) == 4
    assert len(made) == GRAPHS
    assert len(pickle.loads(pickle.dumps(made))) == 0  # another process traces its own
