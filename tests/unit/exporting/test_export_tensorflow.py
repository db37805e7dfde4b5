"""Keras files and SavedModels: what is refused without TensorFlow, how its process is spoken to, and TensorFlow itself.

The last tests run where TensorFlow is installed: pip install -e '.[tensorflow]'.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.assembly import black_box
from edgekd.errors import ModelError, RecipeError
from edgekd.exporting import foreign
from edgekd.loading import load
from edgekd.recipe import Recipe
from edgekd.runtimes import tensorflow

WITH_TENSORFLOW = pytest.mark.skipif(not tensorflow.installed(), reason="pip install -e '.[tensorflow]' to run it")
X = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32)

DENSE = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"units": 4, "activation": "softmax"},
    "registered_name": None,
}


def keras_file(path: Path, *layers: dict[str, Any]) -> Path:
    config = {"module": "keras", "class_name": "Sequential", "config": {"layers": list(layers)}}
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
    return path


def layer(name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}), "has a Lambda, whose code"),
        (layer("TorchModuleWrapper"), "has a TorchModuleWrapper, whose code"),
        (layer("TFSMLayer", filepath="/elsewhere"), "has a TFSMLayer, whose code"),
        (layer("Attention", "my.layers"), "has a Attention of my.layers, which is not Keras' own"),
        (layer("system", "os"), "has a system of os, which"),
        (layer("get_file", "keras.utils"), "has a get_file of keras.utils, which"),
        (layer("Thing", "keras.layersmine"), "of keras.layersmine, which"),
        (layer("Dense", activation={"module": "builtins", "class_name": "function", "config": "evil"}), "has a function, "),
        (layer("TimeDistributed", layer=layer("Lambda")), "has a Lambda, whose code"),
    ],
)  # fmt: skip
def test_a_keras_file_with_code_is_refused(tmp_path: Path, found: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError) as caught:
        tensorflow.refuse_code(keras_file(tmp_path / "t.keras", DENSE, found))
    assert told in str(caught.value)
    assert "savedmodel:DIR" in str(caught.value)


def test_keras_own_layers_pass(tmp_path: Path) -> None:
    shape = {"class_name": "__keras_tensor__", "config": {"shape": [None, 4]}}
    own = [
        DENSE, layer("Multiply", "keras.src.ops.numpy", args=[shape]), layer("Functional", "keras.src.models.functional"),
        layer("Conv2D", dtype=layer("DTypePolicy", "keras"), initializer=layer("GlorotUniform", "keras.initializers")),
    ]  # fmt: skip
    tensorflow.refuse_code(keras_file(tmp_path / "t.keras", *own))


@pytest.mark.parametrize("content", [b"nothing", b"PK\x05\x06" + b"\0" * 18])
def test_no_keras_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.keras"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is not a \.keras file") as caught:
        tensorflow.refuse_code(path)
    assert "model.save('FILE.keras')" in str(caught.value)


RECIPE = """\
edgekd: 1
data: {source: fashion-mnist-mini}
teacher: TEACHER
student: {model: edgekd:resnet10}
distill: {epochs: 1, losses: [{kind: kd}]}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[[str], Recipe]:
    def call(teacher: str) -> Recipe:
        path = tmp_path / "r.yaml"
        path.write_text(RECIPE.replace("TEACHER", teacher))
        return load(path, ()).recipe

    return call


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ("{model: keras:t.h5}", "t.h5 is another file, which can hold code that Keras runs when it loads it"),
        ("{model: keras:t.pb}", "t.pb is another file, not a .keras one"),
        ("{model: 'savedmodel:'}", "does not say which file"),
        ("{model: keras:t.keras, signature: s}", "teacher.signature: only a savedmodel has signatures"),
        (
            "{model: edgekd:resnet10, train: {epochs: 1}, signature: s}",
            "teacher.signature: only a black box has this option",
        ),
    ],
)
def test_recipes_that_cannot_be(
    recipe: Callable[[str], Recipe], monkeypatch: pytest.MonkeyPatch, teacher: str, told: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(RecipeError) as caught:
        recipe(teacher)
    assert told in str(caught.value)


@pytest.mark.parametrize("teacher", ["{model: keras:t.keras}", "{ensemble: [{model: savedmodel:d}, {model: onnx:t.onnx}]}"])
def test_a_missing_tensorflow_is_told_by_the_check(
    recipe: Callable[[str], Recipe], monkeypatch: pytest.MonkeyPatch, teacher: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError) as caught:
        recipe(teacher)
    assert "files are run by TensorFlow, which is not installed" in str(caught.value)
    assert "pip install 'edgekd[tensorflow]'" in str(caught.value)


def test_the_key_of_a_savedmodel_has_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow, "runtime", lambda: "2.21.0")
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)

    def key() -> dict[str, Any]:
        value = {"edgekd": 1, "data": {"source": "random"}, "teacher": {"model": f"savedmodel:{folder}"}}
        section = Recipe.model_validate(value).teacher
        assert section is not None
        return black_box.config(section)

    with pytest.raises(ModelError, match=r"it has no saved_model\.pb"):
        key()
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"one")
    first = key()
    assert first["runtime"] == "2.21.0"
    assert first == key()
    (folder / "variables" / "variables.index").write_bytes(b"two")
    assert key() != first
    second = key()
    (folder / "variables").rename(tmp_path / "elsewhere")
    (folder / "variables").symlink_to(tmp_path / "elsewhere")
    assert key() == second


STAND_IN = """\
import io, json, struct, sys
import numpy as np

def send(content):
    sys.stdout.buffer.write(struct.pack("<Q", len(content)) + content)
    sys.stdout.buffer.flush()

print("told of threads", sys.argv[3], file=sys.stderr)
send(json.dumps(ANSWER).encode())
while head := sys.stdin.buffer.read(8):
    x = np.load(io.BytesIO(sys.stdin.buffer.read(struct.unpack("<Q", head)[0])))
    if len(x) == 3:
        sys.exit(5)
    answer = io.BytesIO()
    np.save(answer, np.stack([x[:, 0, 0, 0], x[:, 0, 0, 1]], 1))
    send(answer.getvalue() if len(x) != 2 else b'{"error": "two are too many"}')
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A network of a process that answers with each image's first two numbers, without TensorFlow."""
    monkeypatch.setattr(tensorflow, "runtime", lambda: "2.21.0")

    def call(image: tuple[int, int, int], **answer: Any) -> Any:
        worker = tmp_path / "worker.py"
        worker.write_text(STAND_IN.replace("ANSWER", repr({"dtype": "float32"} | answer)))
        monkeypatch.setattr(tensorflow, "WORKER", worker)
        return foreign.opened(tmp_path / "saved", "savedmodel", image)

    return call


def test_layout_and_batch(stand_in: Callable[..., Any]) -> None:
    """Whole batches, or one by one; where all sides are open, TensorFlow's own layout."""
    last, first = np.stack([X[:, 0, 0, 0], X[:, 1, 0, 0]], 1), X[:, 0, 0, :2]
    np.testing.assert_array_equal(stand_in((3, 16, 16), shape=[None, 16, 16, 3])(X), last)
    np.testing.assert_array_equal(stand_in((3, 16, 16), shape=[1, 16, 16, 3])(X), last)
    np.testing.assert_array_equal(stand_in((3, 16, 16), shape=[None, None, None, None])(X), last)
    np.testing.assert_array_equal(stand_in((3, 16, 16), shape=[None, 3, 16, 16])(X), first)


@pytest.mark.parametrize(
    ("image", "answer", "told"),
    [
        ((3, 32, 32), {"shape": [None, 16, 16, 3]}, "saved takes ?×16×16×3, and the recipe's images are 3×32×32"),
        ((3, 16, 16), {"shape": [8, 16, 16, 3]}, "saved takes batches of 8 images"),
        ((3, 16, 16), {"shape": [None, 16, 16, 3], "dtype": "uint8"}, "saved takes uint8, and images come as float32"),
        ((3, 16, 16), {"error": "has 2 inputs", "hint": "give one"}, "saved has 2 inputs\n  → give one"),
    ],
)  # fmt: skip
def test_what_does_not_fit(stand_in: Callable[..., Any], image: Any, answer: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError) as caught:
        stand_in(image, **answer)
    assert told in str(caught.value)


def test_a_network_that_fails_and_a_process_that_ends(stand_in: Callable[..., Any]) -> None:
    call = stand_in((3, 16, 16), shape=[None, 16, 16, 3])
    with pytest.raises(ModelError, match="saved cannot run: two are too many"):
        call(X[:2])
    with pytest.raises(ModelError, match="TensorFlow's process ended with 5: told of threads 1"):
        call(X[:3])


def test_the_process_ends_with_the_network(stand_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    call = stand_in((3, 16, 16), shape=[None, 16, 16, 3])
    assert started[0].poll() is None
    del call
    gc.collect()
    assert started[0].poll() is not None


MODELS = """\
import os, sys
from pathlib import Path
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
import keras
import numpy as np
import tensorflow as tf

folder, x = Path(sys.argv[1]), np.load(sys.argv[2]).transpose(0, 2, 3, 1)
keras.utils.set_random_seed(0)
image = keras.Input((16, 16, 3))
z = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation="relu")(image))
z = keras.layers.GlobalAveragePooling2D()(z * 2 + 1)
model = keras.Model(image, keras.layers.Dropout(0.5)(keras.layers.Dense(4, activation="softmax")(z)))
model.save(folder / "t.keras")
model.export(folder / "saved", verbose=False)
keras.Model(image, keras.layers.Lambda(lambda z: z)(model(image))).save(folder / "lambda.keras")
spec = [tf.TensorSpec([None, 16, 16, 3], tf.float32, "x")]

class Several(tf.Module):
    @tf.function(input_signature=spec)
    def one(self, x):
        return {"y": x[:, 0, 0]}

    @tf.function(input_signature=spec)
    def writes(self, x):
        tf.io.write_file(str(folder / "written"), "x")
        return {"y": x[:, 0, 0]}

several = Several()
tf.saved_model.save(several, str(folder / "several"), {"one": several.one, "writes": several.writes})
np.save(folder / "expected.npy", model(x, training=False).numpy())
"""


@WITH_TENSORFLOW
@pytest.mark.timeout(900)
def test_tensorflow_runs_what_it_has_saved(tmp_path: Path) -> None:
    """One test, for TensorFlow takes long to start: Keras, SavedModel, signatures, a graph that writes, the same bytes."""
    script = tmp_path / "models.py"
    script.write_text(MODELS)
    np.save(tmp_path / "x.npy", X)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(tmp_path / "x.npy")], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = np.load(tmp_path / "expected.npy")
    for name, format in (("t.keras", "keras"), ("saved", "savedmodel")):
        call = foreign.opened(tmp_path / name, format, (3, 16, 16))
        found = call(X)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_array_equal(found, call(X))
    np.testing.assert_array_equal(
        foreign.opened(tmp_path / "several", "savedmodel", (3, 16, 16), 1, "one")(X), X[:, :, 0, 0]
    )
    for name, format, signature, told in (
        ("lambda.keras", "keras", None, "has a Lambda, whose code"),
        (
            "several",
            "savedmodel",
            None,
            "several has 2 signatures and no serving_default\n  → its signatures: one, writes; choose",
        ),
        ("several", "savedmodel", "two", "several has no signature 'two'\n  → its signatures: one, writes; choose"),
        ("several", "savedmodel", "writes", "several has the operator WriteFile, which reads or writes files"),
    ):
        with pytest.raises(ModelError) as caught:
            foreign.opened(tmp_path / name, format, (3, 16, 16), 1, signature)
        assert told in str(caught.value)
    assert not (tmp_path / "written").exists()
