"""Which distillation loss helps how much? Every registered loss, and torchdistill's, with one teacher and one budget.

    OMP_NUM_THREADS=1 python benchmarks/distill_quality.py [--pair resnet32x4-resnet8x4] [--kinds kd crd] [--seeds 3]

Needs the Debian package dataset-fashion-mnist and `pip install -e '.[test]'`. Finished trainings are kept, a line each, in
benchmarks/results/distill_quality.jsonl and not run again while nothing that decides them has changed; so it can be stopped
at any time, run for one pair in one process and for the other in a second one, or again when there is a new loss. The
teacher is trained first, once (reports/distill_quality/). `--table` only writes benchmarks/results/distill_quality.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchdistill_losses as torchdistill
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd import environment
from edgekd.assembly.launch import seed
from edgekd.assembly.networks import save
from edgekd.data import dataset, splits
from edgekd.data.batches import Normalize, Prepare
from edgekd.distill.outputs import Facts
from edgekd.distill.terms import Terms
from edgekd.errors import EdgekdError
from edgekd.models import zoo
from edgekd.models.build import load_weights, one_input
from edgekd.progress import Silent, for_stream
from edgekd.reads import file_sha256
from edgekd.recipe.data import Data
from edgekd.recipe.loss import Loss
from edgekd.recipe.train import Train
from edgekd.registry import losses
from edgekd.statistics import Spread, paired, spread
from edgekd.taps.taps import Tapped
from edgekd.task.image_classification import IMAGE
from edgekd.train.loop import Fitted, Teaching, Trainable, fit, score

RESULTS = Path(__file__).parent / "results"
ROWS = RESULTS / "distill_quality.jsonl"
TEACHER_FILE = Path(__file__).parents[1] / "reports" / "distill_quality" / "teacher.safetensors"

# The published schedule (240 epochs; 150, 180, 210), a fifteenth of its epochs; batch, optimizer and decay as published.
PUBLISHED = {"batch_size": 64, "optimizer": "sgd", "nesterov": False, "weight_decay": 5e-4, "decay_norms": True,
             "schedule": "step", "warmup_epochs": 0.0, "precision": "32-true"}  # fmt: skip
PAIRS = {
    "resnet32x4-resnet8x4": ("resnet8x4", Train(epochs=16, milestones=(10, 12, 14), lr=0.05, **PUBLISHED)),
    "resnet32x4-shufflenet_v2": ("shufflenet_v2", Train(epochs=16, milestones=(10, 12, 14), lr=0.01, **PUBLISHED)),
}
TEACHER = Train(epochs=3, precision="bf16-mixed")
SECTION = Data(source="fashion-mnist", image_size=16, augment=("flip",), val_fraction=1 / 60)
STUDENT_IMAGES = 1600
NOT_COMPARED = {"task"}
VARIANTS = {"dkd, no warm-up": ("dkd", {"warmup_epochs": 0.0})}  # beside the losses as they are shipped


@dataclass(frozen=True)
class Case:
    """One training: the undistilled student has no ``loss``."""

    pair: str
    library: str
    kind: str
    loss: Loss | None
    seed: int

    def key(self, teacher: str) -> str:
        """What decides the result; not what has its default, so that a new option does not undo the rows."""
        student, budget = PAIRS[self.pair]
        parts = [
            self.library, self.kind, self.seed, student, budget.model_dump(exclude_defaults=True), self.options(),
            SECTION.model_dump(exclude_defaults=True), STUDENT_IMAGES, teacher if self.loss else "",
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def options(self) -> dict[str, Any]:
        """The loss's own options: what its class declares, and what of the others was set."""
        if self.loss is None:
            return {}
        own = {name for name in type(self.loss).__annotations__ if name in type(self.loss).model_fields}
        return self.loss.model_dump(include=own | self.loss.model_fields_set | {"weight"})


class Remembered(nn.Module):
    """The teacher's outputs for every view of every training image (as it is and flipped), computed once a layer."""

    def __init__(self, network: nn.Module, images: dataset.DataSet) -> None:
        super().__init__()
        self._networks = (network,)  # not a submodule: the student's loop does not run it
        pixels = torch.from_numpy(np.stack([images.train.images[i] for i in range(len(images.train))]))
        self._views = Normalize(images.preprocessing)(torch.cat([pixels, pixels.flip(-1)]))
        self._index = {_key(view): index for index, view in enumerate(self._views)}
        self._known: dict[str, Tensor] = {}
        self._paths: tuple[str, ...] = ()

    @property
    def network(self) -> nn.Module:
        """The teacher itself."""
        return self._networks[0]

    @torch.no_grad()
    def of(self, paths: tuple[str, ...]) -> Remembered:
        """The same, giving ``(logits, *features)`` for these layers."""
        missing = tuple(path for path in ("", *paths) if path not in self._known)
        if missing:
            tapped = Tapped(self.network.eval(), tuple(filter(None, missing))).eval()
            parts = [tapped(batch) for batch in self._views.split(64)]
            columns = [torch.cat(column) for column in zip(*parts, strict=True)]
            self._known.update(zip(("", *filter(None, missing)), columns, strict=True))
        self._paths = ("", *paths)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Look a batch up."""
        rows = torch.tensor([self._index[_key(view)] for view in x])
        return tuple(self._known[path][rows] for path in self._paths)


def _key(view: Tensor) -> bytes:
    return view[0].contiguous().numpy().tobytes()


def subset(images: dataset.DataSet, count: int) -> dataset.DataSet:
    """The same validation and test images, and ``count`` training images, as many of each class."""
    chosen, _ = splits.stratified(images.train.labels, 1 - count / len(images.train))
    pixels: NDArray[np.uint8] = np.stack([images.train.images[int(i)] for i in chosen])
    train = dataset.Split({IMAGE: pixels}, images.train.labels[chosen])
    return replace(images, train=train)


def teacher(images: dataset.DataSet, file: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The teacher and what is known of it; trained where it is not there yet."""
    seed(0, torch.get_num_threads())
    network = zoo.BUILDERS["resnet32x4"](num_classes=len(images.classes))
    known = file.with_suffix(".json")
    if not known.exists():
        _train(network, None, (losses.get("task")(),), TEACHER, images, 0, "teacher")
        file.parent.mkdir(parents=True, exist_ok=True)
        save(dict(network.state_dict()), file)
        known.write_text(json.dumps({"sha256": file_sha256(file), "top1": _test(network, images)}), encoding="utf-8")
    load_weights(network, file)
    return network.eval(), json.loads(known.read_text(encoding="utf-8"))


def _train(
    network: nn.Module,
    remembered: Remembered | None,
    chosen: Sequence[Loss],
    budget: Train,
    images: dataset.DataSet,
    number: int,
    name: str = "student",
) -> Fitted:
    facts = Facts(len(images.classes), len(images.train), torch.from_numpy(images.train.labels))
    terms = Terms(chosen, network, remembered.network if remembered else None, one_input(images.purpose.signature), facts)
    fabric = Fabric(accelerator="cpu", devices=1, precision=budget.precision)
    teaching = Teaching(remembered.of(terms.teacher_paths) if remembered and terms.needs_teacher else None)
    progress = for_stream() if name == "teacher" else Silent()
    return fit(fabric, Trainable.tapped(name, network, terms, budget, number), images, SECTION, progress, teaching)


def _test(network: nn.Module, images: dataset.DataSet) -> float:
    return score(network, images.test, Prepare(images), torch.device("cpu"), images.purpose)


def run(case: Case, remembered: Remembered, images: dataset.DataSet) -> dict[str, Any]:
    """Train one student; test images are looked at when it is done."""
    student, budget = PAIRS[case.pair]
    seed(case.seed, torch.get_num_threads())
    network = zoo.BUILDERS[student](num_classes=len(images.classes))
    chosen = (losses.get("task")(), *([case.loss] if case.loss else []))
    started, cpu = time.monotonic(), time.process_time()
    fitted = _train(network, remembered if case.loss else None, chosen, budget, images, case.seed)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    found = {"val_last": fitted.curve.val["top1"][-1], "val_best": max(fitted.curve.val["top1"])}
    for name, state in (("last", fitted.last), ("best", fitted.best)):
        network.load_state_dict(state)
        found[f"test_{name}"] = _test(network, images)
    return {**found, "best_epoch": fitted.curve.best_epoch + 1, "seconds": seconds, "cpu_seconds": cpu,
            "terms": {name: values[-1] for name, values in fitted.curve.terms.items()}}  # fmt: skip


def cases(pairs: Sequence[str], seeds: int, kinds: Sequence[str]) -> Iterator[Case]:
    """All trainings: for each seed the undistilled student, edgekd's losses, torchdistill's."""
    ours = {kind: losses.get(kind)() for kind in losses.names() if kind not in NOT_COMPARED}
    ours |= {name: losses.get(kind)(**options) for name, (kind, options) in VARIANTS.items()}
    for number in range(seeds):
        for pair in pairs:
            theirs = {loss.kind: loss for loss in torchdistill.all_losses(PAIRS[pair][1].epochs)}
            yield Case(pair, "", "alone", None, number)
            for library, found in (("edgekd", ours), ("torchdistill", theirs)):
                for name, loss in found.items():
                    if not kinds or name in kinds:
                        yield Case(pair, library, name, loss, number)


def read(rows: Path) -> dict[str, dict[str, Any]]:
    """The finished rows by their keys."""
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run what is not among the rows; return what is known of the teacher."""
    images = dataset.load(SECTION)
    network, known = teacher(images, options.teacher)
    print(f"teacher: {100 * known['top1']:.2f} % on the test images", flush=True)
    few = subset(images, STUDENT_IMAGES)
    remembered = Remembered(network, few)
    for case in cases(options.pair or list(PAIRS), options.seeds, options.kinds):
        key = case.key(known["sha256"])
        if key in read(options.rows):
            continue
        row: dict[str, Any] = {"key": key, "pair": case.pair, "library": case.library, "kind": case.kind, "seed": case.seed,
               "options": case.options()}  # fmt: skip
        try:
            row |= run(case, remembered, few)
        except EdgekdError as error:  # a finding: this pair of networks or this budget is not for that loss
            row["failed"] = error.message
        except Exception:  # one loss must not end the others' night; without a row it is run again
            traceback.print_exc()
            continue
        options.rows.parent.mkdir(parents=True, exist_ok=True)
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{case.pair} {case.library} {case.kind} seed {case.seed}: "
              + (row.get("failed") or f"{100 * row['test_last']:.2f} % in {row['seconds']:.0f} s"), flush=True)  # fmt: skip
    return known


def table(rows: Mapping[str, Mapping[str, Any]], known: Mapping[str, Any], options: argparse.Namespace) -> str:
    """The page; rows that no longer belong to these settings are left out."""
    about = environment.describe()
    wanted = [case.key(known["sha256"]) for case in cases(list(PAIRS), options.seeds, [])]
    done = sum(key in rows for key in wanted)
    lines = [
        "# Distillation losses under one budget",
        "",
        f"Made by `OMP_NUM_THREADS=1 python benchmarks/distill_quality.py --seeds {options.seeds}`. Top-1 in % on the"
        " 10,000 test images of Fashion-MNIST, looked at once, at the end of each training; mean ± standard deviation over"
        " the seeds.",
        "",
        f"- Images: {SECTION.image_size}×{SECTION.image_size}, {STUDENT_IMAGES:,} to train the student on, 1,000 to"
        " validate; left-right flips. Little data: the teacher has seen 37 times as many images.",
        "- Teacher: resnet32x4, trained once for all seeds: 59,000 images (the student's among them),"
        f" {TEACHER.epochs} epochs of AdamW in bfloat16, {100 * known['top1']:.2f} % on the test images.",
        "- Student: cross-entropy + the loss with its shipped weight, as RepDistiller's `-r 1 -a 0 -b W` (`fitnet` 1, not"
        " 100; docs/losses.md); 16 epochs of 25 steps of 64 images; SGD, momentum 0.9, weight decay 5e-4, learning rate 0.05"
        " (ShuffleNet 0.01), ×0.1 after epochs 10, 12 and 14: RepDistiller's CIFAR-100 protocol with a fifteenth of its"
        " epochs. No loss was tuned for it.",
        "- torchdistill 1.1.5: its loss modules with the options of its examples and RepDistiller's weights, in the same"
        " loop from the same initial weights, batches and teacher's outputs (`benchmarks/torchdistill_losses.py`).",
        "- Formulas are the same to 1e-5, values and gradients (tests/unit/distill/), but for five of torchdistill's:"
        " `similarity_preserving` divides a row of similarities by its L1 norm, where the paper has L2; `ickd` divides by"
        " the batch once more than the authors' code for CIFAR-100; `correlation_congruence` has a norm where the paper has"
        " its square, of vectors that are not normalized; `fsp` has the norms of columns where the paper has a squared norm;"
        " `logit_standardization` divides by the deviation with 1 / (K - 1), the authors by that with 1 / K. Three are used"
        " otherwise: edgekd's `reviewkd` has the pooled last stage as one level more, as the authors' code, and its whole"
        " weight from the first step, where torchdistill's row has their warm-up; `dist` has beta = gamma = 2 (torchdistill"
        " 1), `correlation_congruence` a weight of 100 (0.02). What is drawn at random (adapters, negatives) differs.",
        "- *gain*: the difference from the student alone of the same seed (mean ± sd of the differences), last epoch."
        " *best*: test top-1 at the epoch that was best on the validation images.",
        f"- {about['cpu']}, one thread, torch {about['packages']['torch']}, {about['os']}. CPU seconds are of one training,"
        " on a machine that other work shared.",
        "- *edgekd − torchdistill*: the paired difference of the last epoch, with its 95 % t-interval.",
        *_progress(done, len(wanted), options.seeds),
    ]
    for pair in PAIRS:
        mine = {case: rows.get(case.key(known["sha256"])) for case in cases([pair], options.seeds, [])}
        groups: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
        for case, row in mine.items():
            if row:
                groups.setdefault((case.kind, case.library), {})[case.seed] = row
        ranked = sorted(groups, key=lambda one: -statistics.mean(_values(groups[one], "test_last").values() or [0]))
        lines += [
            "",
            f"## {pair.replace('-', ' → ')}",
            "",
            *_summary(groups, options.seeds),
            "",
            "| loss | | last | gain | edgekd − torchdistill | best | CPU s |",
            "|---|---|---|---|---|---|---|",
            *(_line(kind, library, groups, options.seeds) for kind, library in ranked),
        ]
    return "\n".join(lines) + "\n"


def _progress(done: int, wanted: int, seeds: int) -> list[str]:
    if done == wanted:
        return []
    return [
        f"- **{done} of {wanted} trainings are done**: a loss with fewer than {seeds} seeds says so, one without a row"
        " was not run."
    ]


Groups = Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]]


def _values(rows: Mapping[int, Mapping[str, Any]], key: str) -> dict[int, float]:
    """By seed, in percent where it is an accuracy; without the rows of trainings that could not be."""
    # rounded to a hundredth of an image: differences that are the same are then equal
    return {seed: round((100 if key.startswith("test") else 1) * row[key], 4) for seed, row in rows.items() if key in row}


def _compared(groups: Groups, one: tuple[str, str], other: tuple[str, str]) -> Spread | None:
    """The differences of top-1 after the last epoch, over the seeds that both have."""
    ours, theirs = (_values(groups.get(key, {}), "test_last") for key in (one, other))
    both = sorted(ours.keys() & theirs.keys())
    return paired([ours[seed] for seed in both], [theirs[seed] for seed in both]).gain if both else None


def _summary(groups: Groups, seeds: int) -> list[str]:
    """Which loss helps most, and where edgekd is below torchdistill; of what has all its seeds."""
    done = {key for key, rows in groups.items() if len(_values(rows, "test_last")) >= seeds}
    ours = {kind for kind, library in done if library == "edgekd"}
    if seeds < 2 or ("alone", "") not in done or not ours:
        return ["No loss has all its seeds yet."]
    gains = {kind: _compared(groups, (kind, "edgekd"), ("alone", "")) for kind in ours}
    best, gain = max(((kind, gain) for kind, gain in gains.items() if gain), key=lambda item: item[1].mean)
    alone = spread(list(_values(groups["alone", ""], "test_last").values()))
    beside = {
        kind: _compared(groups, (kind, "edgekd"), (kind, "torchdistill")) for kind in ours if (kind, "torchdistill") in done
    }
    # differences that are all the same have no interval
    below = sorted(
        kind for kind, found in beside.items() if found and (found.mean if found.high is None else found.high) < 0
    )
    return [
        f"Of {len(ours)} losses with {seeds} seeds `{best}` helps most: {gain.mean:+.2f} points; the standard deviation of"
        f" the student alone is {alone.sd:.2f}. Of {len(beside)} that torchdistill has too, edgekd's result is below"
        f" torchdistill's by more than the noise in {', '.join(f'`{kind}`' for kind in below) or 'none'}."
    ]


def _line(kind: str, library: str, groups: Groups, seeds: int) -> str:
    rows = groups[kind, library]
    name = f"`{kind}`" if library else "student alone"
    if failed := next((row["failed"] for row in rows.values() if "failed" in row), ""):
        return f"| {name} | {library} | {failed} | | | | |"
    gain = _compared(groups, (kind, library), ("alone", "")) if library else None
    beside = _compared(groups, (kind, library), (kind, "torchdistill")) if library == "edgekd" else None
    interval = f" [{beside.low:+.2f}, {beside.high:+.2f}]" if beside and beside.low is not None else ""
    cells = [
        f"{name}{'' if len(rows) >= seeds else f' (seeds: {len(rows)})'}",
        library,
        _text(spread(list(_values(rows, "test_last").values()))),
        _text(gain, "+") if gain else "",
        f"{beside.mean:+.2f}{interval}" if beside else "",
        _text(spread(list(_values(rows, "test_best").values()))),
        f"{statistics.mean(_values(rows, 'cpu_seconds').values()):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _text(values: Spread, sign: str = "") -> str:
    sd = "" if values.sd is None else f" ± {values.sd:.2f}"
    return f"{values.mean:{sign}.2f}{sd}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", action="append", choices=list(PAIRS), help="only this pair of networks")
    parser.add_argument("--kinds", nargs="*", default=[], help="only these losses")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--teacher", type=Path, default=TEACHER_FILE)
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = (
        json.loads(options.teacher.with_suffix(".json").read_text(encoding="utf-8")) if options.table else measure(options)
    )
    (RESULTS / "distill_quality.md").write_text(table(read(options.rows), known, options), encoding="utf-8")


if __name__ == "__main__":
    main()
