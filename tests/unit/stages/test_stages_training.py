"""The training stages for real, on few images: what they write, and on several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import make_arrays

from edgekd import reads
from edgekd.assembly import launch, networks, wiring
from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.data import dataset
from edgekd.errors import StageError, StorageError, TrainingError
from edgekd.models import build
from edgekd.progress import Lines, Silent
from edgekd.reads import watch
from edgekd.recipe import Recipe
from edgekd.results.codec import to_json
from edgekd.results.findings import Finding, listed
from edgekd.stages import distill, package
from edgekd.stages.distill import DistillStage
from edgekd.stages.student import StudentStage
from edgekd.stages.teacher import TeacherStage
from edgekd.task.image_classification import purpose


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    """Stages make the whole process deterministic; other tests need not be."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def recipe(shared: Path) -> Recipe:
    np.savez(shared / "data.npz", **make_arrays())
    return make(f"npz:{shared / 'data.npz'}")


def make(source: str, **changes: Any) -> Recipe:
    value: dict[str, Any] = {
        "edgekd": 1,
        "data": {"source": source, "image_size": 16, "augment": ["flip"]},
        "teacher": {"model": "edgekd:resnet10", "args": {"width": 4}, "train": {"epochs": 1, "batch_size": 16}},
        "student": {"model": "edgekd:resnet10", "args": {"width": 2}},
        "distill": {"epochs": 2, "batch_size": 16, "losses": [{"kind": "task"}, {"kind": "kd"}, {"kind": "fitnet"}]},
    }
    for key, change in changes.items():
        value[key] = value.get(key, {}) | change if isinstance(change, dict) else change
    return Recipe.model_validate(value)


def runs_in(folder: Path) -> Callable[..., Path]:
    """Run a stage into a folder of its own."""

    def call(
        stage: Any, recipe: Recipe, name: str = "out", processes: int = 1, progress: Any = None, **inputs: Path
    ) -> Path:
        out = folder / name
        out.mkdir()
        context = Context(
            recipe=recipe, name=name, out=out, inputs=inputs, log=folder / "log", progress=progress or Silent(),
            processes=processes, threads=1,
        )  # fmt: skip
        perform(stage, context)
        return out

    return call


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    return runs_in(tmp_path)


@pytest.fixture(scope="module")
def taught(shared: Path, recipe: Recipe) -> Path:
    """The teacher's output, which tests read and none changes."""
    return runs_in(shared)(TeacherStage(), recipe, "teacher")


@pytest.fixture(scope="module")
def distilled(shared: Path, recipe: Recipe, taught: Path) -> Path:
    """The student's output of one process, which tests read and none changes."""
    return runs_in(shared)(DistillStage(), recipe, "distill", teacher=taught)


def weights(folder: Path, name: str = "weights") -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_teacher_then_distill(recipe: Recipe, taught: Path, distilled: Path) -> None:
    assert {path.name for path in taught.iterdir()} == {
        "weights.safetensors", "last.safetensors", "adapters.safetensors", "output.json",
    }  # fmt: skip
    out = distilled
    curve = json.loads((out / "output.json").read_text())["curve"]
    assert curve["model"] == "distilled"
    assert list(curve["terms"]) == ["task", "kd", "fitnet"]
    assert curve["pairs"][0] == "fitnet: layer1 (2 ch) ← layer1 (4 ch) at 16×16"
    student = networks.student(recipe, purpose(recipe.data, 4), out / "weights.safetensors")
    assert equal(dict(student.state_dict()), weights(out))
    assert set(weights(out, "adapters")) == {f"fitnet.{i}.{part}" for i in range(4) for part in ("weight", "bias")}


def test_the_same_bytes_twice(run: Callable[..., Path], recipe: Recipe, taught: Path, distilled: Path) -> None:
    second = run(DistillStage(), recipe, "second", teacher=taught)
    for name in ("weights", "last", "adapters"):
        assert (distilled / f"{name}.safetensors").read_bytes() == (second / f"{name}.safetensors").read_bytes()


def test_student_alone_starts_from_the_same_weights(run: Callable[..., Path], recipe: Recipe, taught: Path) -> None:
    """With a learning rate next to zero both stay where they start."""
    still = make(recipe.data.source, distill={"lr": 1e-30, "weight_decay": 0.0})
    together, alone = (
        run(DistillStage(), still, "distill", teacher=taught),
        run(DistillStage(), distill.alone(still), "student_alone"),
    )
    ours, theirs = weights(together, "last"), weights(alone, "last")
    learnt = [name for name in ours if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-20) for name in learnt)
    curve = json.loads((alone / "output.json").read_text())["curve"]
    assert curve["model"] == "student_alone"
    assert list(curve["terms"]) == ["task"]


def test_alone_has_the_same_budget_without_a_teacher(recipe: Recipe) -> None:
    alone = distill.alone(recipe)
    assert alone.teacher is None
    assert alone.distill is not None
    assert recipe.distill is not None
    assert [(loss.kind, loss.weight) for loss in alone.distill.losses] == [("task", 1.0)]
    assert alone.distill.model_dump(exclude={"losses"}) == recipe.distill.model_dump(exclude={"losses"})
    only_kd = make(recipe.data.source, distill={"losses": [{"kind": "kd"}]})
    assert distill.alone(only_kd) == alone
    # a term that comes late beside a teacher is all there is without one
    late = {"kind": "task", "start_epoch": 1, "warmup_epochs": 0.5, "end_epoch": 2}
    assert distill.alone(make(recipe.data.source, distill={"losses": [late]})) == alone


def test_teacher_in_half_is_the_one_that_teaches(run: Callable[..., Path], recipe: Recipe, tmp_path: Path) -> None:
    train = {"epochs": 1, "batch_size": 16, "save_dtype": "float16"}
    half = make(recipe.data.source, teacher={"train": train})
    out = run(TeacherStage(), half, "teacher")
    assert weights(out)["head.weight"].dtype == torch.float16
    assert half.teacher is not None
    context = Context(half, "distill", tmp_path, {"teacher": out}, tmp_path / "log", Silent())
    loaded = networks.teacher(half.teacher, "teacher", context, dataset.load(half.data))
    assert torch.equal(loaded.state_dict()["head.weight"], weights(out)["head.weight"].float())
    assert not loaded.training


def test_a_given_teacher(run: Callable[..., Path], recipe: Recipe, taught: Path) -> None:
    given = make(recipe.data.source, teacher={"train": None, "weights": str(taught / "weights.safetensors")})
    out = run(TeacherStage(), given, "given")
    assert sorted(path.name for path in out.iterdir()) == ["output.json", "weights.safetensors"]
    assert equal(weights(out), weights(taught))


def test_a_teacher_with_weights_and_a_budget_is_fine_tuned(
    run: Callable[..., Path], recipe: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It starts from its weights; a head for another number of classes is left out, as the student's is."""
    torch.manual_seed(7)
    state = build.network("edgekd:resnet10", {"width": 4}, purpose(recipe.data, 6)).state_dict()
    networks.save(state, tmp_path / "six.safetensors")
    slow = {"epochs": 1, "batch_size": 16, "lr": 1e-9, "warmup_epochs": 0}
    tuned = make(recipe.data.source, teacher={"weights": str(tmp_path / "six.safetensors"), "train": slow})
    out = weights(run(TeacherStage(), tuned, "tuned", progress=Lines()))
    assert "  tuned.weights: head.bias, head.weight left out, for another number of classes" in capfd.readouterr().err
    learnt = [name for name, value in out.items() if value.ndim > 1 and name != "head.weight"]
    assert all(torch.allclose(out[name], state[name], atol=1e-5) for name in learnt)
    assert out["head.weight"].shape[0] == 4
    assert TeacherStage().config(tuned, "teacher")["teacher"]["weights"] != TeacherStage().config(recipe, "teacher")[
        "teacher"
    ].get("weights")


def test_a_teacher_s_classes_are_put_in_the_order_of_the_data(recipe: Recipe, taught: Path, tmp_path: Path) -> None:
    """And its probabilities become logits."""
    file = {"train": None, "weights": str(taught / "weights.safetensors")}
    other = make(recipe.data.source, teacher=file | {"classes": ["2", "0", "3", "1"], "outputs": "probabilities"})
    images = dataset.load(recipe.data)
    built = []
    for one in (make(recipe.data.source, teacher=file), other):
        assert one.teacher is not None
        context = Context(
            recipe=one, name="x", out=tmp_path, inputs={"teacher": taught}, log=tmp_path / "log", progress=Silent()
        )
        built.append(networks.teacher(one.teacher, "teacher", context, images))
    x = build.one_input(purpose(recipe.data).signature, 3)
    with torch.no_grad():
        plain, arranged = (network(x) for network in built)
    assert torch.equal(arranged, plain.clamp_min(1e-12).log()[:, [1, 3, 0, 2]])
    assert TeacherStage().config(other, "teacher") != TeacherStage().config(
        make(recipe.data.source, teacher=file), "teacher"
    )


@pytest.mark.parametrize("losses", [[{"kind": "task"}], [{"kind": "task"}, {"kind": "fitnet"}]], ids=["plain", "tapped"])
def test_ema_weights_are_the_ones_kept(run: Callable[..., Path], recipe: Recipe, taught: Path, losses: Any) -> None:
    """The curve validates the average; the weights that ship must be the same ones."""
    from edgekd.data import dataset
    from edgekd.data.batches import Prepare
    from edgekd.train.loop import score

    smooth = make(recipe.data.source, distill={"ema": 0.9, "lr": 0.05, "losses": losses})
    plain = make(recipe.data.source, distill={"lr": 0.05, "losses": losses})
    out = run(DistillStage(), smooth, "smooth", teacher=taught)
    assert not equal(weights(out, "last"), weights(run(DistillStage(), plain, "plain", teacher=taught), "last"))
    images = dataset.load(smooth.data)
    student = networks.student(smooth, purpose(smooth.data, 4), out / "last.safetensors")
    curve = json.loads((out / "output.json").read_text())["curve"]
    assert score(student, images.val, Prepare(images), torch.device("cpu"), images.purpose) == curve["val"]["top1"][-1]


def test_several_processes(
    run: Callable[..., Path], recipe: Recipe, taught: Path, distilled: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two CPU processes, all losses; process 0 writes and speaks. Each step sees 2 × 16 images."""
    out = run(DistillStage(), recipe, "distill", processes=2, progress=Lines(), teacher=taught)
    said = capfd.readouterr().err
    assert said.count("  distilled: started") == 1
    assert said.count("  fitnet: layer1 (2 ch)") == 1
    assert {path.name for path in out.iterdir()} == {path.name for path in distilled.iterdir()}
    assert not equal(weights(out, "last"), weights(distilled, "last"))
    several, one = (json.loads((folder / "output.json").read_text())["curve"] for folder in (out, distilled))
    assert several["pairs"] == one["pairs"]
    networks.student(recipe, purpose(recipe.data, 4), out / "weights.safetensors")


def test_several_processes_where_no_loss_reads_the_logits(run: Callable[..., Path], recipe: Recipe, taught: Path) -> None:
    """They wait for the gradient of every parameter, of the classifier too."""
    related = make(recipe.data.source, distill={"losses": [{"kind": "rkd"}]})
    out = run(DistillStage(), related, "distill", processes=2, teacher=taught)
    curve = json.loads((out / "output.json").read_text())["curve"]
    assert len(curve["terms"]["rkd"]) == 2
    assert curve["terms"]["rkd"][1] < curve["terms"]["rkd"][0]


def _report_weights(fabric: Any, context: Context) -> None:
    """Train as distill does, and write what each process ends with."""
    from edgekd.data import dataset
    from edgekd.distill.outputs import Facts
    from edgekd.distill.terms import Terms
    from edgekd.taps.taps import Tapped
    from edgekd.train.loop import Trainable, fit

    recipe = context.recipe
    assert recipe.distill is not None
    torch.manual_seed(fabric.global_rank)  # each starts elsewhere: only what is shared makes them equal
    student = networks.student(recipe, purpose(recipe.data, 4))
    terms = Terms(recipe.distill.losses, student, None, torch.zeros(1, 3, 16, 16), Facts(4, 72))
    seen: list[int] = []

    class Counting(Tapped):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            if self.training:
                seen.append(len(x))
            return super().forward(x)

    trainable = Trainable("two", Counting(student), terms, recipe.distill, 0)
    fit(fabric, trainable, dataset.load(recipe.data), recipe.data, context.progress)
    learnt = {name: p.detach().clone().contiguous() for name, p in student.named_parameters()}
    networks.save(learnt, context.out / f"{fabric.global_rank}.safetensors")
    (context.out / f"{fabric.global_rank}.json").write_text(json.dumps(seen))


def test_processes_end_with_the_same_weights(tmp_path: Path, recipe: Recipe) -> None:
    plain = make(recipe.data.source, distill={"losses": [{"kind": "task"}]}, teacher=None)
    context = Context(
        recipe=plain, name="two", out=tmp_path, inputs={}, log=tmp_path / "log", progress=Silent(), processes=2
    )
    assert plain.distill is not None
    launch.launch(context, plain.distill, _report_weights)
    assert equal(weights(tmp_path, "0"), weights(tmp_path, "1"))
    # 72 images in two shares of 36: two batches of 16 an epoch on each
    assert json.loads((tmp_path / "0.json").read_text()) == json.loads((tmp_path / "1.json").read_text()) == [16] * 4


def test_too_few_images_for_the_processes(run: Callable[..., Path], recipe: Recipe) -> None:
    wide = make(recipe.data.source, distill={"batch_size": 64, "losses": [{"kind": "task"}]}, teacher=None)
    with pytest.raises(TrainingError) as caught:
        run(DistillStage(), wide, processes=2)
    assert str(caught.value) == (
        "student_alone: 72 training images are less than one batch of 64 for each of 2 processes\n"
        "  → lower batch_size or --processes"
    )


def _meet_a_full_disk(fabric: Any, context: Context) -> None:
    raise StorageError("the disk is full while writing weights", "free some space")


def test_a_failure_of_a_process_is_the_failure_it_was(tmp_path: Path, recipe: Recipe) -> None:
    """A search, for one, goes on where the disk has room again, and where a loss is not finite."""
    context = Context(
        recipe=recipe, name="two", out=tmp_path, inputs={}, log=tmp_path / "log", progress=Silent(), processes=2
    )
    assert recipe.distill is not None
    with pytest.raises(StorageError) as caught:
        launch.launch(context, recipe.distill, _meet_a_full_disk)
    assert str(caught.value) == "the disk is full while writing weights\n  → free some space"


def _read_a_file(fabric: Any, context: Context) -> None:
    net = context.log.parent / f"net{fabric.global_rank}.py"
    with reads.in_key(net):
        net.read_text()
    (context.log.parent / f"cfg{fabric.global_rank}.json").read_text()


def test_what_each_process_reads_is_compared_with_the_key_and_recorded(tmp_path: Path, recipe: Recipe) -> None:
    """Also if the bytes of the key are back at the end."""
    for name in ("net0.py", "net1.py", "cfg0.json", "cfg1.json"):
        (tmp_path / name).write_text("1")
    (tmp_path / "out").mkdir()
    with reads.hashing() as files:
        reads.file_sha256(tmp_path / "net0.py")
        reads.file_sha256(tmp_path / "net1.py")
    (tmp_path / "net1.py").write_text("2")
    context = Context(recipe, "two", tmp_path / "out", {}, tmp_path / "log", Silent(), processes=2, files=files)
    assert recipe.distill is not None
    with watch.recording(files) as recorder:
        launch.launch(context, recipe.distill, _read_a_file)
    (tmp_path / "net1.py").write_text("1")
    assert recorder.changed() == str(tmp_path / "net1.py")
    assert [read.relative for read in recorder.reads(tmp_path)] == ["cfg0.json", "cfg1.json"]
    assert not [*(tmp_path / "out").iterdir()]
    with pytest.raises(StageError, match="changed during this run"):
        context.reads(recorder)


def _be_killed(fabric: Any, context: Context) -> None:
    if fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def test_a_process_that_is_killed_ends_all_with_its_reason(tmp_path: Path, recipe: Recipe) -> None:
    """The other one would wait for it."""
    context = Context(
        recipe=recipe, name="two", out=tmp_path, inputs={}, log=tmp_path / "log", progress=Silent(), processes=2
    )
    assert recipe.distill is not None
    with pytest.raises(StageError, match=r"^process 2 of 2 was killed \(SIGKILL\), as systems do when the memory is full"):
        launch.launch(context, recipe.distill, _be_killed)
    assert not multiprocessing.active_children()


def test_another_head_is_said_aloud(
    run: Callable[..., Path], recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What recipe.Student.weights promises."""
    from edgekd.models import build

    other = build.network("edgekd:resnet10", {"width": 2}, purpose(recipe.data, 7))
    file = str(tmp_path / "other.safetensors")
    networks.save(dict(other.state_dict()), Path(file))
    warm = make(recipe.data.source, student={"weights": file}, teacher=None, distill={"losses": [{"kind": "task"}]})
    run(DistillStage(), warm, progress=Lines())
    assert "head" in capsys.readouterr().err


def test_a_rewrite_is_told_and_every_stage_makes_it_again(
    run: Callable[..., Path], npz: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    rules = {"hardswish": "relu6", "se": "drop"}
    student = {"model": "torchvision:mobilenet_v3_small", "args": {}, "rewrite": rules}
    changed = make(npz(), student=student, teacher=None, distill={"epochs": 1, "losses": [{"kind": "task"}]})
    out = run(DistillStage(), changed, "distill", progress=Lines(sys.stdout))
    told = ["squeeze-excite → nothing: 9 places", "hardswish → relu6: 19 places"]
    said = capsys.readouterr().out
    assert all(f"student.rewrite: {line}\n" in said for line in told)
    context = Context(recipe=changed, name="package", out=out, inputs={"distill": out}, log=out / "log", progress=Silent())
    assert package.rewrites(context) == (Finding("rewritten", figures={"changes": told}),)
    again = networks.student(
        changed, purpose(changed.data, 4), out / "weights.safetensors"
    )  # it would raise if keys did not fit
    assert equal(dict(again.state_dict()), weights(out))
    assert not any(type(module).__name__ in {"Hardswish", "SqueezeExcitation"} for module in again.modules())


def test_given_weights_that_are_rewritten_are_said_to_be_unchecked(
    run: Callable[..., Path], recipe: Recipe, npz: Callable[..., str]
) -> None:
    """The network may compute something else until it is trained, so nothing is proved by running it; nor is it silent."""
    file = Path(npz().removeprefix("npz:")).with_name("given.safetensors")
    network = build.network("torchvision:mobilenet_v3_small", {}, purpose(recipe.data, 4))
    networks.save(dict(network.state_dict()), file)
    given = {"model": "torchvision:mobilenet_v3_small", "args": {}, "weights": str(file), "rewrite": {"hardswish": "relu6"}}
    used = Recipe.model_validate(
        {"edgekd": 1, "data": recipe.data.model_dump(), "student": given, "quantize": {"method": "ptq"}, "export": ["onnx"]}
    )
    out = run(StudentStage(), used, "student")
    assert json.loads((out / "output.json").read_text())["doubts"] == [to_json(wiring.UNCHECKED)]


def test_a_student_that_is_slow_in_int8_is_advised_and_the_advice_is_right(
    run: Callable[..., Path], npz: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"teacher": None, "distill": {"epochs": 1, "losses": [{"kind": "task"}]}}
    changes |= {"quantize": {"epochs": 1}, "export": ["tflite"]}
    slow = make(npz(), student={"model": "torchvision:mobilenet_v3_small", "args": {}}, **changes)
    out = run(DistillStage(), slow, "distill", progress=Lines(sys.stdout))
    said = capsys.readouterr().out
    figures = {"kind": "hardswish", "count": 19, "formats": ["tflite"], "trained": True}
    advice = Finding("no_int8_kernel", "advice", "student", figures)
    assert f"  {listed(advice)}\n" in said
    context = Context(recipe=slow, name="package", out=out, inputs={"distill": out}, log=out / "log", progress=Silent())
    assert package.rewrites(context)[0] == advice
    structure = json.loads((out / "output.json").read_text())["structure"]
    assert distill.advice(slow.model_copy(update={"quantize": None}), structure) == ()
