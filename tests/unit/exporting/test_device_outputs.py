"""What a device computes beside a reference: figures, what is allowed, and where a difference begins."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from tests.unit.exporting.nets import images
from tests.unit.exporting.test_files import export

from edgekd.errors import ExportError
from edgekd.evaluation import device_checks, device_outputs, probes
from edgekd.exporting.exporter import Source
from edgekd.profiling.inspection import Given
from edgekd.profiling.variant import Variant
from edgekd.report import findings

STEP = 0.25


def given(rows: list[list[float]], name: str = "logits") -> Given:
    return Given({name: np.array(rows, np.float32)[:, None]}, {name: "float32"})


def test_steps_of_an_int8_output_are_counted_and_a_tie_is_no_flip() -> None:
    wanted = given([[0.0, 1.0, 2.0], [0.0, 2.0, 1.75], [4.0, 0.0, 0.0]])
    found = given([[0.0, 1.0, 2.25], [0.0, 1.75, 2.0], [0.0, 4.0, 0.0]])
    record = device_outputs.compare("host", wanted, found, [STEP])
    assert (record.n, record.max_error, record.max_lsb, record.flips) == (3, 4.0, 16.0, 1)
    assert record.agreement == pytest.approx(1 / 3)
    assert record.cosine == pytest.approx(0.0)
    assert findings.differs(record) == "p99 is 16 LSB, more than 2; 1 of 3 samples have another class beyond a tie"


def test_a_rounding_is_allowed() -> None:
    record = device_outputs.compare("host", given([[0.0, 1.0]]), given([[0.25, 1.0]]), [STEP])
    assert (record.differs, record.p99_lsb, record.agreement) == ((), pytest.approx(0.99), 1.0)


def test_float_outputs_may_differ_by_the_order_of_sums_only() -> None:
    wanted = given([[0.0, 1.0, 5.0]])
    assert device_outputs.compare("torch", wanted, given([[0.0, 1.0, 5.00001]])).differs == ()
    assert "logits is off by" in findings.differs(device_outputs.compare("torch", wanted, given([[0.0, 1.0, 5.1]])))


def test_every_output_is_compared_also_integers_and_open_sizes() -> None:
    boxes = np.array([[1.0, np.nan], [2.0, 3.0]], np.float32)
    one = Given({"boxes": boxes, "ids": np.array([[3], [4]])}, {"boxes": "float32", "ids": "int64"})
    other = Given({"boxes": boxes, "ids": np.array([[3], [9]])}, {"boxes": "float32", "ids": "int64"})
    assert device_outputs.compare("host", one, one).differs == ()
    record = device_outputs.compare("host", one, other)
    assert (record.max_error, record.agreement) == (5.0, None)
    assert findings.differs(record).startswith("ids is off by")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_same_that_is_no_number_is_the_same(value: float) -> None:
    both = given([[0.0, 1.0], [0.0, value]])
    record = device_outputs.compare("host", both, both)
    assert (record.differs, record.max_error, record.agreement, record.flips) == ((), 0.0, 1.0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_where_the_reference_has_one_cannot_be_compared(value: float) -> None:
    with pytest.raises(ExportError, match="logits has NaN or infinity for 1 of 2 samples"):
        device_outputs.compare("host", given([[0.0, 1.0], [0.0, 1.0]]), given([[0.0, 1.0], [0.0, value]]))


@pytest.fixture(scope="module", params=["onnx", "tflite", "openvino"])
def written(request: pytest.FixtureRequest, small_source: Source, tmp_path_factory: pytest.TempPathFactory) -> Variant:
    folder = tmp_path_factory.mktemp("written")
    exported = export(small_source, request.param, folder)
    x = images(3, seed=5).numpy()
    np.save(folder / "x.npy", x.transpose(0, 2, 3, 1).copy() if request.param == "tflite" else x)
    assert probes.steps(exported.paths[0], request.param) == (pytest.approx(exported.output_scale, rel=1e-6),)
    return Variant("net", request.param, exported.paths[0], {"input": folder / "x.npy"})


def test_a_file_is_looked_into_and_the_first_layer_that_differs_is_named(written: Variant) -> None:
    with TemporaryDirectory() as folder:
        path, inner = probes.instrument(written.path, written.runtime, Path(folder))
        variants = [written, Variant("probed", written.runtime, path, written.inputs)]
        found = device_checks.on_host(variants)
    plain, probed = found["net"], found["probed"]
    assert len(inner) > 4
    assert {probe.name for probe in inner} <= set(probed.arrays)
    name = next(iter(plain.arrays))
    assert np.array_equal(plain.arrays[name], probed.arrays[name]), "the same kernels run"
    assert probes.first_difference(inner, probed, probed) == ""
    shifted = dict(probed.arrays)
    for probe in inner[2:]:
        shifted[probe.name] = shifted[probe.name] + 2 * (probe.step or 1)
    assert probes.first_difference(inner, probed, Given(shifted, probed.kinds)) == inner[2].layer
