"""What the stages make of ``distill.teacher_cache``: who shares the teacher's outputs, and what a plan says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd import cache
from edgekd.assembly import teacher_outputs
from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.distill.teacher_cache import rows
from edgekd.engine import plan
from edgekd.loading import load
from edgekd.progress import Silent
from edgekd.recipe import Recipe
from edgekd.recipe.distill import TeacherCache
from edgekd.recipe.teacher import Teacher
from edgekd.stages.distill import DistillStage
from edgekd.stages.quantize import QuantizeStage
from edgekd.stages.teacher import TeacherStage

RECIPE = """\
edgekd: 1
data: {source: SOURCE, image_size: 16, augment: [flip]}
teacher: {model: edgekd:resnet10, args: {width: 4}, train: {epochs: 1, batch_size: 16}}
student: {model: edgekd:resnet10, args: {width: 2}}
distill: {epochs: 2, batch_size: 24, losses: [{kind: task}, {kind: kd}, {kind: fitnet}], teacher_cache: CACHE}
quantize: {epochs: 1}
"""


class Telling(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text.strip())

    def cache(self) -> str:
        return next(text for text in reversed(self.said) if text.startswith("teacher cache"))


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def make(tmp_path: Path, npz: Callable[..., str]) -> Callable[..., Any]:
    """A loaded recipe with its cache, and with changes."""
    file = tmp_path / "small.yaml"
    source = npz()

    def call(settings: str = "true", *overrides: str) -> Any:
        file.write_text(RECIPE.replace("SOURCE", source).replace("CACHE", settings))
        return load(file, overrides)

    return call


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Path, Telling]]:
    """Run a stage and finish it under a key."""

    def call(stage: Any, recipe: Recipe, key: str, processes: int = 1, **inputs: Path) -> tuple[Path, Telling]:
        progress = Telling()
        with cache.scratch() as out:
            perform(stage, Context(recipe, key, out, inputs, tmp_path / "log", progress, processes))
            return cache.commit(out, key, {}, 0.0).path, progress

    return call


def finished(key: str, content: bytes = b"weights", name: str = "weights.safetensors") -> Path:
    """A stage that has left one file."""
    with cache.scratch() as out:
        (out / name).write_bytes(content)
        return cache.commit(out, key, {}, 0.0).path


def same(a: Path, b: Path) -> bool:
    names = ("weights", "last", "adapters")
    return all((a / f"{name}.safetensors").read_bytes() == (b / f"{name}.safetensors").read_bytes() for name in names)


def test_the_student_is_the_same_and_quantization_reads_on(make: Any, run: Any) -> None:
    kept, live = make().recipe, make("false").recipe
    taught, _ = run(TeacherStage(), kept, "aa")
    first, told = run(DistillStage(), kept, "first", teacher=taught)
    assert told.cache() == "teacher cache: 0 images read, 144 computed"
    assert same(first, run(DistillStage(), live, "live", teacher=taught)[0])
    qat, told = run(QuantizeStage(), kept, "qat", teacher=taught, distill=first)
    assert told.cache() == "teacher cache: 72 images read, 0 computed"
    again, told = run(DistillStage(), kept, "again", teacher=taught)
    assert told.cache() == "teacher cache: 144 images read, 0 computed"
    assert same(first, again)
    cold, _ = run(QuantizeStage(), kept, "cold", teacher=taught.rename(taught.with_name("bb")), distill=first)
    assert same(qat, cold)


def test_another_teacher_is_never_read(make: Any, run: Any) -> None:
    recipe = make().recipe
    taught, _ = run(TeacherStage(), recipe, "aa")
    run(DistillStage(), recipe, "first", teacher=taught)
    _, told = run(DistillStage(), recipe, "second", teacher=taught.rename(taught.with_name("bb")))
    assert told.cache() == "teacher cache: 0 images read, 144 computed"
    assert "0 % there (1 other cache of edgekd:resnet10 not read: other weights, images, augmentation" in " ".join(told.said)


def test_other_weights_under_the_same_key_are_never_read(make: Any, run: Any) -> None:
    """As a teacher has that was trained again on another machine, or with other threads."""
    recipe = make().recipe
    for number in range(2):
        taught, _ = run(TeacherStage(), make("true", f"seed={number}").recipe, "aa")
        _, told = run(DistillStage(), recipe, f"student{number}", teacher=taught)
        assert told.cache() == "teacher cache: 0 images read, 144 computed"


def test_a_float_student_as_the_teacher_has_records_of_its_own(make: Any, run: Any) -> None:
    recipe = make("true", "quantize.self_distill=true").recipe
    taught, _ = run(TeacherStage(), recipe, "aa")
    first, _ = run(DistillStage(), recipe, "bb", teacher=taught)
    _, told = run(QuantizeStage(), recipe, "qat", distill=first)
    assert told.cache() == "teacher cache: 0 images read, 72 computed"
    _, told = run(QuantizeStage(), recipe, "again", distill=first)
    assert told.cache() == "teacher cache: 72 images read, 0 computed"


def test_several_processes_share_it(make: Any, run: Any) -> None:
    """72 images in two shares of 36: a batch of 24 each."""
    recipe = make("{dtype: float16}").recipe
    taught, _ = run(TeacherStage(), recipe, "aa")
    cold, _ = run(DistillStage(), recipe, "cold", processes=2, teacher=taught)
    place = teacher_outputs.records_folder(recipe, {"teacher": taught}, "teacher")
    assert rows.describe(place, 2, TeacherCache(dtype="float16"), "auto", "").startswith("layer1 66 %")
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    warm, _ = run(DistillStage(), recipe, "warm", processes=2, teacher=taught)
    assert same(cold, warm)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def test_the_plan_says_what_is_there(make: Any, run: Any) -> None:
    def notes(settings: str, *overrides: str) -> dict[str, str]:
        return {step.name: step.note for step in plan.make(make(settings, *overrides)) if step.note}

    assert notes("false") == {}
    unknown = "teacher cache: not known before {} has run"
    assert notes("true") == dict.fromkeys(("distill", "quantize"), unknown.format("teacher"))
    assert notes("true", "quantize.self_distill=true")["quantize"] == unknown.format("distill")
    loaded = make()
    key = next(step.key for step in plan.make(loaded) if step.name == "teacher")
    taught, _ = run(TeacherStage(), loaded.recipe, key)
    empty = "teacher cache: empty, filled while it trains"
    assert notes("true") == {"distill": empty, "quantize": empty}
    run(DistillStage(), loaded.recipe, "first", teacher=taught)
    found = notes("true")
    assert found["distill"].startswith(
        "teacher cache: layer1 100 %, layer2 100 %, layer3 100 %, layer4 100 %, logits 100 % of 2 draws, "
    )
    assert "logits 100 % of 1 draw," in found["quantize"]
    assert "logits 50 % of 4 draws" in notes("true", "distill.epochs=4")["distill"]
    assert notes("{dtype: float16}")["distill"] == empty
    assert notes("true", "data.augment=[crop]")["distill"] == unknown.format("teacher")
    assert notes("true", "distill.batch_size=12")["distill"] == (
        f"{empty} (1 other cache of edgekd:resnet10 not read: other weights, images, augmentation, seed or batch size)"
    )
    assert notes("true", "distill.losses=[{kind: kd, temperature: 2}]") == found
    assert notes("true", "quantize={method: ptq}").keys() == {"distill"}


def test_keys(make: Any) -> None:
    """What changes no byte of the student changes no key; quantization-aware training sees other views with a cache."""

    def keys(settings: str) -> dict[str, str]:
        return {step.name: step.key for step in plan.make(make(settings))}

    live, exact, lossy = keys("false"), keys("true"), keys("{draws: 1}")
    assert [live[name] == exact[name] for name in ("student_alone", "distill", "quantize")] == [True, True, False]
    assert [live[name] == lossy[name] for name in ("student_alone", "distill", "quantize")] == [True, False, False]
    assert lossy == keys("{draws: 1, features: false}")  # which float32 does not round


def test_features_are_in_the_key_where_they_are_rounded(make: Any, run: Any) -> None:
    """Another student has another key; plain kd reads no features."""

    def keys(settings: str) -> dict[str, str]:
        return {step.name: step.key for step in plan.make(make(settings, "baselines=[kd]"))}

    halves = ("{draws: 1, dtype: float16}", "{draws: 1, dtype: float16, features: false}")
    kept, live = (keys(settings) for settings in halves)
    assert [kept[name] == live[name] for name in ("teacher", "kd", "distill", "quantize")] == [True, True, False, False]
    taught, _ = run(TeacherStage(), make().recipe, "aa")
    first, second = (run(DistillStage(), make(settings).recipe, name, teacher=taught)[0]
                     for settings, name in zip(halves, ("kept", "live"), strict=True))  # fmt: skip
    assert not same(first, second)


def test_no_cache_without_a_teacher(make: Any) -> None:
    from edgekd.errors import RecipeError

    with pytest.raises(RecipeError) as caught:
        make("true", "teacher=null", "distill.losses=[{kind: task}]")
    assert str(caught.value).startswith("--set teacher=null: distill.teacher_cache: there is no teacher (")


def test_records_are_in_the_cache_folder(make: Any) -> None:
    place = teacher_outputs.records_folder(make().recipe, {"teacher": finished("aa")}, "teacher")
    assert place.parent == cache.root() / "teachers"


@pytest.mark.parametrize("name", ["weights.safetensors", "black_box.json"])
def test_the_folder_is_named_by_the_weights(make: Any, name: str) -> None:
    """A stage that was run again may have left others under its key: trained by more threads, or on another machine."""
    recipe = make().recipe
    first, again, other = (
        teacher_outputs.records_folder(recipe, {"teacher": finished("aa", content, name)}, "teacher")
        for content in (b"one", b"one", b"two")
    )
    assert first == again
    assert first != other


def test_several_teachers_have_a_place_of_their_own(make: Any) -> None:
    """Their logits are kept together, so it depends on each of them."""
    recipe = make().recipe
    one = {"model": "edgekd:resnet10", "train": {"epochs": 1}}
    several = recipe.model_copy(update={"teacher": Teacher.model_validate({"ensemble": [one, one]})})
    first, second = several.teacher.stages()
    made = [{first: finished("aa"), second: finished(key)} for key in ("bb", "cc")]
    places = {teacher_outputs.records_folder(several, each, "teacher") for each in made}
    finished("bb", b"others")
    places |= {teacher_outputs.records_folder(several, made[0], "teacher")}
    assert len(places | {teacher_outputs.records_folder(recipe, {"teacher": finished("aa")}, "teacher")}) == 4
