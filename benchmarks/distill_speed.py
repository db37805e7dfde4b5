"""What does a distillation step cost: plain, with the teacher, with its outputs kept, and in torchdistill? In turns.

    pip install -e '.[test]'
    python benchmarks/distill_speed.py measure [--rounds 16] [--block 4] [--threads 1]   rounds, into build/distill_speed/
    python benchmarks/distill_speed.py parts                                             what a step is made of
    python benchmarks/distill_speed.py memory [NAME ...]                                 peak memory of each contender
    python benchmarks/distill_speed.py table                                             benchmarks/results/distill_speed.md

ResNet-18 teaches MobileNetV2-0.5 on 32×32 images in batches of 64. Each contender is a whole training loop of its own, data
feed included: edgekd's is ``edgekd.train.loop.fit`` itself, halted after every step. All live in one process and take
turns, a block of steps each a round. A ratio is the median over the rounds of (median step of one block / median step of the
other's block in the same round), with a 95 % bootstrap interval over the rounds. On one thread, time is the processor time
of the process, which other programs disturb less than the clock. Peak memory is of a process of its own for each contender.
Rounds are kept as they are measured, so that a long measurement may be cut short.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekd import environment
from edgekd.data.batches import Normalize, loader, transforms
from edgekd.data.dataset import load
from edgekd.distill.outputs import Batch, Facts
from edgekd.distill.teacher_cache.recording import Recorded, Recording, TrainingFacts
from edgekd.distill.terms import Terms
from edgekd.models import build
from edgekd.models.torchvision import import_torchvision
from edgekd.progress import Silent
from edgekd.recipe.data import Data
from edgekd.recipe.distill import Distill, TeacherCache
from edgekd.taps.taps import Tapped
from edgekd.task.image_classification import IMAGE, purpose
from edgekd.train import loop

RESULT = Path(__file__).parent / "results" / "distill_speed.md"
BUILD = Path(__file__).parents[1] / "build" / "distill_speed"
WARM_UP = 3
SECTION = Data(source="fashion-mnist-mini", image_size=32, augment=("crop", "flip"))
BATCH = 64
TASK = ({"kind": "task"},)
KD = ({"kind": "task", "weight": 0.5}, {"kind": "kd", "temperature": 4, "weight": 0.5})
BARE = "the student's forward, backward and optimizer"
FITNET = ({"kind": "task", "weight": 0.5}, {"kind": "fitnet", "weight": 0.5})


class Done(Exception):  # noqa: N818  # no error
    """Ends a training that has been measured."""


class Turns(Silent):
    """Halts a training after each step until :meth:`step` is called; validation between epochs is not timed."""

    def __init__(self, train: Callable[[Turns], None]) -> None:
        self._go, self._halted = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = False
        self._began = 0.0
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(train,), daemon=True)
        self._thread.start()
        self._halted.acquire()

    def _work(self, train: Callable[[Turns], None]) -> None:
        try:
            train(self)
        except Done:
            pass
        except BaseException as error:
            self.failure = error
        self._halted.release()

    @contextlib.contextmanager
    def task(self, name: str, total: int) -> Iterator[Any]:
        """Open the only task: the training."""
        self._wait()
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Halt after a step; go on timing after a validation."""
        if steps:
            self.seconds = clock() - self._began
            self._wait()
        else:
            self._began = clock()

    def _wait(self) -> None:
        self._halted.release()
        self._go.acquire()
        if self._ended:
            raise Done
        torch.use_deterministic_algorithms(True, warn_only=True)  # as edgekd's stages train
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self._began = clock()

    def step(self) -> float:
        """Take one step and return its seconds."""
        self._go.release()
        self._halted.acquire()
        if self.failure is not None:
            raise self.failure
        return self.seconds

    def end(self) -> None:
        """End the training."""
        self._ended = True
        self._go.release()
        self._thread.join()


def clock() -> float:
    """Seconds: of the processor where one thread does all, else of the clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def student() -> nn.Module:
    torch.manual_seed(0)
    return build.network("torchvision:mobilenet_v2", {"width_mult": 0.5}, purpose(SECTION, 10))


def teacher() -> nn.Module:
    torch.manual_seed(1)
    return build.network("torchvision:resnet18", {}, purpose(SECTION, 10)).eval()


def edgekd(losses: Any, folder: Path | None = None) -> Turns:
    """Run edgekd's own loop; with a folder, the teacher's outputs are kept there."""

    def train(turns: Turns) -> None:
        images = load(SECTION)
        settings = Distill.model_validate({"epochs": 4, "batch_size": BATCH, "losses": losses})
        network, taught = student(), teacher() if losses is not TASK else None
        terms = Terms(settings.losses, network, taught, torch.zeros(1, 3, 32, 32), Facts(10, len(images.train)))
        recording = Recording(folder, TeacherCache(draws=1), "resnet18", lambda _: None) if folder else None
        trainable = loop.Trainable.tapped("measured", network, terms, settings, 0)
        teaching = loop.Teaching.of(taught, terms, recording=recording)
        loop.fit(Fabric(accelerator="cpu", devices=1), trainable, images, SECTION, turns, teaching)

    return Turns(train)


class Pictures(Dataset[tuple[Tensor, int]]):
    """The same images as a torchvision data set gives them, through the transforms of torchdistill's CIFAR recipes."""

    def __init__(self) -> None:
        images = load(SECTION)
        t = import_torchvision().transforms
        self.images = [Image.fromarray(images.train.images[i][0]).convert("RGB") for i in range(len(images.train))]
        self.labels = images.train.labels.tolist()
        self.transform = t.Compose([
            t.RandomCrop(32, padding=4), t.RandomHorizontalFlip(), t.ToTensor(),
            t.Normalize(images.preprocessing.mean * 3, images.preprocessing.std * 3),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def torchdistill(*, ours: bool) -> Callable[[], float]:
    """A step of torchdistill's DistillationBox with KDLoss, as its image classification script takes it.

    With ``ours``, the batches and the memory layout are edgekd's, so that only the training step differs.
    """
    import_torchvision()
    from torchdistill.core.distillation import DistillationBox

    kd = {
        "key": "KDLoss",
        "kwargs": {
            "student_module_path": ".", "student_module_io": "output",
            "teacher_module_path": ".", "teacher_module_io": "output", "temperature": 4.0, "alpha": 0.5,
        },
    }  # fmt: skip
    loader = {
        "dataset_id": "train",
        "sampler": {"class_or_func": torch.utils.data.RandomSampler},
        "kwargs": {"batch_size": BATCH, "drop_last": True},
    }
    config = {
        "num_epochs": 4,
        "train_data_loader": loader,
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only", "forward_hook": {}},
        "student": {"forward_proc": "forward_batch_only", "forward_hook": {}},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": 0.002, "weight_decay": 0.01, **({"fused": True} if ours else {})}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}}},
    }
    pupil, taught = student(), teacher()
    if ours:
        pupil, taught = (cast_layout(network) for network in (pupil, taught))
    cpu = torch.device("cpu")
    pictures: Any = [] if ours else Pictures()
    box: Any = DistillationBox(taught, pupil, {} if ours else {"train": pictures}, config, cpu, None, False, 1)
    box.teacher_model.eval()
    batches = _ours() if ours else _theirs(box)

    def step() -> float:
        torch.use_deterministic_algorithms(False)
        began = clock()
        images, labels, extra = next(batches)
        box.pre_forward_process()
        loss = box.forward_process(images.to(cpu), labels.to(cpu), extra)
        box.post_forward_process(loss=loss)
        if not np.isfinite(loss.item()):
            raise ValueError("the loss is not finite")
        return clock() - began

    return step


def cast_layout(network: nn.Module) -> nn.Module:
    result: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return result


def _theirs(box: Any) -> Iterator[Any]:
    while True:
        box.pre_epoch_process(epoch=0)
        yield from box.train_data_loader


def _ours() -> Iterator[Any]:
    images = load(SECTION)
    batches, dataset, sampler = loader(images.train, SECTION, BATCH, 0)
    normalize = Normalize(images.preprocessing)
    for epoch in range(1000):
        dataset.epoch = sampler.epoch = epoch
        for stored, labels, _ in batches:
            yield normalize(stored[IMAGE]), labels, {}


def teacher_alone() -> Callable[[], float]:
    network = cast_layout(teacher())
    x = next(_ours())[0]

    def step() -> float:
        began = clock()
        with torch.no_grad():
            network(x)
        return clock() - began

    return step


NAMES = {
    "plain": "edgekd, hard labels alone (no teacher)",
    "teacher": "one forward pass of the teacher, nothing else",
    "kd": "edgekd, kd, teacher live",
    "kd_cached": "edgekd, kd, teacher cache warm",
    "fitnet": "edgekd, fitnet, teacher live",
    "fitnet_cached": "edgekd, fitnet, teacher cache warm",
    "torchdistill": "torchdistill's KDLoss, torchvision's transforms",
    "torchdistill_ours": "torchdistill's KDLoss on edgekd's batches, memory layout and optimizer kernel",
}


def start(name: str, folder: Path) -> Callable[[], float]:
    """Make a contender ready; each call is one step and returns its seconds."""
    if name.startswith("torchdistill"):
        return torchdistill(ours=name.endswith("ours"))
    if name == "teacher":
        return teacher_alone()
    losses = {"plain": TASK, "kd": KD, "fitnet": FITNET}[name.removesuffix("_cached")]
    return edgekd(losses, folder if name.endswith("_cached") else None).step


def fill(folder: Path, steps: int) -> None:
    """Train until the outputs that the measured steps read are there."""
    turns = edgekd(FITNET, folder)
    for _ in range(steps):
        turns.step()
    turns.end()


def ratio(over: Sequence[float], under: Sequence[float]) -> tuple[float, float, float]:
    """Median of the rounds' ratios with its 95 % bootstrap interval."""
    ratios = np.asarray(over) / np.asarray(under)
    picks = np.random.default_rng(0).integers(0, len(ratios), (4000, len(ratios)))
    low, high = np.quantile(np.median(ratios[picks], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def peak(name: str, folder: Path) -> float:
    """Take four steps and return the peak resident memory of this process, MiB."""
    step = start(name, folder)
    for _ in range(4):
        step()
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def parts(rounds: int) -> dict[str, float]:
    """Median milliseconds of what a step is made of, each on its own."""
    images = load(SECTION)
    batches, _, _ = loader(images.train, SECTION, BATCH, 0)
    one_by_one = transforms(SECTION)
    normalize, network, cross = Normalize(images.preprocessing), cast_layout(student()), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    found: dict[str, list[float]] = {}
    source = iter(batches)
    pupil, taught = student(), teacher()
    losses = Distill.model_validate({"epochs": 1, "losses": FITNET}).losses
    terms = Terms(losses, pupil, taught, torch.zeros(1, 3, 32, 32), Facts(10, len(images.train)))
    learner = cast_layout(Tapped(pupil, terms.student_paths))
    asked = cast_layout(Tapped(taught, terms.teacher_paths).eval())

    @contextlib.contextmanager
    def timed(what: str) -> Iterator[None]:
        began = clock()
        yield
        found.setdefault(what, []).append(clock() - began)

    for _ in range(rounds):
        with timed("a batch from edgekd's feed (crop and flip)"):
            stored, labels, indices = next(source)
            pixels = stored[IMAGE]
        with timed("crop and flip by torchvision, one image a call"):
            for image in pixels:
                one_by_one(image)
        with timed("normalization"):
            x = normalize(pixels)
        for fills in (False, True):
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
            with timed(
                BARE if not fills else "the same with torch filling fresh tensors, its default in deterministic mode"
            ):
                cross(network(x), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
        # again as edgekd's stages train, for the loop above ends with torch's default
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        own = [output.detach().requires_grad_() for output in learner(x)]
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            training = TrainingFacts(len(images.train), 1, "32-true", 0)
            kept = Recording(Path(folder), TeacherCache(draws=1), "resnet18", lambda _: None)
            recorded = Recorded(kept, asked, terms.teacher_paths, asked(x[:2]), training)
            recorded(x, 0, indices)
            with timed("fitnet: a batch of the teacher's maps from a warm cache"):
                told = recorded(x, 0, indices)
            recorded.close()
        with timed("fitnet: its regressors and errors, forward and backward"):
            terms(own, told, Batch(labels, indices), 0.0)[1].backward()
    return {what: 1000 * statistics.median(values[2:]) for what, values in found.items()}


def table() -> str:
    """The result as Markdown, from what was measured."""
    rows = [json.loads(line) for line in (BUILD / "rounds.jsonl").read_text().splitlines()]
    about = json.loads((BUILD / "about.json").read_text())
    peaks = {path.name.split(".")[1]: float(path.read_text()) for path in BUILD.glob("peak.*.txt")}
    parted: dict[str, float] = json.loads((BUILD / "parts.json").read_text())
    seconds: dict[str, list[float]] = {name: [row["seconds"][name] for row in rows] for name in NAMES}
    load, threads, block = statistics.mean(row["load"] for row in rows), about["threads"], about["block"]
    both = [plain + once for plain, once in zip(seconds["plain"], seconds["teacher"], strict=True)]
    goals = (
        ("kd with a warm cache / plain", ratio(seconds["kd_cached"], seconds["plain"]), 1.10),
        ("live kd / (plain + one teacher pass)", ratio(seconds["kd"], both), 1.05),
        ("live kd / torchdistill", ratio(seconds["kd"], seconds["torchdistill"]), 0.95),
        ("live kd / torchdistill on edgekd's batches, layout and optimizer kernel",
         ratio(seconds["kd"], seconds["torchdistill_ours"]), None),
        ("kd with a warm cache / torchdistill", ratio(seconds["kd_cached"], seconds["torchdistill"]), None),
        ("kd with a warm cache / live kd", ratio(seconds["kd_cached"], seconds["kd"]), None),
        ("fitnet with a warm cache / live fitnet", ratio(seconds["fitnet_cached"], seconds["fitnet"]), None),
        ("fitnet with a warm cache / plain", ratio(seconds["fitnet_cached"], seconds["plain"]), None),
    )  # fmt: skip
    machine = about["machine"]
    busy = load > threads + 0.5
    lines = [
        "# What a distillation step costs",
        "",
        f"Made by `benchmarks/distill_speed.py`: ResNet-18 teaches MobileNetV2-0.5, batch {BATCH} of 3×32×32 with crop and "
        f"flip, data feed included, float32; {len(rows)} rounds of {block} steps of each in turns in one process, {threads} "
        f"thread{'s' * (threads > 1)}, {'processor' if threads == 1 else 'clock'} time. A ratio is the median over rounds "
        "with its 95 % bootstrap interval.",
        "",
        f"Conditions: {machine['cpu']}, {machine['cores']} cores, torch {about['torch']}, torchdistill "
        f"{about['torchdistill']}, Python {machine['python']}; mean load of the machine {load:.1f}."
        + (" **A loaded machine:** other programs shared its caches and its memory; milliseconds are not to be quoted, "
           "ratios are of neighbours in time." if busy else ""),
        "",
        "| ratio of times for a step | measured | goal |",
        "|---|---|---|",
    ]  # fmt: skip
    for what, (middle, low, high), goal in goals:
        verdict = ""
        if goal:
            verdict = f"≤ {goal:.2f}: " + (
                "met" if high <= goal else "met, within noise" if middle <= goal else "**not met**"
            )
        lines.append(f"| {what} | {middle:.3f} [{low:.3f}, {high:.3f}] | {verdict} |")
    lines += ["", "| | ms a step (median) | peak memory of its process, MiB |", "|---|---|---|"]
    for name, words in NAMES.items():
        mib = f"{peaks[name]:,.0f}" if name in peaks else ""
        lines.append(f"| {words} | {1000 * statistics.median(seconds[name]):.0f} | {mib} |")
    lines += ["", "Parts of a step, each measured alone:", "", "| part | ms |", "|---|---|"]
    lines += [f"| {what} | {value:.1f} |" for what, value in parted.items()]
    lines += [
        "",
        "The parts were measured at another time than the rounds, so they do not add up to a step. What limits a step is "
        "the student itself: feed and normalization are a few per cent of it, and with a warm cache the teacher is gone. "
        "Against torchdistill's own way most of the gain is the feed and the memory layout, as the row with edgekd's own "
        "batches and layout shows. What fitnet with a warm cache takes beside plain is in the last two rows. The cache "
        "saves the teacher's time, not the memory of its weights: the network stays at hand for what is not recorded.",
    ]
    return "\n".join(lines) + "\n"


def measure(rounds: int, block: int, folder: Path) -> None:
    """Keep the median step of each block, round by round."""
    fill(folder, WARM_UP + rounds * block)
    steps = {name: start(name, folder) for name in NAMES}
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    with (BUILD / "rounds.jsonl").open("w") as file:
        for number in range(rounds):
            order = list(NAMES)[number % len(NAMES) :] + list(NAMES)[: number % len(NAMES)]
            seconds = {name: statistics.median(steps[name]() for _ in range(block)) for name in order}
            file.write(json.dumps({"load": os.getloadavg()[0], "seconds": seconds}) + "\n")
            file.flush()
            print(f"round {number + 1}", {name: round(1000 * seconds[name]) for name in NAMES}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "parts", "memory", "table"])
    parser.add_argument("names", nargs="*", metavar="NAME", default=[name for name in NAMES if name != "teacher"])
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    BUILD.mkdir(parents=True, exist_ok=True)
    if args.what == "measure":
        about = {
            "threads": args.threads,
            "block": args.block,
            "machine": environment.describe(),
            "torch": torch.__version__,
            "torchdistill": version("torchdistill"),
        }
        (BUILD / "about.json").write_text(json.dumps(about))
    if args.what == "table":
        RESULT.write_text(table(), encoding="utf-8")
        print(RESULT.read_text(encoding="utf-8"))
    elif args.what == "parts":
        (BUILD / "parts.json").write_text(json.dumps(parts(4 * args.block)))
    elif args.what == "memory" and len(args.names) > 1:
        for name in args.names:
            subprocess.run([sys.executable, __file__, "memory", name, "--threads", str(args.threads)], check=True)
    else:
        with tempfile.TemporaryDirectory() as place:
            if args.what == "measure":
                measure(args.rounds, args.block, Path(place))
            else:
                (name,) = args.names
                (BUILD / f"peak.{name}.txt").write_text(str(peak(name, warm_folder(Path(place), name))))
    sys.stdout.flush()
    os._exit(0)  # halted trainings have no other end


def warm_folder(place: Path, name: str) -> Path:
    """A folder with the records that a cached contender reads in four steps, made by a process that does not count."""
    if name.endswith("_cached"):
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import distill_speed, os, pathlib; "
        code += f"distill_speed.fill(pathlib.Path({str(place)!r}), 4); os._exit(0)"
        subprocess.run([sys.executable, "-c", code], check=True)
    return place


if __name__ == "__main__":
    main()
