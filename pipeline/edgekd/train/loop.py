"""The training loop, the same for teachers, students and quantization-aware training.

On Lightning Fabric: a CPU, a GPU or several; mixed precision on GPUs. Cosine or step schedule with warm-up, optional EMA
of the weights, best-by-validation and last kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekd.data.batches import Prepare, loader
from edgekd.data.dataset import DataSet, Split
from edgekd.distill import mutual
from edgekd.distill.looks import Look, Looks, blank
from edgekd.distill.outputs import Batch
from edgekd.distill.teacher_cache.recording import Recorded, Recording
from edgekd.distill.terms import Terms
from edgekd.errors import TrainingError
from edgekd.metrics.base import shown
from edgekd.models import tied
from edgekd.models.layout import layout
from edgekd.progress import Progress, Silent
from edgekd.recipe.data import Data
from edgekd.recipe.train import Train
from edgekd.results.run import Curve
from edgekd.task import primary
from edgekd.task.base import Purpose
from edgekd.train.learner import Learner, State

Lessons = Callable[[Look, int, Tensor], tuple[Tensor, ...]]  # images, draw, indices → (logits, *features) of the teacher


@dataclass(frozen=True)
class Fitted:
    """Weights of the best epoch by validation and of the last one, the curve, and the same of each peer."""

    best: State
    last: State
    adapters: State
    curve: Curve
    peers: tuple[Fitted, ...] = ()


@dataclass(frozen=True)
class Freeze:
    """A one-time action at ``share`` of all steps of a training, such as freezing ranges.

    Only epochs that end after it can be the best one: what comes before is another network.
    """

    share: float
    action: Callable[[nn.Module], None]


class Pupil(nn.Module):
    """The network, its peers and their losses in one module, so that one wrapper (DDP, autocast) covers all."""

    def __init__(self, network: nn.Module, terms: Terms, peers: Sequence[mutual.Peer] = ()) -> None:
        super().__init__()
        self.network = network
        self.terms = terms
        self.peers = tuple(peers)
        self._peers = nn.ModuleList(peers)

    def forward(
        self, inputs: Mapping[str, Tensor], teacher: tuple[Tensor, ...] | None, target: Tensor, indices: Tensor, epoch: float
    ) -> tuple[Tensor, Tensor]:
        """Return (weighted value of each term, networks×terms; logits, networks×N×classes)."""
        batch = Batch(target, indices, self.terms.criterion)
        outputs = [network(*inputs.values()) for network in (self.network, *self.peers)]
        values = []
        for index, terms in enumerate([self.terms, *(peer.terms for peer in self.peers)]):
            lessons = mutual.lessons(outputs, index) if self.peers else teacher
            value = torch.stack(terms(outputs[index], lessons, batch, epoch))
            if torch.distributed.is_initialized():  # it waits for a gradient of every parameter, whatever the terms read
                value = value + 0 * outputs[index][0].sum()
            values.append(value)
        return torch.stack(values), torch.stack([own[0] for own in outputs])


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
    peers: Sequence[mutual.Peer] = (),
    views: Sequence[DataSet] = (),
) -> Fitted:
    """Train ``network``, and its peers beside it.

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
        peers: Networks that learn with it in the place of a teacher.
        views: The same samples as the teacher sees them, or, in turn, each of an ensemble; empty: as the student does.

    Raises:
        TrainingError: The loss is not finite.
        StorageError: The disk lacks the room for the teacher's outputs.
    """
    started = time.monotonic()
    pupil = Pupil(network, terms, peers)
    form = layout(pupil)
    module, optimizer = fabric.setup(_laid_out(pupil, form), _optimizer(pupil, budget, fused=not _scales(fabric)))
    batches, augmented, sampler = loader(data.train, section, budget.batch_size, seed, [view.train for view in views])
    feed: Any = fabric.setup_dataloaders(batches)
    if not len(feed):
        raise TrainingError(
            f"{name}: {len(data.train)} training images are less than one batch of {budget.batch_size} for each of "
            f"{fabric.world_size} processes",
            "lower batch_size or --processes",
        )
    prepare = fabric.to_device(Prepare(data))
    looks = fabric.to_device(Looks(views))
    draws = recording.draws(budget.epochs) if recording else budget.epochs
    learner_of = partial(Learner, ema=budget.ema, purpose=data.purpose, labelled=data.train.labelled)
    learner = learner_of(name, network, terms, snapshot=snapshot or _state_dict)
    learners = [learner, *(learner_of(p.name, p.network, p.terms, snapshot=p.snapshot) for p in peers)]
    steps = budget.epochs * len(feed)
    for each in learners:
        hastened = hasten_norms(each.network, len(feed))
        if hastened and fabric.global_rank == 0:
            progress.say(f"  {each.name}: {hastened}")
    schedule = _schedule(budget, len(feed))
    freeze_step = max(1, min(steps - 1, int(freeze.share * steps))) if freeze else -1  # ranges are seen in a step at least
    said = "val" if data.of == "labels" else "val agreement"
    step = 0
    with (
        _lessons(
            fabric, teacher, terms.teacher_paths, recording, looks, prepare, data, budget.epochs, _bytes(pupil)
        ) as lessons,
        (progress if fabric.global_rank == 0 else Silent()).task(name, steps) as task,
    ):
        for epoch in range(budget.epochs):
            augmented.epoch, sampler.epoch = epoch % draws, epoch
            module.train()
            for stored, labels, indices, *others in feed:
                if step == freeze_step and freeze:
                    freeze.action(network)
                for group in optimizer.param_groups:
                    group["lr"] = budget.lr * schedule(step)
                inputs = prepare(stored)
                with torch.no_grad(), fabric.autocast():
                    taught = lessons(looks(inputs, others), epoch % draws, indices) if lessons else None
                values, logits = module(_formed(inputs, form), taught, labels, indices, step / len(feed))
                sums = values.sum(1)
                if not bool(sums.isfinite().all()):
                    worst = sums.isfinite().tolist().index(False)
                    raise TrainingError(
                        f"{learners[worst].name}: the loss is {sums[worst].item()} at step {step} of epoch {epoch + 1} "
                        f"({_worst(terms.names, values[worst])})",
                        f"lower the learning rate (now {budget.lr:g}), set clip_grad_norm, or check the samples and targets",
                    )
                fabric.backward(sums.sum())
                if budget.clip_grad_norm:
                    _clip(fabric, module, optimizer, pupil, budget.clip_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                for each, own, answers in zip(learners, values, logits, strict=True):
                    each.step(own, answers, labels)
                step += 1
                task.advance(1)
            if freeze and step == freeze_step == steps:  # the only one
                freeze.action(network)
            for each in learners:
                found = score(each.kept, data.val, prepare, fabric.device, data.purpose)
                each.epoch(found, budget.lr * schedule(step - 1))
                if (
                    each.best_epoch < 0
                    or (step > freeze_step and each.improved)
                    or (freeze and step > freeze_step and (each.best_epoch + 1) * len(feed) <= freeze_step)
                ):
                    each.keep()
            task.advance(0, f"epoch {epoch + 1}/{budget.epochs} {said} {shown(learner.metric, learner.scores[-1])}")
    seconds = time.monotonic() - started
    fitted = [
        Fitted(each.best, each.weights(), tied.copied(each.terms.adapters.state_dict()), each.curve(seconds, data))
        for each in learners
    ]
    return replace(fitted[0], peers=tuple(fitted[1:]))


@contextmanager
def _lessons(
    fabric: Fabric, teacher: nn.Module | None, layers: tuple[str, ...], recording: Recording | None,
    looks: Looks, prepare: Prepare, data: DataSet, epochs: int, trained: int,
) -> Iterator[Lessons | None]:  # fmt: skip
    """What the teacher says about a batch: computed, or read where it is recorded."""
    if teacher is None:
        yield None
        return
    network = fabric.to_device(_laid_out(teacher.eval().requires_grad_(False), torch.channels_last))
    if recording is None:
        yield lambda look, _draw, _indices: network(*look)
        return
    stored = blank(data.train.stacked([0]))
    with torch.no_grad(), fabric.autocast():
        inputs = prepare(fabric.to_device(stored))
        probe = network(*looks(inputs, [fabric.to_device(view) for view in looks.blank()]))
    precision = fabric.strategy.precision.precision
    recorded = Recorded(recording, network, layers, probe, len(data.train), epochs, precision, trained)
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
def score(network: nn.Module, split: Split, prepare: Prepare, device: torch.device, purpose: Purpose) -> float:
    """Return the task's first metric of a network that returns logits or ``(logits, ...)``; its mode is restored."""
    metric, primary = purpose.task.metrics[0], purpose.signature.primary
    outputs = {primary: primary_of(network, split, prepare, device).numpy()}
    rows = metric.per_sample(outputs, split.targets, primary)
    assert rows is not None, "a task's first metric is about all of its outputs"
    return metric.reduce(rows)


@torch.no_grad()
def primary_of(network: nn.Module, split: Split, prepare: Prepare, device: torch.device) -> Tensor:
    """Return the primary output of such a network for a split, float32 (N×…) on the CPU; its mode is restored."""
    training = network.training
    network.eval()
    found = []
    for stored in split.batches():
        inputs = prepare({name: torch.from_numpy(rows).to(device) for name, rows in stored.items()})
        found.append(primary.first(network(*inputs.values())).float().cpu())
    network.train(training)
    return torch.cat(found)


def _formed(inputs: Mapping[str, Tensor], form: torch.memory_format) -> dict[str, Tensor]:
    """Return the inputs with images in a memory layout."""
    return {name: x.contiguous(memory_format=form) if x.ndim == 4 else x for name, x in inputs.items()}


def _laid_out(network: nn.Module, form: torch.memory_format) -> nn.Module:
    cast(Any, network).to(memory_format=form)  # torch's stubs lack this form
    return network


def _state_dict(network: nn.Module) -> State:
    return dict(network.state_dict())


def _bytes(network: nn.Module) -> int:
    return sum(value.nbytes for value in network.state_dict().values())


def _worst(names: tuple[str, ...], values: Tensor) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in zip(names, values.tolist(), strict=True))


def _clip(fabric: Fabric, module: Any, optimizer: Any, pupil: Pupil, largest: float) -> None:
    """Clip the norm of the gradient: of each network, with its adapters, by itself.

    In 16-mixed a gradient may overflow: the step is then left out, and the scale lowered, by the scaler.
    """
    strict = not _scales(fabric)
    if not pupil.peers:
        fabric.clip_gradients(module, optimizer, max_norm=largest, error_if_nonfinite=strict)
        return
    # nothing but the scale of 16-mixed is taken away
    fabric.clip_gradients(module, optimizer, max_norm=math.inf, error_if_nonfinite=strict)
    own = [*pupil.network.parameters(), *pupil.terms.parameters()]
    for parameters in (own, *(list(peer.parameters()) for peer in pupil.peers)):
        trained = [p for p in parameters if p.requires_grad]
        # in the optimizer's order, for the sum of the norm has another last bit in another one
        ordered = [p for p in trained if p.ndim > 1] + [p for p in trained if p.ndim <= 1]
        nn.utils.clip_grad_norm_(ordered, largest, error_if_nonfinite=strict)


def _scales(fabric: Fabric) -> bool:
    """Return whether gradients are scaled, for half precision would lose small ones."""
    return getattr(fabric.strategy.precision, "scaler", None) is not None


def _optimizer(pupil: nn.Module, budget: Train, fused: bool) -> torch.optim.Optimizer:
    """``fused`` is the faster one, whose scaled gradients cannot be clipped."""
    parameters = [p for p in pupil.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": budget.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": budget.weight_decay * budget.decay_norms},
    ]
    if budget.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=budget.lr, momentum=0.9, nesterov=budget.nesterov)
    return torch.optim.AdamW(groups, lr=budget.lr, fused=fused)


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
