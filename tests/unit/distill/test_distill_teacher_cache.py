"""The teacher cache, in real trainings: the same student, a teacher that is not asked, damaged files."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.data import dataset
from edgekd.distill.outputs import Facts
from edgekd.distill.teacher_cache.recording import Dense, Recorded, Recording, TopK, TrainingFacts, codec_of
from edgekd.distill.teacher_cache.rows import Rows, describe, folder, written
from edgekd.distill.terms import Terms
from edgekd.errors import StorageError, TrainingError
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill, TeacherCache
from edgekd.taps.taps import Tapped
from edgekd.train.loop import Fitted, Teaching, Trainable, fit

X = torch.zeros(1, 3, 16, 16)
KD = ({"kind": "task"}, {"kind": "kd"})
BOTH = (*KD, {"kind": "fitnet"})


class Counted(nn.Module):
    """A teacher that counts the images it is shown, but for the two of the probe."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.images = -2

    def forward(self, x: Tensor) -> Any:
        self.images += len(x)
        return tuple(output.float() for output in self.network(x))  # as the maps of a vision transformer under autocast


@pytest.fixture
def section(npz: Callable[..., str]) -> Data:
    """72 images to train on; with batches of 16, 64 a pass."""
    return Data(source=npz(channels=3), image_size=16, augment=("crop", "flip"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "records"


@pytest.fixture
def run(fabric: Fabric, section: Data, small: Any, place: Path) -> Callable[..., tuple[Fitted, int, list[str]]]:
    """Train for three epochs; returns what was fitted, how many images the teacher saw, and what was said."""

    def call(
        losses: Any = BOTH, *, cache: dict[str, Any] | None = None, folder: Path = place, fabric: Fabric = fabric,
        **budget: Any,
    ) -> Any:  # fmt: skip
        settings = Distill.model_validate({"epochs": 3, "batch_size": 16, "warmup_epochs": 0, "losses": losses, **budget})
        student, teacher = small(), small(1, width=8)
        torch.manual_seed(0)
        terms = Terms(settings.losses, student, teacher, X, Facts(classes=4, samples=72))
        counted = Counted(Tapped(teacher, terms.teacher_paths))
        said: list[str] = []
        recording = None if cache is None else Recording(folder, TeacherCache(**cache), "small", said.append)
        trainable = Trainable.tapped("net", student, terms, settings, 0)
        teaching = Teaching(counted, recording=recording)
        fitted = fit(fabric, trainable, dataset.load(section), section, Silent(), teaching)
        return fitted, counted.images, said

    return call


def same(a: Fitted, b: Fitted) -> bool:
    states = ((a.last, b.last), (a.best, b.best), (a.adapters, b.adapters))
    return replace(a.curve, seconds=0) == replace(b.curve, seconds=0) and all(
        x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in states
    )


# --- the same student -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("losses", [KD, BOTH])
def test_float32_and_all_draws_change_nothing(run: Callable[..., Any], losses: Any) -> None:
    live, _, _ = run(losses)
    cold, asked, said = run(losses, cache={})
    assert same(cold, live)
    assert asked == 3 * 64
    assert said[-1] == "  teacher cache: 0 images read, 192 computed"
    warm, asked, said = run(losses, cache={})
    assert same(warm, live)
    assert asked == 0
    assert said[-1] == "  teacher cache: 192 images read, 0 computed"


@pytest.mark.parametrize(
    "cache", [{"dtype": "float16"}, {"top_k": 2}, {"draws": 2}, {"draws": 1, "dtype": "float16", "top_k": 1}]
)
def test_cold_and_warm_are_the_same_where_less_is_kept(run: Callable[..., Any], cache: dict[str, Any]) -> None:
    live, _, _ = run(BOTH)
    cold, _, _ = run(BOTH, cache=cache)
    warm, asked, _ = run(BOTH, cache=cache)
    assert asked == 0
    assert same(cold, warm)
    assert not same(cold, live)


def test_draws_come_round(run: Callable[..., Any], tmp_path: Path) -> None:
    """One draw: a second pass over 64 of the images, in another order, may bring the 8 that the first one left out."""
    first, _, _ = run(KD, cache={"draws": 1}, batch_size=24)  # all 72 in each pass
    one, asked, _ = run(KD, cache={"draws": 1}, batch_size=24, epochs=9)
    assert asked == 0
    assert same(first, run(KD, cache={"draws": 1}, batch_size=24)[0])
    assert not same(one, first)
    place = tmp_path / "left out"
    first, asked, _ = run(KD, cache={"draws": 1}, folder=place)
    assert 64 < asked < 3 * 64
    again, asked, _ = run(KD, cache={"draws": 1}, folder=place)
    assert asked == 0
    assert same(first, again)


def test_features_that_are_not_kept_are_computed(run: Callable[..., Any], tmp_path: Path) -> None:
    """The draws are the recipe's all the same, so that the student does not depend on what is kept."""
    kept, _, _ = run(BOTH, cache={"draws": 2}, folder=tmp_path / "kept")
    live, asked, said = run(BOTH, cache={"draws": 2, "features": False})
    assert asked == 3 * 64
    assert said[0].startswith("  teacher cache: 2 draws × 72 images × 4 classes in float32: ")
    assert said[-1] == "  teacher cache: 0 images read, 192 computed"
    assert same(kept, live)
    _, asked, _ = run(KD, cache={"draws": 2, "features": False})
    assert asked == 0  # the logits are there: this loss reads no features


@pytest.mark.parametrize("cache", [{"draws": 1, "dtype": "float16"}, {"top_k": 2}])
def test_without_features_the_logits_are_what_is_kept_of_them(
    run: Callable[..., Any], tmp_path: Path, cache: dict[str, Any]
) -> None:
    """Also where the teacher runs anyway; features are what it says."""
    cold, _, _ = run(BOTH, cache={**cache, "features": False})
    warm, _, _ = run(BOTH, cache={**cache, "features": False})
    assert same(cold, warm)
    exact, _, _ = run(BOTH, cache={**cache, "features": False, "dtype": "float32", "top_k": None}, folder=tmp_path / "exact")
    assert not same(cold, exact)
    kept, _, _ = run(BOTH, cache=cache, folder=tmp_path / "kept")
    assert same(cold, kept) == (cache.get("dtype") != "float16")


def test_losses_share_what_is_kept(run: Callable[..., Any]) -> None:
    run(BOTH, cache={})
    live, _, _ = run(({"kind": "kd", "temperature": 2},))
    read, asked, _ = run(({"kind": "kd", "temperature": 2},), cache={})
    assert asked == 0
    assert same(read, live)


def test_another_way_of_keeping_is_another_record(run: Callable[..., Any]) -> None:
    run(KD, cache={})
    for cache in ({"dtype": "float16"}, {"top_k": 2}, {"top_k": 3}):
        _, asked, _ = run(KD, cache=cache)
        assert asked == 3 * 64


def test_another_precision_is_another_record(run: Callable[..., Any], place: Path) -> None:
    """Though what the teacher gives is of one type."""
    mixed = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    live, _, _ = run(BOTH, fabric=mixed)
    run(BOTH, cache={})
    cold, asked, _ = run(BOTH, cache={}, fabric=mixed)
    assert asked == 3 * 64
    assert same(cold, live)
    told = {name: describe(place, 3, TeacherCache(), name, "") for name in ("32-true", "auto")}
    assert told["32-true"].startswith("down1 88 %, down2 88 %, stem 88 %, logits 88 % of 3 draws, ")
    assert "stem 88 %, stem 88 % in bf16-mixed, logits 88 %, logits 88 % in bf16-mixed of 3 draws, " in told["auto"]


def test_top_k_of_all_classes_is_found_again(run: Callable[..., Any], place: Path) -> None:
    run(KD, cache={"top_k": 4})
    found = [describe(place, 3, TeacherCache(top_k=k), "auto", "") for k in (3, 4, 5)]
    assert [text.split(",")[0] for text in found] == ["empty", *["logits 88 % of 3 draws"] * 2]
    run(KD, cache={"top_k": 3}, epochs=1)
    assert describe(place, 3, TeacherCache(top_k=3), "auto", "").startswith("logits 29 % of 3 draws")


def test_what_the_folder_depends_on() -> None:
    one = folder("teacher", 0, 64)
    others = {folder("another", 0, 64), folder("teacher", 1, 64), folder("teacher", 0, 32)}
    assert one == folder("teacher", 0, 64)
    assert len(others | {one}) == 4


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    live, _, _ = run(BOTH)
    write, written = Rows.write, []

    def interrupted(rows: Rows, *args: Any) -> None:
        written.append(0)
        if len(written) == 3 * 5 + 2:  # logits and three stages, in the middle of the fifth step
            raise KeyboardInterrupt
        write(rows, *args)

    monkeypatch.setattr(Rows, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(BOTH, cache={})
    monkeypatch.undo()
    again, asked, _ = run(BOTH, cache={})
    assert same(again, live)
    assert asked == (12 - 4) * 16


@pytest.mark.parametrize("suffix", [".rows", ".sums"])
def test_damage_is_a_miss_said_aloud(run: Callable[..., Any], place: Path, suffix: str) -> None:
    live, _, _ = run(BOTH, cache={})
    for path in place.glob(f"logits*{suffix}"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    read, asked, said = run(BOTH, cache={})
    assert same(read, live)
    assert asked == 16
    assert said[1:] == [
        "  teacher cache: damaged, or cut short; the teacher is asked again where it does not match its checksum",
        "  teacher cache: 176 images read, 16 computed, 1 damaged and made again",
    ]
    _, asked, _ = run(BOTH, cache={})
    assert asked == 0  # mended


def test_files_that_were_cut_short(run: Callable[..., Any], place: Path) -> None:
    live, _, _ = run(BOTH, cache={})
    for path in place.glob("*.rows"):
        os.truncate(path, path.stat().st_size // 2)
    read, asked, said = run(BOTH, cache={})
    assert same(read, live)
    assert 0 < asked <= 3 * 64
    assert "damaged and made again" in said[-1]


def test_rows_that_were_moved_are_no_rows(tmp_path: Path) -> None:
    """A file that lost its beginning: each checksum still fits a row, but not at this place."""
    content = np.arange(40, dtype=np.uint8).reshape(10, 4)
    rows = Rows(tmp_path / "a", 4)
    rows.write(np.arange(10), content)
    rows.close()
    for suffix in (".rows", ".sums"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(path.read_bytes()[4:])
    moved = Rows(tmp_path / "a", 4)
    assert not moved.read(np.arange(9))[1].any()
    moved.close()


def test_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    content = random.integers(0, 256, (20, 7), np.uint8)
    content[3] = 0  # zeros are a row like any other
    rows, other = Rows(tmp_path / "a", 7), Rows(tmp_path / "a", 7)
    numbers = random.permutation(1000)[:20]
    rows.write(numbers, content)
    asked = np.concatenate([numbers[::-1], np.setdiff1d(np.arange(1000), numbers)[:5]])
    read, found = other.read(asked)  # as another process would
    assert np.array_equal(read[:20], content[::-1])
    assert found.tolist() == [True] * 20 + [False] * 5
    assert written(tmp_path / "a.sums", 1000) == 20
    assert written(tmp_path / "a.sums", 500) == (numbers < 500).sum()
    assert other.damaged == 0
    for each in (rows, other):
        each.close()


def test_too_little_room_is_said_before_training(
    run: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=60_000_000)  # enough for the records, but not for the weights as well
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError) as caught:
        run(KD, cache={"dtype": "float16"})
    assert str(caught.value) == (
        "teacher cache: 3 draws × 72 images × 4 classes in float16 needs 2.6 kB more beside 64 MB for what is trained, and "
        f"{place} has 60 MB free\n"
        "  → free some space, lower distill.teacher_cache.draws, set its dtype: float16 or features: false, "
        "or choose another disk with EDGEKD_CACHE"
    )
    monkeypatch.undo()
    run(KD, cache={"dtype": "float16"}, batch_size=72)  # every image of every pass
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    _, asked, said = run(KD, cache={"dtype": "float16"})  # no more is needed
    assert asked == 0
    assert said[0] == "  teacher cache: 3 draws × 72 images × 4 classes in float16: 2.6 kB, 100 % there"


def test_room_is_left_for_the_weights_of_a_large_student(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best ones and the last ones."""
    usage = shutil.disk_usage("/")._replace(free=265_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    recording = Recording(place, TeacherCache(), "small", lambda _: None)
    probe = (torch.zeros(2, 4),)
    Recorded(recording, nn.Identity(), (), probe, TrainingFacts(72, 3, "32-true", 100_000_000)).close()
    with pytest.raises(StorageError, match="needs 4.3 kB more beside 266 MB for what is trained"):
        Recorded(recording, nn.Identity(), (), probe, TrainingFacts(72, 3, "32-true", 101_000_000))


def test_a_disk_that_fills_up_does_not_end_training(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    live, _, _ = run(KD)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    fitted, asked, said = run(KD, cache={})
    assert same(fitted, live)
    assert asked == 3 * 64
    assert said[1] == "  teacher cache: No space left on device; it is not extended, and the teacher computes missing rows"
    assert len(said) == 3


def test_a_loss_that_is_not_finite_closes_the_files(run: Callable[..., Any]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(TrainingError):
        run(BOTH, cache={}, optimizer="sgd", lr=1e30)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- how it is kept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5,), (6, 3, 2), (6, 1, 1), (1, 4, 4), (7, 9)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_an_output_comes_back_as_it_was(given: torch.dtype, shape: tuple[int, ...], channels_last: bool) -> None:
    """Bits, type and layout in memory."""
    output = torch.randn(4, *shape).to(given)
    if channels_last and len(shape) == 3:
        output = output.to(memory_format=torch.channels_last)
    codec = codec_of(output[:2], TeacherCache(), first=True)
    back = codec.decode(codec.encode(output))
    assert torch.equal(back, output)
    assert back.dtype == output.dtype
    assert back.stride() == output.stride()
    assert codec.encode(output).shape == (4, codec.size)


def test_float16_has_no_infinities() -> None:
    output = torch.tensor([[1e6, -1e6, 0.5]])
    codec = Dense((3,), (0,), torch.float16, torch.float32)
    assert codec.decode(codec.encode(output)).tolist() == [[65504.0, -65504.0, 0.5]]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_top_k_against_numpy(temperature: float) -> None:
    """At temperature 1 the k probabilities are exact; above, the rest gets too much, never too little."""
    logits = torch.randn(64, 100, dtype=torch.float32) * 4
    codec = TopK(5, 100, torch.float32, torch.float32)
    back = codec.decode(codec.encode(logits)).double().numpy()

    def softmax(z: Any) -> Any:
        e = np.exp((z - z.max(1, keepdims=True)) / temperature)
        return e / e.sum(1, keepdims=True)

    exact, kept = softmax(logits.double().numpy()), softmax(back)
    top = np.argsort(-logits.numpy(), 1)[:, :5]
    of_exact, of_kept = np.take_along_axis(exact, top, 1), np.take_along_axis(kept, top, 1)
    np.testing.assert_allclose(kept.sum(1), 1)
    assert len(np.unique(back[0])) == 6  # five, and one value for all others
    if temperature == 1:
        np.testing.assert_allclose(of_kept, of_exact, rtol=1e-5)
    else:
        odds = (1 / of_kept.sum(1) - 1) / (1 / of_exact.sum(1) - 1)  # the others' weight against that of the five
        assert (odds > 1).all()
        assert (odds < 95 ** (1 - 1 / temperature)).all()
    assert codec.size == 6 * 4 + 5 * 4


def test_top_k_of_few_classes_is_all_of_them() -> None:
    output = torch.randn(2, 4)
    assert isinstance(codec_of(output, TeacherCache(top_k=4), first=True), Dense)
    assert isinstance(codec_of(output, TeacherCache(top_k=3), first=True), TopK)
    assert isinstance(codec_of(output, TeacherCache(top_k=3), first=False), Dense)  # a feature
