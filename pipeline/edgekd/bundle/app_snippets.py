"""Load snippets for apps: C++ and Kotlin that load a file once, prepare images as the bundle says and return the logits.

The C++ for OpenVINO is compiled and run by the project's own tests; the others are not, and say so in their first lines.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import PurePath

from edgekd.results.models import FilePort, ModelRecord
from edgekd.results.run import DataRecord
from edgekd.runtimes import base
from edgekd.runtimes.snippets import Cpp, Kotlin

_UNTESTED = """\
// UNTESTED: edgekd has no {lacking} to compile this with. Its numbers are those of manifest.json.
"""

_CPP_HEAD = """\
// {title} in C++17. {build}
{untested}// In an app: #include it, make a Model once, run many images. With -DEDGEKD_MAIN it prints the logits of images.
// An image is {height} x {width} pixels (height x width), uint8, one row after the other, channels last.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

{include}
namespace edgekd::{space} {{

constexpr int kHeight = {height}, kWidth = {width}, kChannels = {channels};
constexpr float kMean[] = {{{mean}}}, kStd[] = {{{std}}};
const std::vector<std::string> kClasses = {{{classes}}};  // names of the logits

// float32(pixel) / 255, minus mean, divided by std; grey is repeated to all channels.
inline std::vector<{kind}> prepare(const std::vector<uint8_t>& image) {{
  const int depth = static_cast<int>(image.size()) / (kHeight * kWidth);
  if (image.size() != static_cast<size_t>(kHeight) * kWidth * depth || (depth != 1 && depth != kChannels))
    throw std::invalid_argument("the image has another size");
  std::vector<{kind}> x(static_cast<size_t>(kChannels) * kHeight * kWidth);
  for (int row = 0; row < kHeight; ++row)
    for (int column = 0; column < kWidth; ++column)
      for (int channel = 0; channel < kChannels; ++channel) {{
        const uint8_t pixel = image[(row * kWidth + column) * depth + (depth == 1 ? 0 : channel)];
        const int statistic = {statistic};
        const float value = (pixel / 255.0f - kMean[statistic]) / kStd[statistic];
        x[{place}] = {to_input};
      }}
  return x;
}}
"""

_CPP_TAIL = """
}}  // namespace edgekd::{space}

#ifdef EDGEKD_MAIN
int main(int argc, char** argv) {{
  edgekd::{space}::Model model;
  for (int i = 1; i < argc; ++i) {{
    std::ifstream file(argv[i], std::ios::binary);
    const std::vector<uint8_t> image((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    for (float logit : model.run(image)) std::printf("%.9g\\n", logit);
  }}
}}
#endif
"""


_KOTLIN_HEAD = """\
// {title} in Kotlin for Android: {gradle} in build.gradle.
{untested}// Make a Model once, run many images, and close it.
// An image is {height} x {width} pixels (height x width), uint8, one row after the other, channels last: R, G, B, or grey.
package edgekd.{space}

{imports}

private const val HEIGHT = {height}
private const val WIDTH = {width}
private const val CHANNELS = {channels}
private val MEAN = floatArrayOf({mean})
private val STD = floatArrayOf({std})

/** Names of the logits. */
val CLASSES = listOf<String>({classes})

/** float32(pixel) / 255, minus mean, divided by std; grey is repeated to all channels. */
fun prepare(image: ByteArray): ByteBuffer {{
    val depth = image.size / (HEIGHT * WIDTH)
    require(image.size == HEIGHT * WIDTH * depth && (depth == 1 || depth == CHANNELS)) {{ "the image has another size" }}
    val x = ByteBuffer.allocateDirect({bytes} * CHANNELS * HEIGHT * WIDTH).order(ByteOrder.nativeOrder())
    for (row in 0 until HEIGHT) for (column in 0 until WIDTH) for (channel in 0 until CHANNELS) {{
        val pixel = image[(row * WIDTH + column) * depth + if (depth == 1) 0 else channel].toInt() and 0xFF
        val statistic = {statistic}
        val value = (pixel / 255f - MEAN[statistic]) / STD[statistic]
        {put}
    }}
    return x
}}
"""


_CPP_KINDS = {"float32": "float", "int8": "int8_t", "uint8": "uint8_t"}
_BYTES = {"float32": 4, "int8": 1, "uint8": 1}


def app_snippets(model: ModelRecord, data: DataRecord) -> dict[str, str]:
    """Return the texts for apps of an artifact that classifies images, by the suffix of their file; none for others."""
    if model.path is None or len(model.inputs) != 1 or not model.outputs or not (data.channels and data.classes):
        return {}
    source, result = model.inputs[0], model.outputs[0]
    if source.dtype not in _BYTES or result.dtype not in _BYTES:
        return {}
    runtime = base.of(model.format)
    found = {}
    if runtime.cpp is not None:
        found[".cc"] = _cpp(runtime.cpp, model, data, source, result)
    if runtime.kotlin is not None:
        found[".kt"] = _kotlin(runtime.kotlin, model, data, source, result)
    return found


def _cpp(lines: Cpp, model: ModelRecord, data: DataRecord, source: FilePort, result: FilePort) -> str:
    low, high = _limits(source.dtype)
    rounded = f"std::nearbyint(value / {source.scale}f) + {source.zero_point}"
    clipped = f"std::fmin(std::fmax({rounded}, {low}.0f), {high}.0f)"
    to_input = "value" if source.dtype == "float32" else f"static_cast<{_CPP_KINDS[source.dtype]}>({clipped})"
    place = _place(source).replace("HEIGHT", "kHeight").replace("WIDTH", "kWidth").replace("CHANNELS", "kChannels")
    head = _CPP_HEAD.format(
        **_facts(model, data, lines.lacking),
        build=f"Build: {lines.build.format(name=model.name)}",
        include=lines.include, kind=_CPP_KINDS[source.dtype], place=place, to_input=to_input,
        classes=_listed(data.classes, 4),
    )  # fmt: skip
    run = lines.body.format(
        file=PurePath(model.path or "").name, kind=_CPP_KINDS[source.dtype], out_kind=_CPP_KINDS[result.dtype],
        shape=", ".join(map(str, _shape(source, data))), input=source.name, output=result.name,
        from_output=_value(result, "raw[i]"),
    )  # fmt: skip
    return head + run + _CPP_TAIL.format(space=_space(model))


def _kotlin(lines: Kotlin, model: ModelRecord, data: DataRecord, source: FilePort, result: FilePort) -> str:
    low, high = _limits(source.dtype)
    at, put = _place(source), f"x.putFloat(4 * ({_place(source)}), value)"
    if source.dtype != "float32":
        scaled = f"(Math.rint((value / {source.scale}f).toDouble()).toInt() + {source.zero_point}).coerceIn({low}, {high})"
        put = f"x.put({at}, {scaled}.toByte())"
    read = {"float32": "result.getFloat(4 * it)", "int8": "result.get(it)", "uint8": "(result.get(it).toInt() and 0xFF)"}
    tensors = {
        "float32": "OnnxTensor.createTensor(environment, x.asFloatBuffer(), shape)",
        "int8": "OnnxTensor.createTensor(environment, x, shape, ai.onnxruntime.OnnxJavaType.INT8)",
        "uint8": "OnnxTensor.createTensor(environment, x, shape, ai.onnxruntime.OnnxJavaType.UINT8)",
    }
    head = _KOTLIN_HEAD.format(
        **_facts(model, data, "Kotlin compiler and Android library"), gradle=lines.gradle,
        imports=lines.imports,
        bytes=_BYTES[source.dtype], put=put, classes=_listed(data.classes, 4).replace("$", "\\$"),
    )  # fmt: skip
    return head + lines.body.format(
        file=PurePath(model.path or "").name, out_bytes=_BYTES[result.dtype], input=source.name, output=result.name,
        shape=", ".join(f"{side}L" for side in _shape(source, data)), tensor=tensors[source.dtype],
        from_output=_value(result, read[result.dtype]),
    )  # fmt: skip


def _facts(model: ModelRecord, data: DataRecord, lacking: str) -> dict[str, object]:
    """What both languages say of the file and of its input."""
    return {
        "title": f"{model.name} ({model.precision}) in {base.label(model.format)}",
        "space": _space(model),
        "untested": _UNTESTED.format(lacking=lacking) if lacking else "",
        "height": data.size[0],
        "width": data.size[1],
        "channels": data.channels,
        "mean": ", ".join(f"{value!r}f" for value in data.mean),
        "std": ", ".join(f"{value!r}f" for value in data.std),
        "statistic": "channel" if len(data.mean) > 1 else "0",
    }


def _space(model: ModelRecord) -> str:
    """The file's own namespace or package: an app may have several files."""
    return re.sub(r"\W", "_", model.name)


def _listed(classes: Sequence[str], indent: int) -> str:
    """Texts with commas between them, broken into lines where they are many."""
    lines = textwrap.wrap(", ".join(json.dumps(name, ensure_ascii=False).replace(" ", "\0") for name in classes), 110)
    text = lines[0] if len(lines) == 1 else "".join(f"\n{' ' * indent}{line}" for line in lines)
    return text.replace("\0", " ")


def _value(result: FilePort, raw: str) -> str:
    """An output's element as float."""
    return raw if result.dtype == "float32" else f"({raw} - {result.zero_point}) * {result.scale}f"


def _place(source: FilePort) -> str:
    """Index of row, column and channel in the input."""
    if source.layout == "NHWC":
        return "(row * WIDTH + column) * CHANNELS + channel"
    return "(channel * HEIGHT + row) * WIDTH + column"


def _shape(source: FilePort, data: DataRecord) -> tuple[int, ...]:
    """Shape of one image."""
    sides = data.size
    return (1, *sides, data.channels) if source.layout == "NHWC" else (1, data.channels, *sides)


def _limits(dtype: str) -> tuple[int, int]:
    return (0, 255) if dtype == "uint8" else (-128, 127)
