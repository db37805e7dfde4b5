"""Teachers of which only the outputs are known, on files made here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekd.assembly import black_box
from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.data import dataset
from edgekd.data.preprocessing import Preprocessing
from edgekd.distill.teachers import BlackBox, Stored
from edgekd.engine import plan, runner
from edgekd.errors import ModelError
from edgekd.exporting import foreign
from edgekd.loading import load
from edgekd.loading.conflicts import conflicts
from edgekd.progress import Silent
from edgekd.recipe import Recipe
from edgekd.stages.distill import DistillStage
from edgekd.stages.teacher import TeacherStage

W = np.random.default_rng(5).normal(size=(4, 3, 16, 16)).astype(np.float32) / 16  # a linear classifier of 3×16×16 images


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def write_onnx(path: Path, *, nhwc: bool = False, batch: int | str = "N", w: np.ndarray = W, softmax: bool = False,
               rank: int = 2) -> Path:  # fmt: skip
    """x · W, with the weights in the layout of the input."""
    classes, *shape = (w.transpose(0, 2, 3, 1) if nhwc else w).shape
    matrix = (w.transpose(0, 2, 3, 1) if nhwc else w).reshape(classes, -1).T.copy()
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["z" if softmax or rank == 4 else "y"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["y"], axis=1))
    if rank == 4:
        nodes.append(helper.make_node("Unsqueeze", ["z", "axes"], ["y"]))
    graph = helper.make_graph(
        nodes, "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, classes, 1, 1][:rank])],
        [numpy_helper.from_array(matrix, "w"), numpy_helper.from_array(np.array([2, 3]), "axes")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def make(source: str, section: dict[str, Any], **changes: Any) -> Recipe:
    value: dict[str, Any] = {
        "edgekd": 1,
        "data": {"source": source, "image_size": 16},
        "teacher": section,
        "student": {"model": "edgekd:resnet10", "args": {"width": 2, "stem_stride": 2}},
        "distill": {"epochs": 1, "batch_size": 16, "warmup_epochs": 0, "losses": [{"kind": "kd"}]},
        "baselines": [],
    }
    return Recipe.model_validate(value | changes)


def outputs(recipe: Recipe, x: torch.Tensor) -> np.ndarray:
    assert recipe.teacher is not None
    network = black_box.load(recipe.teacher, recipe.data, dataset.load(recipe.data), 1)
    assert isinstance(network, BlackBox)
    return network(x).numpy()


@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize("batch", ["N", 1])
def test_layout_and_batch_are_read_from_the_file(tmp_path: Path, nhwc: bool, batch: int | str) -> None:
    call = foreign.opened(write_onnx(tmp_path / "t.onnx", nhwc=nhwc, batch=batch), "onnx", (3, 16, 16))
    x = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(call(x), np.einsum("nchw,kchw->nk", x, W), atol=1e-4)


def test_openvino_runs_the_same(tmp_path: Path) -> None:
    from edgekd.runtimes.openvino import imported

    openvino = imported()
    openvino.save_model(openvino.convert_model(write_onnx(tmp_path / "t.onnx")), tmp_path / "t.xml", compress_to_fp16=False)
    x = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    call = foreign.opened(tmp_path / "t.xml", "openvino", (3, 16, 16))
    np.testing.assert_allclose(call(x), np.einsum("nchw,kchw->nk", x, W), atol=1e-4)


def test_probabilities_and_its_own_normalization(tmp_path: Path, npz: Callable[..., str]) -> None:
    file = f"onnx:{write_onnx(tmp_path / 't.onnx', softmax=True)}"
    own = {"model": file, "outputs": "probabilities", "mean": [0.5], "std": [0.25, 0.5, 1.0]}
    recipe = make(npz(), own)
    images = dataset.load(recipe.data)
    pixels = np.stack([images.test.images[i] for i in range(4)])
    x = torch.from_numpy(images.preprocessing.arrays(pixels))
    wanted = np.einsum("nchw,kchw->nk", Preprocessing((0.5,), (0.25, 0.5, 1.0), 3).arrays(pixels), W)
    got = outputs(recipe, x)
    np.testing.assert_allclose(np.exp(got) / np.exp(got).sum(1, keepdims=True),
                               np.exp(wanted) / np.exp(wanted).sum(1, keepdims=True), atol=1e-4)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": W[:3]}, "t.onnx has 3 classes, and the data has 4"),
        ({"w": W[:, :, :8, :8]}, "t.onnx takes ?×3×8×8, and the recipe's images are 3×16×16"),
        ({"batch": 8}, "t.onnx takes batches of 8 images"),
        ({"rank": 4}, "t.onnx gives outputs of 4 dimensions, not N×classes"),
    ],
)
def test_a_file_that_does_not_fit_stops_before_training(
    tmp_path: Path, npz: Callable[..., str], change: dict[str, Any], message: str
) -> None:
    recipe = make(npz(), {"model": f"onnx:{write_onnx(tmp_path / 't.onnx', **change)}"})
    context = Context(recipe, "teacher", tmp_path, {}, tmp_path / "log", Silent())
    with pytest.raises(ModelError, match=message.replace("?", r"\?")):
        perform(TeacherStage(), context)


def test_other_classes_stop_a_run_before_anything_is_trained(
    tmp_path: Path, npz: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With two threads the student alone would train beside the stage that looks at the file."""
    (tmp_path / "r.yaml").write_text(
        f"edgekd: 1\ndata: {{source: '{npz()}', image_size: 16}}\n"
        f"teacher: {{model: 'onnx:{write_onnx(tmp_path / 't.onnx', w=W[:3])}'}}\n"
        "student: {model: edgekd:resnet10}\ndistill: {epochs: 1, losses: [{kind: kd}]}\n"
    )
    begun: list[str] = []
    monkeypatch.setattr(DistillStage, "run", lambda _stage, context: begun.append(context.name))
    loaded = load(tmp_path / "r.yaml", ())
    assert [step.name for step in plan.make(loaded)][:3] == ["teacher", "student_alone", "distill"]
    with pytest.raises(ModelError, match="t.onnx has 3 classes, and the data has 4"):
        runner.run(loaded, runner.Options(tmp_path / "reports", Silent(), threads=2))
    assert begun == []


def test_a_file_that_is_no_model(tmp_path: Path, npz: Callable[..., str]) -> None:
    (tmp_path / "t.onnx").write_text("nothing")
    with pytest.raises(ModelError, match="t.onnx cannot be loaded"):
        outputs(make(npz(), {"model": f"onnx:{tmp_path / 't.onnx'}"}), torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("kind", ["onnx:t.onnx", "openvino:t.xml", "outputs:t.npz"])
def test_a_missing_file_is_told_by_the_plan(npz: Callable[..., str], kind: str) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        TeacherStage().config(make(npz(), {"model": kind}), "teacher")


def test_a_file_counts_with_all_that_its_runtime_reads(tmp_path: Path, npz: Callable[..., str]) -> None:
    """Weights beside an ONNX file, those of a subgraph and a constant too."""
    model = onnx.load(write_onnx(tmp_path / "t.onnx"))
    branch = helper.make_graph([helper.make_node("Identity", ["v"], ["u"])], "branch", [],
                               [helper.make_tensor_value_info("u", TensorProto.FLOAT, [64])],
                               [numpy_helper.from_array(np.zeros(64, np.float32), "v")])  # fmt: skip
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(64, np.float32)))
    model.graph.node.extend([constant, helper.make_node("If", ["b"], ["i"], then_branch=branch, else_branch=branch)])
    *_, copied, choice = model.graph.node
    tensors = (model.graph.initializer[0], copied.attribute[0].t, choice.attribute[0].g.initializer[0])
    for number, tensor in enumerate(tensors):
        onnx.external_data_helper.set_external_data(tensor, f"{number}.bin")
        (tmp_path / f"{number}.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
    (tmp_path / "t.onnx").write_bytes(model.SerializeToString())
    recipe = make(npz(), {"model": f"onnx:{tmp_path / 't.onnx'}"})
    keys = [TeacherStage().config(recipe, "teacher")]
    assert len(keys[0]["teacher"]["model"]) == 1 + 1 + len(tensors)
    for number in range(len(tensors)):
        content = bytearray((tmp_path / f"{number}.bin").read_bytes())
        content[0] ^= 1
        (tmp_path / f"{number}.bin").write_bytes(content)
        keys.append(TeacherStage().config(recipe, "teacher"))
        assert keys[-1] != keys[-2]
    (tmp_path / "0.bin").unlink()
    with pytest.raises(ModelError, match="0.bin does not exist\n  → put it there: t.onnx has its weights in it"):
        TeacherStage().config(recipe, "teacher")


def run(recipe: Recipe, folder: Path) -> dict[str, Path]:
    done: dict[str, Path] = {}
    for node in plan.nodes(recipe):
        if node.stage.name in ("teacher", "distill", "evaluate"):
            out = done[node.name] = folder / node.name
            out.mkdir(parents=True)
            inputs = {name: done[name] for name in node.inputs}
            context = Context(node.recipe, node.name, out, inputs, folder / "log", Silent())
            perform(node.stage, context)
    return done


def test_stored_outputs_teach_as_the_file_does(tmp_path: Path, npz: Callable[..., str]) -> None:
    """The same student from the file and from what the file gives, looked up by the images' indices."""
    source = npz()
    from_file = make(source, {"model": f"onnx:{write_onnx(tmp_path / 't.onnx')}"})
    arrays = np.load(source.removeprefix("npz:"))
    images = dataset.load(from_file.data)

    def logits(name: str) -> np.ndarray:
        pixels = arrays[name] if arrays[name].ndim == 4 else arrays[name][..., None]
        x = images.preprocessing.arrays(np.moveaxis(pixels, -1, 1))
        return np.einsum("nchw,kchw->nk", x, W)

    np.savez(tmp_path / "o.npz", train=logits("x_train"), test=logits("x_test"))
    from_outputs = make(source, {"model": f"outputs:{tmp_path / 'o.npz'}"})
    first, second = run(from_file, tmp_path / "file"), run(from_outputs, tmp_path / "stored")
    curves = [json.loads((done["distill"] / "output.json").read_text())["curve"]["terms"]["kd"] for done in (first, second)]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    judged = [json.loads((done["distill"] / "output.json").read_text())["taught"] for done in (first, second)]
    entropies = [value.pop("softness")[0]["entropy"] for value in judged]
    assert entropies[1] == pytest.approx(entropies[0], rel=1e-4)
    assert judged[0] == judged[1]
    rows = [json.loads((done["evaluate"] / "output.json").read_text())["models"]["teacher"] for done in (first, second)]
    assert list(rows[0]) == ["metrics"]  # its size is not known
    assert rows[0]["metrics"][0]["values"]["top1"] == rows[1]["metrics"][0]["values"]["top1"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"logits": np.zeros((3, 4))}, "holds logits, but no train"),
        ({"train": np.zeros((3, 4))}, r"train is float64 of shape \(3, 4\); the data has"),
        ({"train": "classes"}, "has 5 classes, and the data has 4"),
        ({"train": "nan"}, "train has NaN in "),
    ],
)
def test_stored_outputs_that_do_not_fit(
    tmp_path: Path, npz: Callable[..., str], arrays: dict[str, Any], message: str
) -> None:
    recipe = make(npz(), {"model": f"outputs:{tmp_path / 'o.npz'}"})
    assert recipe.teacher is not None
    images = dataset.load(recipe.data)
    full = np.zeros((len(images.train) + len(images.val), 5 if "classes" in str(arrays.get("train")) else 4))
    if isinstance(arrays.get("train"), str):
        arrays = {"train": full + (np.nan if arrays["train"] == "nan" else 0)}
    np.savez(tmp_path / "o.npz", **arrays)
    with pytest.raises(ModelError, match=message):
        black_box.load(recipe.teacher, recipe.data, images, 1)


def test_a_file_is_looked_at_before_another_member_is_trained(npz: Callable[..., str]) -> None:
    net = {"model": "edgekd:resnet10", "args": {"width": 2}}
    section = {
        "ensemble": [net | {"train": {"epochs": 1}}, net | {"weights": "w.pt"}, {"model": "onnx:t.onnx", "name": "file"}]
    }
    found = [(node.name, node.recipe.seed) for node in plan.nodes(make(npz(), section)) if node.stage.name == "teacher"]
    assert found == [("teacher.resnet10_2", 1), ("teacher.file", 2), ("teacher.resnet10", 0)]


def test_a_member_of_an_ensemble_may_be_a_file(tmp_path: Path, npz: Callable[..., str]) -> None:
    net = {"model": "edgekd:resnet10", "args": {"width": 2}, "train": {"epochs": 1, "batch_size": 16, "warmup_epochs": 0}}
    section = {"ensemble": [{"model": f"onnx:{write_onnx(tmp_path / 'file.onnx')}", "name": "file"}, net]}
    done = run(make(npz(), section), tmp_path / "run")
    assert list(done) == ["teacher.file", "teacher.resnet10", "distill", "evaluate"]
    measured = json.loads((done["evaluate"] / "output.json").read_text())["models"]
    assert list(measured) == ["teacher.file", "teacher.resnet10", "teacher", "distilled"]
    assert "params" not in measured["teacher"]


@pytest.mark.parametrize(
    ("section", "changes", "found"),
    [
        ({"model": "onnx:t.onnx", "train": {"epochs": 1}}, {}, "teacher.train"),
        ({"model": "onnx:t.onnx", "mean": [0.5]}, {}, "teacher.mean"),
        ({"model": "onnx:t.onnx", "mean": [0.5, 0.5], "std": [1.0]}, {}, "teacher.mean"),
        ({"model": "outputs:o.npz", "mean": [0.5], "std": [1.0]}, {}, "teacher.mean"),
        ({"model": "outputs:o.npz"}, {"augment": ["flip"]}, "data.augment"),
        ({"model": "edgekd:resnet10", "train": {"epochs": 1}, "outputs": "probabilities"}, {}, "teacher.outputs"),
        ({"model": "edgekd:resnet10", "train": {"epochs": 1}, "classes": ["b", "a"]}, {}, "teacher.classes"),
        ({"ensemble": [{"model": "outputs:o.npz"}, {"model": "onnx:t.onnx"}]}, {}, "teacher.ensemble[0].model"),
    ],
)
def test_impossible_black_boxes(section: dict[str, Any], changes: dict[str, Any], found: str) -> None:
    recipe = make("fashion-mnist-mini", section)
    recipe = recipe.model_copy(update={"data": recipe.data.model_validate({"source": "fashion-mnist-mini"} | changes)})
    assert found in [key for key, _, _ in conflicts(recipe)]


def test_a_loss_on_layers_of_a_black_box() -> None:
    recipe = make("fashion-mnist-mini", {"model": "tflite:t.tflite"}, distill={"epochs": 1, "losses": [{"kind": "fitnet"}]})
    assert list(conflicts(recipe)) == [
        ("distill.losses[0].kind", "fitnet compares layers, and of t.tflite only the outputs are known",
         "use kd, or another loss on logits"),
    ]  # fmt: skip


def test_stored_outputs_know_no_image() -> None:
    stored = Stored(torch.ones(3, 4), torch.ones(1, 4), None)
    assert stored(torch.zeros(2, 3, 8, 8)).tolist() == [[0.0] * 4] * 2
