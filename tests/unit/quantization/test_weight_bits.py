"""Why weights have seven bits on x86 without VNNI: the arithmetic of its kernels, and OpenVINO made to use them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.unit.exporting.nets import images
from torch import nn

from edgekd.exporting.exporter import Options, Source
from edgekd.exporting.formats.openvino import OpenVinoExporter
from edgekd.quantization import qat

Ints = NDArray[np.int64]


def vpmaddubsw_matmul(x: Ints, weight: Ints) -> Ints:
    """``x @ weight.T`` of uint8 (N, K) and int8 (M, K) as AVX2 does it.

    vpmaddubsw multiplies unsigned by signed bytes and adds two neighbours with signed saturation to 16 bits (Intel 64
    and IA-32 Architectures Software Developer's Manual, PMADDUBSW); vpmaddwd and vpaddd then add in 32 bits.
    """
    products = x[:, None, :] * weight[None, :, :]
    pairs = products[..., 0::2] + products[..., 1::2]
    return np.clip(pairs, -(2**15), 2**15 - 1).sum(-1)


def cancelling_net() -> nn.Sequential:
    """A 1×1 convolution with great neighbours that the others of its channel cancel: the worst that can be met."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    with torch.no_grad():
        net[0].bias.fill_(3.0)  # activations lie in the upper half of their range
        signs = torch.tensor([1.0, 1.0, *[-1 / 3] * 6]).repeat(4)
        net[2].weight.copy_((signs + 0.02 * torch.randn(16, 32)).reshape(16, 32, 1, 1))
    return net.eval()


def calibrated(weight_bits: qat.WeightBits) -> tuple[nn.Module, qat.Prepared]:
    net = cancelling_net()
    prepared = qat.prepare(net, images(1), weight_bits=weight_bits)
    with torch.no_grad():
        for seed in range(3):
            prepared.module(images(16, seed=seed))
    qat.freeze_observers(prepared.module)
    return net, prepared


def int8_weight(prepared: qat.Prepared, rows: int, columns: int) -> Ints:
    graph = qat.convert(prepared.module, fold_weights=True)
    values = [value for value in graph.state_dict().values() if value.dtype == torch.int8 and value.ndim > 1]
    return (
        next(value for value in values if value.shape[:2] == (rows, columns)).reshape(rows, columns).numpy().astype(np.int64)
    )


def test_the_worst_pair_fits_with_seven_bits_and_not_with_eight() -> None:
    x = np.full((1, 2), 255)
    for limit, fits in ((127, False), (64, True), (63, True)):
        for sign in (1, -1):
            weight = np.full((1, 2), sign * limit)
            assert np.array_equal(vpmaddubsw_matmul(x, weight), x @ weight.T) == fits
    assert 2 * 255 * 63 < 2**15 - 1 < 2 * 255 * 127


@pytest.mark.parametrize("weight_bits", [8, 7])
def test_the_weights_of_a_layer_in_that_arithmetic(weight_bits: qat.WeightBits) -> None:
    _, prepared = calibrated(weight_bits)
    weight = int8_weight(prepared, 16, 32)
    assert np.abs(weight).max() == 2 ** (weight_bits - 1) - 1
    x = np.random.default_rng(0).integers(0, 256, (200, 32))
    wrong = vpmaddubsw_matmul(x, weight) != x @ weight.T
    assert wrong.any() == (weight_bits == 8)


@pytest.mark.parametrize("limit", [127, 63])
def test_random_weights_in_that_arithmetic(limit: int) -> None:
    random = np.random.default_rng(0)
    weight = random.integers(-limit, limit + 1, (64, 128))
    x = random.integers(0, 256, (64, 128))
    wrong = vpmaddubsw_matmul(x, weight) != x @ weight.T
    assert wrong.mean() > 0.5 if limit == 127 else not wrong.any()


RUN_FILE = """
import sys
import numpy as np
import openvino
settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
compiled = openvino.Core().compile_model(sys.argv[1], "CPU", settings)
np.save(sys.argv[3], np.concatenate([compiled(image[None])[0] for image in np.load(sys.argv[2])]))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a matter of x86")
def test_openvino_without_vnni_needs_seven_bits(tmp_path: Path) -> None:
    """OpenVINO's kernels are oneDNN's, which takes its instruction sets from a variable."""
    x = images(16, seed=9)
    np.save(tmp_path / "x.npy", x.numpy())
    errors = {}
    for bits in (8, 7):
        net, prepared = calibrated(bits)
        source = Source(
            net, images(1), lambda fold, prepared=prepared: qat.convert(prepared.module, fold_weights=fold), ()
        )  # fmt: skip
        path = tmp_path / f"{bits}.xml"
        OpenVinoExporter().export(source, path, Options("int8", "float32", tmp_path / "log"))
        environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
        out = tmp_path / f"{bits}.npy"
        command = [sys.executable, "-c", RUN_FILE, str(path), str(tmp_path / "x.npy"), str(out)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        with torch.no_grad():
            expected = qat.convert(prepared.module, fold_weights=True)(x).numpy()
        errors[bits] = float(np.abs(np.load(out) - expected).max() / qat.output_scale(prepared.module)[0])
    assert errors[8] > 20, "the trap is not there: either the variable has no effect, or the runtime has changed"
    assert errors[7] <= 2
