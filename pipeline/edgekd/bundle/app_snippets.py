"""Load snippets for apps: C++ and Kotlin that load a file once, prepare images as the bundle says and return the logits.

The C++ for OpenVINO is compiled and run by the project's own tests; the others are not, and say so in their first lines.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import PurePath

from edgekd.profiling.on_device.runtimes import openvino
from edgekd.results.models import ModelRecord, TensorSpec
from edgekd.results.run import DataRecord

_UNTESTED = """\
// UNTESTED: edgekd has no {lacking} to compile this with. Its numbers are those of manifest.json.
"""

_CPP_HEAD = """\
// {title} in C++17. {build}
{untested}// In an app: #include it, make a Model once, run many images. With -DEDGEKD_MAIN it prints the logits of images.
// An image is {size} x {size} pixels, uint8, one row after the other, channels last.
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

constexpr int kSize = {size}, kChannels = {channels};
constexpr float kMean[] = {{{mean}}}, kStd[] = {{{std}}};
const std::vector<std::string> kClasses = {{{classes}}};  // names of the logits

// float32(pixel) / 255, minus mean, divided by std; grey is repeated to all channels.
inline std::vector<{kind}> prepare(const std::vector<uint8_t>& image) {{
  const int depth = static_cast<int>(image.size()) / (kSize * kSize);
  if (image.size() != static_cast<size_t>(kSize) * kSize * depth || (depth != 1 && depth != kChannels))
    throw std::invalid_argument("the image has another size");
  std::vector<{kind}> x(static_cast<size_t>(kChannels) * kSize * kSize);
  for (int row = 0; row < kSize; ++row)
    for (int column = 0; column < kSize; ++column)
      for (int channel = 0; channel < kChannels; ++channel) {{
        const uint8_t pixel = image[(row * kSize + column) * depth + (depth == 1 ? 0 : channel)];
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

_CPP_OPENVINO = """
struct Model {{
  explicit Model(const std::string& file = "{file}") {{
    ov::Core core;
    // Without the precision hint OpenVINO computes float layers in bfloat16 or float16 where the CPU has it: other logits.
    ov::AnyMap settings{{ov::hint::inference_precision(ov::element::f32), ov::inference_num_threads(1)}};
    ov::CompiledModel compiled;
    try {{
      compiled = core.compile_model(file, "CPU", settings);
    }} catch (const ov::Exception& error) {{  // OpenVINO 2026.4 on Arm refuses some int8 convolutions
      std::fprintf(stderr, "not loaded as int8, trying in float: %s\\n", error.what());
      settings["{without_int8}"] = false;
      compiled = core.compile_model(file, "CPU", settings);
    }}
    request = compiled.create_infer_request();
  }}

  std::vector<float> run(const std::vector<uint8_t>& image) {{
    const std::vector<{kind}> x = prepare(image);
    std::copy(x.begin(), x.end(), request.get_input_tensor().data<{kind}>());
    request.infer();
    const ov::Tensor output = request.get_output_tensor();
    const {out_kind}* raw = output.data<{out_kind}>();
    std::vector<float> logits;
    for (size_t i = 0; i < output.get_size(); ++i) logits.push_back({from_output});
    return logits;
  }}

 private:
  ov::InferRequest request;
}};
"""

_CPP_ONNX = """
struct Model {{
  explicit Model(const std::string& file = "{file}") : session(env, file.c_str(), one_thread()) {{}}

  std::vector<float> run(const std::vector<uint8_t>& image) {{
    std::vector<{kind}> x = prepare(image);
    const int64_t shape[] = {{{shape}}};
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::Value input = Ort::Value::CreateTensor<{kind}>(memory, x.data(), x.size(), shape, 4);
    const char* inputs[] = {{"{input}"}};
    const char* outputs[] = {{"{output}"}};
    auto results = session.Run(Ort::RunOptions{{nullptr}}, inputs, &input, 1, outputs, 1);
    const {out_kind}* raw = results[0].GetTensorData<{out_kind}>();
    std::vector<float> logits;
    for (size_t i = 0; i < results[0].GetTensorTypeAndShapeInfo().GetElementCount(); ++i) logits.push_back({from_output});
    return logits;
  }}

 private:
  static Ort::SessionOptions one_thread() {{
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    return options;
  }}

  Ort::Env env;
  Ort::Session session;
}};
"""

_CPP_TFLITE = """
struct Model {{
  explicit Model(const std::string& file = "{file}") : model(TfLiteModelCreateFromFile(file.c_str()), TfLiteModelDelete) {{
    TfLiteInterpreterOptions* options = TfLiteInterpreterOptionsCreate();
    TfLiteInterpreterOptionsSetNumThreads(options, 1);
    if (model) interpreter.reset(TfLiteInterpreterCreate(model.get(), options));
    TfLiteInterpreterOptionsDelete(options);
    if (!interpreter || TfLiteInterpreterAllocateTensors(interpreter.get()) != kTfLiteOk)
      throw std::runtime_error(file + " cannot be loaded");
  }}

  std::vector<float> run(const std::vector<uint8_t>& image) {{
    const std::vector<{kind}> x = prepare(image);
    TfLiteTensor* input = TfLiteInterpreterGetInputTensor(interpreter.get(), 0);
    TfLiteTensorCopyFromBuffer(input, x.data(), x.size() * sizeof({kind}));
    if (TfLiteInterpreterInvoke(interpreter.get()) != kTfLiteOk) throw std::runtime_error("the network does not run");
    const TfLiteTensor* output = TfLiteInterpreterGetOutputTensor(interpreter.get(), 0);
    const auto* raw = static_cast<const {out_kind}*>(TfLiteTensorData(output));
    std::vector<float> logits;
    for (size_t i = 0; i < TfLiteTensorByteSize(output) / sizeof({out_kind}); ++i) logits.push_back({from_output});
    return logits;
  }}

 private:
  std::unique_ptr<TfLiteModel, void (*)(TfLiteModel*)> model;  // before the interpreter, which needs it to its end
  std::unique_ptr<TfLiteInterpreter, void (*)(TfLiteInterpreter*)> interpreter{{nullptr, TfLiteInterpreterDelete}};
}};
"""

_KOTLIN_HEAD = """\
// {title} in Kotlin for Android: {gradle} in build.gradle.
{untested}// Make a Model once, run many images, and close it.
// An image is {size} x {size} pixels, uint8, one row after the other, channels last: R, G, B, or grey.
package edgekd.{space}

{imports}

private const val SIZE = {size}
private const val CHANNELS = {channels}
private val MEAN = floatArrayOf({mean})
private val STD = floatArrayOf({std})

/** Names of the logits. */
val CLASSES = listOf<String>({classes})

/** float32(pixel) / 255, minus mean, divided by std; grey is repeated to all channels. */
fun prepare(image: ByteArray): ByteBuffer {{
    val depth = image.size / (SIZE * SIZE)
    require(image.size == SIZE * SIZE * depth && (depth == 1 || depth == CHANNELS)) {{ "the image has another size" }}
    val x = ByteBuffer.allocateDirect({bytes} * CHANNELS * SIZE * SIZE).order(ByteOrder.nativeOrder())
    for (row in 0 until SIZE) for (column in 0 until SIZE) for (channel in 0 until CHANNELS) {{
        val pixel = image[(row * SIZE + column) * depth + if (depth == 1) 0 else channel].toInt() and 0xFF
        val statistic = {statistic}
        val value = (pixel / 255f - MEAN[statistic]) / STD[statistic]
        {put}
    }}
    return x
}}
"""

_KOTLIN_TFLITE = """
/** The network; `file` is a MappedByteBuffer of {file}: context.assets.openFd("{file}") and its channel. */
class Model(file: MappedByteBuffer) : AutoCloseable {{
    private val interpreter = Interpreter(file, Interpreter.Options().setNumThreads(1))

    fun run(image: ByteArray): FloatArray {{
        val result = ByteBuffer.allocateDirect(interpreter.getOutputTensor(0).numBytes()).order(ByteOrder.nativeOrder())
        interpreter.run(prepare(image).rewind(), result)
        return FloatArray(result.capacity() / {out_bytes}) {{ {from_output} }}
    }}

    override fun close() = interpreter.close()
}}
"""

_KOTLIN_ONNX = """
/** The network; `file` is the bytes of {file}, such as context.assets.open("{file}").readBytes(). */
class Model(file: ByteArray) : AutoCloseable {{
    private val environment = OrtEnvironment.getEnvironment()
    private val session =
        environment.createSession(file, OrtSession.SessionOptions().apply {{ setIntraOpNumThreads(1) }})

    fun run(image: ByteArray): FloatArray {{
        val shape = longArrayOf({shape})
        val x = prepare(image).apply {{ rewind() }}
        {tensor}.use {{ input ->
            session.run(mapOf("{input}" to input)).use {{ results ->
                val result = (results.get("{output}").get() as OnnxTensor).byteBuffer.order(ByteOrder.nativeOrder())
                return FloatArray(result.remaining() / {out_bytes}) {{ {from_output} }}
            }}
        }}
    }}

    override fun close() = session.close()
}}
"""

_CPP = {
    "openvino": (
        "OpenVINO", "#include <openvino/openvino.hpp>\n", _CPP_OPENVINO, "",
        "g++ -std=c++17 -O2 -DEDGEKD_MAIN load_{name}.cc -lopenvino (with OpenVINO's -I and -L)",
    ),
    "onnx": (
        "ONNX Runtime", "#include <onnxruntime_cxx_api.h>\n", _CPP_ONNX, "headers of ONNX Runtime",
        "g++ -std=c++17 -O2 -DEDGEKD_MAIN load_{name}.cc -lonnxruntime",
    ),
    "tflite": (
        "TensorFlow Lite", '#include "tensorflow/lite/c/c_api.h"  // LiteRT: "tflite/c/c_api.h"\n', _CPP_TFLITE,
        "library of TensorFlow Lite for C", "g++ -std=c++17 -O2 -DEDGEKD_MAIN load_{name}.cc -ltensorflowlite_c",
    ),
}  # fmt: skip
_KOTLIN = {
    "onnx": (
        "ONNX Runtime", 'implementation("com.microsoft.onnxruntime:onnxruntime-android:1.+")', _KOTLIN_ONNX,
        "import ai.onnxruntime.OnnxTensor\nimport ai.onnxruntime.OrtEnvironment\nimport ai.onnxruntime.OrtSession\n"
        "import java.nio.ByteBuffer\nimport java.nio.ByteOrder",
    ),
    "tflite": (
        "TensorFlow Lite", 'implementation("com.google.ai.edge.litert:litert:1.+")', _KOTLIN_TFLITE,
        "import java.nio.ByteBuffer\nimport java.nio.ByteOrder\nimport java.nio.MappedByteBuffer\n"
        "import org.tensorflow.lite.Interpreter",
    ),
}  # fmt: skip
_CPP_KINDS = {"float32": "float", "int8": "int8_t", "uint8": "uint8_t"}
_BYTES = {"float32": 4, "int8": 1, "uint8": 1}


def app_snippets(model: ModelRecord, data: DataRecord) -> dict[str, str]:
    """Return the texts for apps of an artifact that takes one image, by the suffix of their file; none for others."""
    if model.path is None or len(model.inputs) != 1 or not model.outputs or len(model.inputs[0].shape) != 4:
        return {}
    source, result = model.inputs[0], model.outputs[0]
    if source.dtype not in _BYTES or result.dtype not in _BYTES:
        return {}
    found = {".cc": _cpp(model, data, source, result)}
    return found | ({".kt": _kotlin(model, data, source, result)} if model.format in _KOTLIN else {})


def _cpp(model: ModelRecord, data: DataRecord, source: TensorSpec, result: TensorSpec) -> str:
    name, include, body, lacking, build = _CPP[model.format]
    low, high = _limits(source.dtype)
    rounded = f"std::nearbyint(value / {source.scale}f) + {source.zero_point}"
    clipped = f"std::fmin(std::fmax({rounded}, {low}.0f), {high}.0f)"
    to_input = "value" if source.dtype == "float32" else f"static_cast<{_CPP_KINDS[source.dtype]}>({clipped})"
    place = _place(source).replace("SIZE", "kSize").replace("CHANNELS", "kChannels")
    head = _CPP_HEAD.format(
        **_facts(model, data, name, lacking), build=f"Build: {build.format(name=model.name)}",
        include=include, kind=_CPP_KINDS[source.dtype], place=place, to_input=to_input, classes=_listed(data.classes, 4),
    )  # fmt: skip
    run = body.format(
        without_int8=openvino.WITHOUT_INT8,
        file=PurePath(model.path or "").name, kind=_CPP_KINDS[source.dtype], out_kind=_CPP_KINDS[result.dtype],
        shape=", ".join(map(str, _shape(source, data))), input=source.name, output=result.name,
        from_output=_value(result, "raw[i]"),
    )  # fmt: skip
    return head + run + _CPP_TAIL.format(space=_space(model))


def _kotlin(model: ModelRecord, data: DataRecord, source: TensorSpec, result: TensorSpec) -> str:
    name, gradle, body, imports = _KOTLIN[model.format]
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
        **_facts(model, data, name, "Kotlin compiler and Android library"), gradle=gradle, imports=imports,
        bytes=_BYTES[source.dtype], put=put, classes=_listed(data.classes, 4).replace("$", "\\$"),
    )  # fmt: skip
    return head + body.format(
        file=PurePath(model.path or "").name, out_bytes=_BYTES[result.dtype], input=source.name, output=result.name,
        shape=", ".join(f"{side}L" for side in _shape(source, data)), tensor=tensors[source.dtype],
        from_output=_value(result, read[result.dtype]),
    )  # fmt: skip


def _facts(model: ModelRecord, data: DataRecord, runtime: str, lacking: str) -> dict[str, object]:
    """What both languages say of the file and of its input."""
    return {
        "title": f"{model.name} ({model.precision}) in {runtime}",
        "space": _space(model),
        "untested": _UNTESTED.format(lacking=lacking) if lacking else "",
        "size": data.image_size,
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


def _value(result: TensorSpec, raw: str) -> str:
    """An output's element as float."""
    return raw if result.dtype == "float32" else f"({raw} - {result.zero_point}) * {result.scale}f"


def _place(source: TensorSpec) -> str:
    """Index of row, column and channel in the input."""
    if source.layout == "NHWC":
        return "(row * SIZE + column) * CHANNELS + channel"
    return "(channel * SIZE + row) * SIZE + column"


def _shape(source: TensorSpec, data: DataRecord) -> tuple[int, ...]:
    """Shape of one image."""
    sides = (data.image_size, data.image_size)
    return (1, *sides, data.channels) if source.layout == "NHWC" else (1, data.channels, *sides)


def _limits(dtype: str) -> tuple[int, int]:
    return (0, 255) if dtype == "uint8" else (-128, 127)
