"""Every layer as the runtimes compute it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tests.unit.export.nets import Residual, images
from tests.unit.export.test_operators import Branches, SqueezeExcite

from edgekd.export import inside
from edgekd.export.exporter import Options, Source
from edgekd.quantize import qat
from edgekd.quantize.sensitivity import exact_outputs, measure
from edgekd.registry import exporters

NETS = {"residual": Residual, "squeeze_excite": SqueezeExcite, "concatenation": Branches}


@dataclass(frozen=True)
class Network:
    """A source, and of each layer the exact values and what torch says of int8."""

    source: Source
    exact: dict[str, inside.Tensor]
    torch_db: dict[str, float]

    def written(self, format: str, folder: Path) -> Path:
        exporter = exporters.get(format)()
        path = folder / f"net{exporter.suffix}"
        return exporter.export(self.source, path, Options("int8", "float32", folder / "log")).paths[0]


@cache
def network(name: str) -> Network:
    torch.manual_seed(0)
    model = NETS[name]().eval()
    prepared = qat.prepare(model, images(1))
    for seed in (2, 3, 4):
        prepared.module(images(16, seed=seed))
    qat.freeze_observers(prepared.module)
    source = Source(model, images(1), lambda fold: qat.convert(prepared.module, fold_weights=fold), prepared.float_ops)
    x = images(32, seed=9)
    exact = {
        name: inside.Tensor(scale, values.numpy()) for name, (scale, values) in exact_outputs(prepared.module, x).items()
    }
    return Network(source, exact, {row.name: row.total_db for row in measure(prepared.module, [x])})


@pytest.mark.parametrize("format", ["onnx", "tflite", "openvino"])
@pytest.mark.parametrize("net", NETS)
def test_each_layer_is_found_and_as_good_as_in_torch(net: str, format: str, tmp_path: Path) -> None:
    exact, torch_db = network(net).exact, network(net).torch_db
    found = inside.sqnr(exact, network(net).written(format, tmp_path), format, images(32, seed=9).numpy())
    if format == "openvino":  # its converter moves some roundings, such as those in front of a concatenation
        assert len(found) >= len(exact) / 2
    else:
        assert found.keys() == exact.keys()
    for name, db in found.items():
        assert db == pytest.approx(torch_db[name], abs=1.0), name


def test_a_layer_that_is_wrong_in_the_file_stands_out(tmp_path: Path) -> None:
    path, exact = network("residual").written("onnx", tmp_path), network("residual").exact
    x = images(32, seed=9).numpy()
    before = inside.sqnr(exact, path, "onnx", x)
    model = onnx.load(path)
    head = next(tensor for tensor in model.graph.initializer if list(tensor.dims) in ([10, 16], [16, 10]))
    weights = numpy_helper.to_array(head).copy()
    weights[..., 0] = np.where(weights[..., 0] > 64, weights[..., 0] // 2, 127)
    head.CopyFrom(numpy_helper.from_array(weights, head.name))
    onnx.save(model, path)
    after = inside.sqnr(exact, path, "onnx", x)
    worse = [name for name in before if after[name] < before[name] - 6]
    assert worse == ["linear"]
