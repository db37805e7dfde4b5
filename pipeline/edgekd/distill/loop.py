"""The training loop, the same for teachers, students and quantization-aware training.

On Lightning Fabric: a CPU, a GPU or several; mixed precision on GPUs. Cosine or step schedule with warm-up, optional EMA
of the weights, best-by-validation and last kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgekd.data import DataSet, Split
from edgekd.distill.feed import Normalize, loader
from edgekd.distill.looks import Look, Looks
from edgekd.distill.outputs import Batch
from edgekd.distill.teacher_cache import Recorded, Recording
from edgekd.distill.terms import Terms
from edgekd.errors import TrainingError
from edgekd.progress import Progress, Silent
from edgekd.recipe_data import Data
from edgekd.recipe_distill import Train
from edgekd.rundir import Curve

State = dict[str, Tensor]
Lessons = Callable[[Look, int, Tensor], tuple[Tensor, ...]]  # images, draw, indices → (logits, *features) of the teacher


@dataclass(frozen=True)
class Fitted:
    """Weights of the best epoch by validation and of the last one, and the curve."""

    best: State
    last: State
    adapters: State
    curve: Curve


@dataclass(frozen=True)
class Freeze:
    """Something that happens once in the middle of training, at ``share`` of all steps, such as freezing ranges.

    Only epochs that end after it can be the best one: what comes before is another network.
    """

    share: float
    action: Callable[[nn.Module], None]


class Pupil(nn.Module):
    """The network and its loss in one module, so that one wrapper (DDP, autocast) covers both."""

    def __init__(self, network: nn.Module, terms: Terms) -> None:
        super().__init__()
        self.network = network
        self.terms = terms

    def forward(
        self, x: Tensor, teacher: tuple[Tensor, ...] | None, labels: Tensor, indices: Tensor, epoch: float
    ) -> tuple[Tensor, Tensor]:
        """Return (weighted value of each term, logits)."""
        outputs = self.network(x)
        return torch.stack(self.terms(outputs, teacher, Batch(labels, indices), epoch)), outputs[0]


def fit(
    fabric: Fabric,
    network: nn.Module,
    terms: Terms,
    teacher: nn.Module | None,
    budget: Train,
    data: DataSet,
    section: Data,
    *,
    name: str,
    seed: int,
    progress: Progress,
    snapshot: Callable[[nn.Module], State] | None = None,
    freeze: Freeze | None = None,
    recording: Recording | None = None,
    views: Sequence[DataSet] = (),
) -> Fitted:
    """Train ``network``.

    Args:
        fabric: Device, precision and processes.
        network: Returns ``(logits, *features)``; trained in place.
        terms: The loss.
        teacher: Returns ``(logits, *features)`` for the terms, or None.
        budget: Epochs, optimizer, schedule.
        data: Images.
        section: The recipe's data section (augmentation).
        name: What the curve and the progress are called.
        seed: Decides order and augmentation.
        progress: Where to report.
        snapshot: How the weights are taken; the state_dict by default.
        freeze: What to do once in the middle.
        recording: Where the teacher's outputs are kept; None: the teacher runs at every step.
        views: The same samples as the teacher sees them, or, in turn, each of an ensemble; empty: as the student does.

    Raises:
        TrainingError: The loss is not finite.
        StorageError: The disk lacks the room for the teacher's outputs.
    """
    snapshot = snapshot or _state_dict
    started = time.monotonic()
    pupil = _channels_last(Pupil(network, terms))
    module, optimizer = fabric.setup(pupil, _optimizer(pupil, budget))
    batches, augmented, sampler = loader(data.train, section, budget.batch_size, seed, [view.train for view in views])
    feed: Any = fabric.setup_dataloaders(batches)
    if not len(feed):
        raise TrainingError(
            f"{name}: {len(data.train)} training images are less than one batch of {budget.batch_size} for each of "
            f"{fabric.world_size} processes",
            "lower batch_size or --devices",
        )
    normalize = fabric.to_device(Normalize(data))
    looks = fabric.to_device(Looks(views))
    draws = recording.draws(budget.epochs) if recording else budget.epochs
    average = AveragedModel(network, multi_avg_fn=_decay(budget.ema), use_buffers=True) if budget.ema else None
    kept = average.module if average is not None else network
    steps = budget.epochs * len(feed)
    hastened = hasten_norms(network, len(feed))
    if hastened and fabric.global_rank == 0:
        progress.say(f"  {name}: {hastened}")
    schedule = _schedule(budget, len(feed))
    freeze_step = min(steps - 1, int(freeze.share * steps)) if freeze else -1
    rows: dict[str, list[float]] = {key: [] for key in (*terms.names, "train_top1", "val_top1", "lr")}
    said = "val" if data.measure == "accuracy" else "val agreement"
    best, best_epoch, step = _copy(snapshot(kept)), -1, 0
    with (
        _lessons(fabric, teacher, terms.teacher_paths, recording, looks, normalize, data, section, budget.epochs) as lessons,
        (progress if fabric.global_rank == 0 else Silent()).task(name, steps) as task,
    ):
        for epoch in range(budget.epochs):
            augmented.epoch, sampler.epoch = epoch % draws, epoch
            module.train()
            sums, right, seen = torch.zeros(len(terms.names)), 0, 0
            for images, labels, indices, *others in feed:
                if step == freeze_step and freeze:
                    freeze.action(network)
                for group in optimizer.param_groups:
                    group["lr"] = budget.lr * schedule(step)
                x = normalize(images)
                with torch.no_grad(), fabric.autocast():
                    target = lessons(looks(x, others), epoch % draws, indices) if lessons else None
                values, logits = module(x, target, labels, indices, step / len(feed))
                loss = values.sum()
                if not bool(loss.isfinite()):
                    raise TrainingError(
                        f"{name}: the loss is {loss.item()} at step {step} of epoch {epoch + 1} "
                        f"({_worst(terms.names, values)})",
                        f"lower the learning rate (now {budget.lr:g}), set clip_grad_norm, or check the images and labels",
                    )
                fabric.backward(loss)
                if budget.clip_grad_norm:
                    fabric.clip_gradients(module, optimizer, max_norm=budget.clip_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                if average is not None:
                    average.update_parameters(network)
                step += 1
                sums += values.detach().cpu() * len(labels)
                right += int((logits.argmax(1) == labels).sum())
                seen += len(labels)
                task.advance(1)
            top1 = accuracy(kept, data.val, normalize, fabric.device)
            for term, value in zip(terms.names, (sums / seen).tolist(), strict=True):
                rows[term].append(value)
            if data.train.labelled:
                rows["train_top1"].append(right / seen)
            rows["val_top1"].append(top1)
            rows["lr"].append(budget.lr * schedule(step - 1))
            if (
                best_epoch < 0
                or (step > freeze_step and top1 > rows["val_top1"][best_epoch])
                or (freeze and step > freeze_step and (best_epoch + 1) * len(feed) <= freeze_step)
            ):
                best, best_epoch = _copy(snapshot(kept)), epoch
            task.advance(0, f"epoch {epoch + 1}/{budget.epochs} {said} {100 * top1:.1f} %")
    curve = Curve(
        model=name,
        terms={term: tuple(rows[term]) for term in terms.names},
        train_top1=tuple(rows["train_top1"]),
        val_top1=tuple(rows["val_top1"]),
        lr=tuple(rows["lr"]),
        best_epoch=best_epoch,
        seconds=time.monotonic() - started,
        pairs=tuple(f"{term.name}: {pair}" for term in terms.terms for pair in term.pairs),
        measure=data.measure,
    )
    return Fitted(best, _copy(snapshot(kept)), _copy(terms.adapters.state_dict()), curve)


@contextmanager
def _lessons(
    fabric: Fabric, teacher: nn.Module | None, layers: tuple[str, ...], recording: Recording | None,
    looks: Looks, normalize: Normalize, data: DataSet, section: Data, epochs: int,
) -> Iterator[Lessons | None]:  # fmt: skip
    """What the teacher says about a batch: computed, or read where it is recorded."""
    if teacher is None:
        yield None
        return
    network = fabric.to_device(_channels_last(teacher.eval().requires_grad_(False)))
    if recording is None or (layers and not recording.settings.features):
        yield lambda x, _draw, _indices: network(x)
        return
    blank = torch.zeros(2, data.channels, section.image_size, section.image_size, dtype=torch.uint8)
    with torch.no_grad(), fabric.autocast():
        probe = network(looks(normalize(fabric.to_device(blank)), [fabric.to_device(view) for view in looks.blank()]))
    recorded = Recorded(recording, network, layers, probe, len(data.train), epochs)
    try:
        yield recorded
    finally:
        recorded.close()


def hasten_norms(network: nn.Module, steps: int) -> str:
    """Raise the momentum of batch norms whose running statistics cannot follow an epoch of ``steps`` steps.

    Some networks come with 0.01 or less, for epochs of thousands of steps: with a hundred, the averages are still made
    of the first, random weights, and the network fails on validation images while it does well on training images.
    The average gets a memory of at most a tenth of an epoch, but never a shorter one than torch's default, 0.1.

    Returns:
        What was changed, in words; empty if nothing was.
    """
    least = min(0.1, 10 / steps)
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.momentum is not None and m.momentum < least]
    if not norms:
        return ""
    before = min(cast(float, norm.momentum) for norm in norms)
    for norm in norms:
        norm.momentum = least
    return f"batch norm momentum {before:g} → {least:.2g}, for its averages must follow epochs of {steps} steps"


@torch.no_grad()
def accuracy(network: nn.Module, split: Split, normalize: Normalize, device: torch.device) -> float:
    """Top-1 of a network that returns logits or ``(logits, ...)``, from 0 to 1; its mode is restored."""
    return int((predictions(network, split, normalize, device) == torch.from_numpy(split.labels)).sum()) / len(split)


@torch.no_grad()
def predictions(network: nn.Module, split: Split, normalize: Normalize, device: torch.device) -> Tensor:
    """The class (int64, N) that such a network finds in each image of a split; its mode is restored."""
    training = network.training
    network.eval()
    found = []
    for images, _ in split.batches():
        outputs = network(normalize(torch.from_numpy(images).to(device)))
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        found.append(logits.argmax(1).cpu())
    network.train(training)
    return torch.cat(found)


def _decay(share: float) -> Any:
    function: Any = get_ema_multi_avg_fn  # torch has no types for it
    return function(share)


def _channels_last(network: nn.Module) -> nn.Module:
    cast(Any, network).to(memory_format=torch.channels_last)  # torch's stubs lack this form
    return network


def _state_dict(network: nn.Module) -> State:
    return dict(network.state_dict())


def _copy(state: State) -> State:
    return {name: value.detach().cpu().clone() for name, value in state.items()}


def _worst(names: tuple[str, ...], values: Tensor) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in zip(names, values.tolist(), strict=True))


def _optimizer(pupil: nn.Module, budget: Train) -> torch.optim.Optimizer:
    parameters = [p for p in pupil.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": budget.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": budget.weight_decay * budget.decay_norms},
    ]
    if budget.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=budget.lr, momentum=0.9, nesterov=budget.nesterov)
    return torch.optim.AdamW(groups, lr=budget.lr, fused=True)


def _schedule(budget: Train, steps_per_epoch: int) -> Callable[[int], float]:
    """Linear warm-up, then a cosine to zero or steps at milestones; the factor of the peak learning rate at a step."""
    total = budget.epochs * steps_per_epoch
    warmup = int(budget.warmup_epochs * steps_per_epoch)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if budget.schedule == "step":
            return budget.gamma ** sum(step >= milestone * steps_per_epoch for milestone in budget.milestones)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor
