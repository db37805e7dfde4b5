"""What the written files promise: names, types, sizes, and the same bytes every time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.e2e import warm
from tests.unit.exporting.nets import Together, images

from edgekd.errors import ExportError
from edgekd.exporting import outputs, parity
from edgekd.exporting.exporter import Exported, FilePort, Options, Source
from edgekd.quantization.fold import fold
from edgekd.registry import exporters
from edgekd.runtimes import base

FORMATS = ["onnx", "tflite", "openvino"]


def export(source: Source, format: str, folder: Path, **options: str) -> Exported:
    exporter = exporters.get(format)()  # type: ignore[operator]
    return exporter.export(source, folder / f"model{exporter.suffix}", Options(log=folder / "log", **options))


def digests(exported: Exported) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in exported.paths]


def test_listing_formats_imports_no_runtime() -> None:
    script = (
        "import sys; from edgekd.registry import exporters; print(*exporters.names())\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'openvino', 'litert_torch', 'ai_edge_litert'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    root = Path(__file__).parents[3] / "pipeline"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == sorted(FORMATS)


@pytest.fixture(scope="module")
def written(small_source: Source, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    return {format: export(small_source, format, tmp_path_factory.mktemp("written")) for format in FORMATS}


@pytest.mark.parametrize("format", FORMATS)
def test_ends_are_float_and_named(written: dict[str, Exported], format: str) -> None:
    exported = written[format]
    shape, layout = ((1, 12, 12, 3), "NHWC") if format == "tflite" else ((1, 3, 12, 12), "NCHW")
    assert exported.inputs == (FilePort("input", shape, "float32", layout),)
    assert exported.outputs == (FilePort("logits", (1, 10), "float32", "NC", step=exported.output_scale),)
    assert exported.output_scale
    assert exported.bytes == sum(path.stat().st_size for path in exported.paths)
    assert exported.float_tensors == ()


def test_bytes_are_the_same_in_every_process(written: dict[str, Exported], tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; import torch\n"
        "from tests.unit.exporting.nets import Residual, make_source\n"
        "from tests.unit.exporting.test_files import FORMATS, digests, export\n"
        "torch.manual_seed(0)\n"
        "source = make_source(Residual())\n"
        "for format in reversed(FORMATS): print(format, *digests(export(source, format, Path(sys.argv[1]))))"
    )
    root = Path(__file__).parents[3]
    environment = {"PYTHONPATH": f"{root / 'pipeline'}:{root}", "PATH": "/usr/bin:/bin"}  # other hashes, and nothing else
    done = warm.ran([script, str(tmp_path / "a folder of another name")], tmp_path, environment, "python")
    assert done.returncode == 0, done.stderr
    found = {format: hashes for format, *hashes in map(str.split, done.stdout.splitlines())}
    assert found == {format: digests(exported) for format, exported in written.items()}


def test_no_path_of_this_machine_is_in_a_file(written: dict[str, Exported]) -> None:
    for exported in written.values():
        for path in exported.paths:
            content = path.read_bytes()
            assert str(path.parent).encode() not in content
            assert b"site-packages" not in content
            assert b"pkg.torch" not in content


@pytest.mark.parametrize("format", FORMATS)
def test_float_file_is_the_float_model(small_source: Source, format: str, tmp_path: Path) -> None:
    folded = fold(small_source.model, small_source.example)  # as the export stage hands it over
    exported = export(Source(folded, small_source.example), format, tmp_path, precision="float32")
    assert exported.output_scale is None
    inputs = images(4)
    with torch.no_grad():
        expected = small_source.model(inputs).numpy()
    output = base.run_file(exported.paths[0], format, inputs.numpy())
    np.testing.assert_allclose(output, expected, atol=1e-4)


class Shuffling(torch.nn.Module):
    """A channel shuffle, whose view needs the copy in front of it (Zhang et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = torch.nn.Conv2d(3, 6, 3, 2), torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = (y := self.first(x)).shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        out: torch.Tensor = self.head(torch.cat([y[:, :3], y[:, 3:].relu()], 1).mean((2, 3)))
        return out


class Windows(torch.nn.Module):
    """Windows cut by a reshape that has to copy (Swin, Liu et al. 2021); torch's export calls that ``_unsafe_view``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = torch.nn.Conv2d(3, 6, 2, 2), torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = (y := self.first(x)).shape
        y = y.permute(0, 2, 3, 1).view(n, h // 3, 3, w // 3, 3, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 9, c)
        y = self.head(y.softmax(1)).view(n, h // 3, w // 3, 3, 3, 4).permute(0, 1, 3, 2, 4, 5).reshape(n, h * w, 4)
        return y.mean(1)


@pytest.mark.parametrize("format", FORMATS)
def test_reshapes_in_a_float_file(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = Together({"shuffling": Shuffling(), "windows": Windows()}).eval(), images(4)
    source = Source(fold(model, inputs[:1]), inputs[:1])
    exported = export(source, format, tmp_path, precision="float32")
    with torch.no_grad():
        expected = {name: value.numpy() for name, value in model(inputs).items()}
    found = outputs.run(exported, dict.fromkeys(source.inputs, inputs.numpy()), expected)
    for name, output in found.items():
        np.testing.assert_allclose(output, expected[name], atol=1e-4)


def test_integer_ends_of_tflite(small_source: Source, tmp_path: Path) -> None:
    exported = export(small_source, "tflite", tmp_path, io="int8")
    graph = small_source.int8(fold_weights=True)
    (given,), (taken,) = exported.inputs, exported.outputs
    assert (given.name, given.dtype, taken.name, taken.dtype) == ("input", "int8", "logits", "int8")
    assert taken.scale == pytest.approx(exported.output_scale)
    inputs = images(32)
    with torch.no_grad():
        reference = graph(inputs).numpy()
    output = base.run_file(exported.paths[0], "tflite", inputs.numpy())
    assert exported.output_scale
    assert parity.compare(reference, output, exported.output_scale).max_lsb <= 1.01


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_integer_ends_elsewhere_are_refused(small_source: Source, format: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"{format} files take and give float32"):
        export(small_source, format, tmp_path, io="int8")


def test_int8_without_a_quantized_graph_is_refused(small_source: Source, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the model was not quantized"):
        export(Source(small_source.model, small_source.example), "onnx", tmp_path)


def test_failure_is_one_sentence_and_the_log_has_the_rest(tmp_path: Path) -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no kernel for this\nand more text")

    with pytest.raises(ExportError) as caught:
        export(Source(Broken().eval(), images(1)), "onnx", tmp_path, precision="float32")
    assert caught.value.message.startswith("writing model.onnx failed: ")
    assert "\n" not in caught.value.message
    assert str(tmp_path / "log") in caught.value.hint
    assert "Traceback" in (tmp_path / "log").read_text()


def test_loading_what_is_not_a_model(tmp_path: Path) -> None:
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"model\.onnx cannot be loaded"):
        base.load(damaged, "onnx")
    with pytest.raises(ExportError, match="there is no model at"):
        base.load(tmp_path / "absent.tflite", "tflite")
    with pytest.raises(ExportError, match="did you mean tflite"):
        base.load(damaged, "tflit")
