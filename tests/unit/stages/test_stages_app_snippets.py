"""Load snippets for apps: the C++ for OpenVINO is compiled and run, the others are held to the manifest's values."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle.app_snippets import app_snippets
from edgekd.results.models import FilePort, ModelRecord
from edgekd.results.run import DataRecord

SIZE = 8
DATA = DataRecord(
    source="x", fingerprint="y", classes=("$cat", 'a "dog"', "c", "é"), train=1, val=1, test=1, image_size=SIZE, channels=3,
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
)  # fmt: skip


def artifact(format: str, suffix: str, source: FilePort, result: FilePort, name: str = "") -> ModelRecord:
    return ModelRecord(
        name or f"{format}_x",
        "artifact",
        format,
        "int8",
        "student",
        path=f"artifacts/{name or 'x'}{suffix}",
        inputs=(source,),
        outputs=(result,),
    )


APP = """\
#include "load_second.file.cc"
#define EDGEKD_MAIN
#include "load_first.cc"
static const int said = [] {
  for (const auto& name : edgekd::second_file::kClasses) std::printf("%s", name.c_str());
  std::printf("\\n");
  edgekd::second_file::Model other;
  for (const char* name : {"0", "1"}) {
    std::ifstream file(name, std::ios::binary);
    for (float logit : other.run({std::istreambuf_iterator<char>(file), {}})) std::printf("%.9g\\n", logit);
  }
  return 0;
}();
"""
"""An app with two files, of which the second has the other layout; the main function is that of the first."""


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_the_cpp_for_openvino_gives_the_logits_that_python_gets(tmp_path: Path) -> None:
    import openvino
    from openvino import opset8 as ops

    random = np.random.default_rng(0)
    layouts = {"second.file": "NHWC", "first": "NCHW"}  # in the order in which they print
    for name, layout in layouts.items():
        shape = [1, 3, SIZE, SIZE] if layout == "NCHW" else [1, SIZE, SIZE, 3]
        x = ops.parameter(shape, np.float32, name="input")
        weights = random.standard_normal((3 * SIZE * SIZE, 4)).astype(np.float32)
        logits = ops.matmul(ops.reshape(x, np.array([1, -1]), special_zero=False), weights, False, False)
        openvino.save_model(openvino.Model([logits], [x], "net"), tmp_path / f"{name}.xml", compress_to_fp16=False)
        specs = FilePort("input", tuple(shape), "float32", layout), FilePort("logits", (1, 4), "float32")
        snippet = app_snippets(artifact("openvino", ".xml", *specs, name), DATA)[".cc"]
        (tmp_path / f"load_{name}.cc").write_text(snippet)
    (tmp_path / "load.cc").write_text(APP)
    package = Path(openvino.__file__).parent
    library = next((package / "libs").glob("libopenvino.so.*"))
    flags = ["-std=c++17", "-O0", "-Wall", "-Werror=return-type", "-isystem", package / "include"]
    link = [library, f"-Wl,-rpath,{package / 'libs'}", f"-Wl,-rpath-link,{package / 'libs'}"]
    built = subprocess.run(["g++", *flags, "load.cc", *link, "-o", "load"], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    images = [random.integers(0, 256, (SIZE, SIZE, depth), np.uint8) for depth in (3, 1)]
    for number, image in enumerate(images):
        (tmp_path / str(number)).write_bytes(image.tobytes())
    done = subprocess.run([tmp_path / "load", "0", "1"], cwd=tmp_path, capture_output=True, text=True, check=True)
    names, *told = done.stdout.splitlines()
    assert names == "".join(DATA.classes)
    expected = []
    for name, layout in layouts.items():
        compiled = openvino.Core().compile_model(tmp_path / f"{name}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for image in images:
            value = (image.astype(np.float32) / np.float32(255) - np.float32(DATA.mean)) / np.float32(DATA.std)
            fed = value[None] if layout == "NHWC" else value.transpose(2, 0, 1)[None]
            expected.append(compiled(np.ascontiguousarray(fed))[0].reshape(-1))
    assert np.allclose([float(logit) for logit in told], np.concatenate(expected), atol=1e-4), list(layouts.values())


@pytest.mark.parametrize(("format", "suffix", "layout"), [("tflite", ".tflite", "NHWC"), ("onnx", ".onnx", "NCHW")])
def test_the_others_have_the_values_of_the_manifest_and_say_that_they_are_untested(
    format: str, suffix: str, layout: str
) -> None:
    shape = (1, 3, SIZE, SIZE) if layout == "NCHW" else (1, SIZE, SIZE, 3)
    source, result = (
        FilePort("input", shape, "int8", layout, 0.0123, -7),
        FilePort("logits", (1, 4), "int8", "", 0.25, 3),
    )
    texts = app_snippets(artifact(format, suffix, source, result), DATA)
    assert set(texts) == {".cc", ".kt"}
    for text in texts.values():
        assert "UNTESTED" in "".join(text.splitlines()[:3])
        assert f"edgekd.{format}_x" in text.replace("::", ".")
        assert r'"a \"dog\"", "c", "é"' in text
        assert f"x{suffix}" in text
        for value in ("0.485f, 0.456f, 0.406f", "0.229f, 0.224f, 0.225f", "0.0123f", "-7", "* 0.25f", "- 3)", "-128", "127"):
            assert value in text, value
        place = "CHANNELS + channel" if layout == "NHWC" else "* WIDTH + column"
        assert place in text.replace("kWidth", "WIDTH").replace("kChannels", "CHANNELS")
    assert r'listOf<String>("\$cat", ' in texts[".kt"]
    assert all(text.index("Model(") < text.index("run(") for text in texts.values()), "loaded once, run many times"
    if format == "onnx":
        assert '"input"' in texts[".cc"]
        assert "1L, 3L, 8L, 8L" in texts[".kt"]


def test_a_file_that_takes_no_single_image_gets_none() -> None:
    words = FilePort("ids", (1, 16), "int32")
    assert app_snippets(artifact("onnx", ".onnx", words, FilePort("logits", (1, 4), "float32")), DATA) == {}
