"""A whole session on a board over SSH: what int8 files compute on Arm, beside this machine and torch, and what is timed."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.devices.conftest import device
from tests.devices.lab import Pi
from tests.unit.exporting.nets import Residual, images, make_source
from tests.words import differences, doubts, notes

from edgekd.data.preprocessing import Preprocessing
from edgekd.devices.schema import Device
from edgekd.evaluation import device_checks
from edgekd.evaluation.device_checks import Expected
from edgekd.exporting.exporter import Options
from edgekd.profiling import inspection
from edgekd.profiling.inspection import Wants
from edgekd.profiling.session import Session, measure
from edgekd.profiling.variant import Variant
from edgekd.recipe.profile import Profile
from edgekd.registry import exporters

QUICK = Profile(devices=("pi4",), blocks=3, block_runs=1, block_ms=1, warmup_runs=1, warmup_ms=0)
FORMATS = ("onnx", "tflite", "openvino")
FED = 8
X86 = "openvino_x86_int8"
"""A file as it is written where all devices of a recipe are x86."""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Variant, ...], Mapping[str, Expected], Wants]:
    """One int8 network in three formats, in OpenVINO in both forms, with its inputs and what is expected."""
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    source = make_source(Residual())
    x = images(FED, seed=5)
    np.save(folder / "NCHW.npy", x.numpy())
    np.save(folder / "NHWC.npy", np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1)))
    with torch.inference_mode():
        expected = source.int8(fold_weights=True)(x).numpy()
    variants, known = [], {}
    for name, zero_points in (*((f"{kind}_int8", "activations") for kind in FORMATS), (X86, "biases")):
        kind = name.split("_")[0]
        exporter: Any = exporters.get(kind)()  # type: ignore[operator]
        path = folder / f"{name}{exporter.suffix}"
        options = Options(zero_points=zero_points, log=folder / "log")
        exporter.export(source, path, options)
        layout = "NHWC" if kind == "tflite" else "NCHW"
        variants.append(Variant(name, kind, path, {"input": folder / f"{layout}.npy"}, layout=layout))  # type: ignore[arg-type]
        known[name] = Expected(torch={"logits": expected}, labels=np.arange(3))
    here = device_checks.on_host(variants)
    assert set(here) == set(known)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 12, 12)).astype(np.uint8)
    np.save(folder / "split.npy", pixels)
    wants = Wants(
        preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3, 3),
        encoded=tuple(inspection.encoded(list(pixels), folder)),
        images=folder / "split.npy",
    )
    return tuple(variants), {name: replace(one, host=here[name]) for name, one in known.items()}, wants


Measured = tuple[Session, device_checks.Checked]


@pytest.fixture(scope="session")
def on_pi4(pi4: Device, pi4_board: Pi, bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """All files of the bundle on the Pi 4, and one whose program crashes in the second block."""
    variants, known, wants = bundle

    def crash(what: str, done: int, total: int) -> None:
        if what == "block 2/3 unlucky":
            os.kill(pi4_board.programs("agent.pyz")[len(variants)], signal.SIGSEGV)

    onnx = next(variant for variant in variants if variant.runtime == "onnx")
    given = [*variants, replace(onnx, model="unlucky")]
    session = measure(given, QUICK, pi4, tmp_path_factory.mktemp("pi4"), crash, wants=wants)
    return session, device_checks.check(session, given, pi4, known)


def right(measured: Measured, runtimes: set[str]) -> None:
    checked = measured[1]
    assert {row.effective.runtime.split()[0] for row in checked.profiles} == runtimes
    for row in checked.profiles:
        assert [found.reference for found in row.outputs] == ["host", "torch"]
        for found in row.outputs:
            assert (found.n, found.differs, found.flips) == (FED, (), 0), row.model
            assert found.cosine > 0.999
            if row.model.endswith("int8"):
                assert found.p99_lsb is not None
                assert found.p99_lsb <= 2
    assert checked.findings == ()


def test_every_runtime_computes_what_the_host_does(on_pi4: Measured) -> None:
    right(on_pi4, {"onnxruntime", "ai-edge-litert", "openvino"})


def test_one_that_crashes_stops_no_other(on_pi4: Measured, bundle: Any) -> None:
    session, _ = on_pi4
    (failure,) = session.failures
    assert failure.model == "unlucky"
    assert "the runtime died with SIGSEGV while measuring" in failure.reason
    assert {record.model for record in session.profiles} == {variant.model for variant in bundle[0]}
    for record in session.profiles:
        assert record.emulated
        assert "emulated" in " ".join(doubts(record.trust.reasons))
        assert record.latency_ms.n >= QUICK.blocks
        assert record.load_ms.cold > 0


def test_the_old_runtime_computes_what_the_host_does(pi4_board: object, bundle: Any, tmp_path: Path) -> None:
    variants, known, wants = bundle
    target, chosen = device("pi4", python=("python3-tflite",)), [one for one in variants if one.runtime == "tflite"]
    session = measure(chosen, QUICK, target, tmp_path, wants=wants)
    assert session.failures == ()
    measured = session, device_checks.check(session, chosen, target, known)
    right(measured, {"tflite-runtime"})
    assert measured[1].profiles[0].effective.runtime == "tflite-runtime 2.14.0"
    assert any("the whole path" in note and "Pillow" in note for note in notes(measured[0].notes))


def test_what_is_looked_at_beside_times(on_pi4: Measured) -> None:
    session, checked = on_pi4
    for row in checked.profiles:
        assert [part.name for part in row.path] == ["decode", "preprocess", "network", "postprocess"]
        assert row.accuracy
        assert row.accuracy.n == 3
        if row.model.startswith("tflite"):
            assert row.operations is None
        else:
            assert row.operations
            assert 0 < row.operations.attributed < 1.5
            assert {part.precision for part in row.operations.operations} & {"int8", "float32"}
    assert any("single operations of tflite_int8 on pi4" in note for note in notes(session.notes))


def test_openvino_goes_round_its_faults_on_arm(on_pi4: Measured) -> None:
    """It asserts where zero points are in biases; for other int8 convolutions it asks for float16, which a Pi 4 has not."""
    session, checked = on_pi4
    rows = {row.model: row.effective for row in checked.profiles}
    for model in (X86, "openvino_int8"):
        assert rows[model].settings["LP_TRANSFORMS_MODE"] == "off"
        assert any(f"{model} on pi4" in note and "does not load int8 convolutions" in note for note in notes(session.notes))


def test_openvino_has_int8_on_a_pi_5(pi5: Device, bundle: Any, tmp_path: Path) -> None:
    variants = {variant.model: variant for variant in bundle[0]}
    (row,) = measure([variants["openvino_int8"]], QUICK, pi5, tmp_path).profiles
    assert "LP_TRANSFORMS_MODE" not in row.effective.settings
    assert row.effective.operations["int8"] > 0


def test_a_difference_is_told_and_looked_for_layer_by_layer(on_pi4: Measured, pi4: Device, bundle: Any) -> None:
    variants, known, _ = bundle
    onnx = next(variant for variant in variants if variant.runtime == "onnx")
    session = replace(on_pi4[0], profiles=tuple(row for row in on_pi4[0].profiles if row.model == onnx.model))
    host = known[onnx.model].host
    name = next(iter(host.arrays))
    wrong = Expected(host=inspection.Given({name: host.arrays[name] + 1}, host.kinds))
    checked = device_checks.check(session, [onnx], pi4, {onnx.model: wrong})
    (found,) = checked.profiles[0].outputs
    assert found.differs[0].code == "lsb"
    assert found.worst_layer == "", "no layer differs: what was expected is wrong"
    assert (
        "The outputs of onnx_int8 on pi4 differ from those of the same file on the host" in differences(checked.profiles)[0]
    )
