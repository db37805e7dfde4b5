"""The training loop, the same for teachers, students and quantization-aware training.

On Lightning Fabric: a CPU, a GPU or several; mixed precision on GPUs. Cosine or step schedule with warm-up, optional EMA
of the weights, best-by-validation and last kept.
"""

from __future__ import annotations

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
from edgekd.distill.looks import Look, ViewNormalizer, ask, blank
from edgekd.distill.outputs import Batch
from edgekd.distill.teacher_cache.recording import Recorded, Recording, TrainingFacts
from edgekd.distill.teachers import tapped
from edgekd.distill.terms import Terms
from edgekd.errors import TrainingError
from edgekd.metrics.base import shown, value_of
from edgekd.models import tied
from edgekd.models.layout import laid_out, lay_out, layout
from edgekd.progress import Progress, Silent, Task
from edgekd.recipe.data import Data
from edgekd.recipe.train import Train
from edgekd.results.run import Curve
from edgekd.taps.taps import Tapped, whole_state
from edgekd.task import primary
from edgekd.task.base import Purpose
from edgekd.task.named import call
from edgekd.train import not_finite, optimizers
from edgekd.train.state import NetworkState, State

TeacherOutputs = Callable[[Look, int, Tensor], tuple[Tensor, ...]]
"""From images, draw and indices to the teacher's ``(logits, *features)``."""


def state_dict(network: nn.Module) -> State:
    """Return the weights of a network as they are."""
    return dict(network.state_dict())


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


@dataclass(frozen=True)
class Trainable:
    """A network with its loss and its budget.

    Attributes:
        name: The name of its curve and of its progress.
        network: Returns ``(logits, *features)``; trained in place.
        terms: The loss.
        budget: Epochs, optimizer, schedule.
        seed: Decides order and augmentation.
        snapshot: Returns the weights of the network, or of its average.
        freeze: A one-time action in the middle.
        peers: Networks that learn with it instead of from a teacher.
    """

    name: str
    network: nn.Module
    terms: Terms
    budget: Train
    seed: int
    snapshot: Callable[[nn.Module], State] = state_dict
    freeze: Freeze | None = None
    peers: Sequence[mutual.Peer] = ()

    @classmethod
    def tapped(
        cls, name: str, network: nn.Module, terms: Terms, budget: Train, seed: int, peers: Sequence[mutual.Peer] = ()
    ) -> Trainable:
        """Return a network that gives the layers which the loss compares."""
        tapped = Tapped(network, terms.student_paths)
        return cls(name, tapped, terms, budget, seed, partial(whole_state, network), peers=peers)


@dataclass(frozen=True)
class Teaching:
    """The teacher of a training.

    Attributes:
        network: Returns ``(logits, *features)`` for the terms. None: no term looks at a teacher.
        views: The same samples as the teacher sees them, or as each of an ensemble does; empty: as the student does.
        recording: Where the teacher's outputs are kept. None: the teacher runs at every step.
    """

    network: nn.Module | None
    views: Sequence[DataSet] = ()
    recording: Recording | None = None

    @classmethod
    def of(
        cls, teacher: nn.Module | None, terms: Terms, views: Sequence[DataSet] = (), recording: Recording | None = None
    ) -> Teaching:
        """Return a teacher that gives the layers which the loss compares; none where the loss does not need it."""
        network = tapped(teacher, terms.teacher_paths) if teacher is not None and terms.needs_teacher else None
        return cls(network, views, recording)


NO_TEACHER = Teaching(None)


class TrainedNetworks(nn.Module):
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
        outputs = [call(network, inputs) for network in (self.network, *self.peers)]
        values = []
        for index, terms in enumerate([self.terms, *(peer.terms for peer in self.peers)]):
            taught = mutual.outputs_of_others(outputs, index) if self.peers else teacher
            value = torch.stack(terms(outputs[index], taught, batch, epoch))
            if torch.distributed.is_initialized():  # it waits for a gradient of every parameter, whatever the terms read
                value = value + 0 * outputs[index][0].sum()
            values.append(value)
        return torch.stack(values), torch.stack([own[0] for own in outputs])


def fit(
    fabric: Fabric, trainable: Trainable, data: DataSet, section: Data, progress: Progress, teaching: Teaching = NO_TEACHER
) -> Fitted:
    """Train a network, and its peers beside it.

    Args:
        fabric: Device, precision and processes.
        trainable: The network, its loss and its budget.
        data: Samples.
        section: The recipe's data section (augmentation).
        progress: Where to report.
        teaching: The teacher, if there is one.

    Raises:
        TrainingError: The loss, or the task's first metric after an epoch, is not finite.
        StorageError: The disk lacks the room for the teacher's outputs.
    """
    started, epochs = time.monotonic(), trainable.budget.epochs
    loop = _Loop(fabric, trainable, data, section, progress, teaching.views)
    draws = teaching.recording.draws(epochs) if teaching.recording else epochs
    said = "val" if data.of == "labels" else "val agreement"
    with (
        _teacher_outputs(loop, teaching) as teacher,
        (progress if fabric.global_rank == 0 else Silent()).task(trainable.name, loop.steps) as task,
    ):
        for epoch in range(epochs):
            loop.train(epoch, epoch % draws, teacher, task)
            loop.validate()
            score = shown(loop.states[0].metric, loop.states[0].scores[-1])
            task.advance(0, f"epoch {epoch + 1}/{epochs} {said} {score}")
    seconds = time.monotonic() - started
    fitted = [
        Fitted(each.best, each.weights(), tied.copied(each.terms.adapters.state_dict()), each.curve(seconds, data))
        for each in loop.states
    ]
    return replace(fitted[0], peers=tuple(fitted[1:]))


class _Loop:
    """A training between two epochs: the networks and what changes them."""

    def __init__(
        self, fabric: Fabric, trainable: Trainable, data: DataSet, section: Data, progress: Progress,
        views: Sequence[DataSet],
    ) -> None:  # fmt: skip
        self.fabric, self.trainable, self.data, budget = fabric, trainable, data, trainable.budget
        self.networks = TrainedNetworks(trainable.network, trainable.terms, trainable.peers)
        self.form = layout(self.networks)
        optimizer = optimizers.of(self.networks, budget, fused=not optimizers.scales(fabric))
        self.module, self.optimizer = fabric.setup(lay_out(self.networks, self.form), optimizer)
        size, seed = budget.batch_size, trainable.seed
        batches, self.augmented, self.sampler = loader(data.train, section, size, seed, [view.train for view in views])
        self.feed: Any = fabric.setup_dataloaders(batches)
        if not len(self.feed):
            raise TrainingError(
                f"{trainable.name}: {len(data.train)} training {data.noun}s are less than one batch of {size} for each of "
                f"{fabric.world_size} processes",
                "lower batch_size or --processes",
            )
        self.prepare = fabric.to_device(Prepare(data))
        self.views = fabric.to_device(ViewNormalizer(views))
        state = partial(NetworkState, ema=budget.ema, purpose=data.purpose, labelled=data.train.labelled)
        own = state(trainable.name, trainable.network, trainable.terms, snapshot=trainable.snapshot)
        self.states = [own, *(state(p.name, p.network, p.terms, snapshot=p.snapshot) for p in trainable.peers)]
        for each in self.states:
            hastened = hasten_norms(each.network, len(self.feed))
            if hastened and fabric.global_rank == 0:
                progress.say(f"  {each.name}: {hastened}")
        self.schedule = optimizers.schedule(budget, len(self.feed))
        self.step, self.steps = 0, budget.epochs * len(self.feed)
        freeze = trainable.freeze
        # ranges are observed for one step at least
        self.freeze_step = max(1, min(self.steps - 1, int(freeze.share * self.steps))) if freeze else -1

    def train(self, epoch: int, draw: int, teacher: TeacherOutputs | None, task: Task) -> None:
        """Do an epoch's steps; ``draw`` is that of the augmentation.

        Raises:
            TrainingError: The loss is not finite.
        """
        self.augmented.epoch, self.sampler.epoch = draw, epoch
        self.module.train()
        for stored, target, indices, *others in self.feed:
            if self.step == self.freeze_step:
                self._freeze()
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate()
            inputs = self.prepare(stored)
            with torch.no_grad(), self.fabric.autocast():
                taught = teacher(self.views(inputs, others), draw, indices) if teacher else None
            values, logits = self.module(laid_out(inputs, self.form), taught, target, indices, self.step / len(self.feed))
            if not bool(values.sum(1).isfinite().all()):
                raise self._not_finite(values, logits, epoch, not_finite.Batch(inputs, target, taught))
            self._update(values, epoch)
            for each, own, answers in zip(self.states, values, logits, strict=True):
                each.step(own, answers, target)
            self.step += 1
            task.advance(1)
        if self.step == self.freeze_step == self.steps:  # the only one
            self._freeze()

    def _not_finite(self, values: Tensor, logits: Tensor, epoch: int, batch: not_finite.Batch) -> TrainingError:
        """Return the error of a loss that is not finite; ``values`` are those of the terms, networks×terms."""
        worst = values.sum(1).isfinite().tolist().index(False)
        state = self.states[worst]
        network: nn.Module = (self.networks.network, *self.networks.peers)[worst]
        step = not_finite.Step(
            batch, logits[worst], dict(zip(state.terms.names, values[worst].detach(), strict=True)),
            self._place(epoch), updated=self.step > 0, lr=self.trainable.budget.lr, half=optimizers.scales(self.fabric),
        )  # fmt: skip

        def again() -> None:
            with self.fabric.autocast():
                call(network, laid_out(batch.inputs, self.form))

        return not_finite.error(state.name, network, step, again)

    def _place(self, epoch: int) -> str:
        return f"step {self.step % len(self.feed) + 1} of epoch {epoch + 1}"

    def _update(self, values: Tensor, epoch: int) -> None:
        """Change the weights; ``values`` are those of the terms, networks×terms.

        Raises:
            TrainingError: The gradient is to be clipped, and is not finite.
        """
        sums, clip = values.sum(1), self.trainable.budget.clip_grad_norm
        self.fabric.backward(sums.sum())
        if clip:
            peers = [[*peer.parameters()] for peer in self.networks.peers]
            own = [*self.networks.network.parameters(), *self.networks.terms.parameters()]
            try:
                optimizers.clip(self.fabric, self.module, self.optimizer, [own, *peers] if peers else [], clip)
            except RuntimeError:  # of torch, which has no class for it
                named = zip(self.states, (self.networks.network, *self.networks.peers), strict=True)
                for state, network in named:
                    not_finite.check_gradient(state.name, network, self._place(epoch), updated=self.step > 0)
                raise
        self.optimizer.step()
        self.optimizer.zero_grad()

    def validate(self) -> None:
        """Validate every network after an epoch, and take its weights where they are the best that may be kept."""
        for each in self.states:
            found = score(each.kept, self.data.val, self.prepare, self.fabric.device, self.data.purpose)
            each.epoch(found, self._rate(self.step - 1))
            frozen = self.step > self.freeze_step
            best_is_early = (each.best_epoch + 1) * len(self.feed) <= self.freeze_step
            if (
                each.best_epoch < 0
                or (frozen and each.improved)
                or (self.trainable.freeze is not None and frozen and best_is_early)
            ):
                each.keep()

    def _rate(self, step: int | None = None) -> float:
        return self.trainable.budget.lr * self.schedule(self.step if step is None else step)

    def _freeze(self) -> None:
        if self.trainable.freeze is not None:
            self.trainable.freeze.action(self.trainable.network)


@contextmanager
def _teacher_outputs(loop: _Loop, teaching: Teaching) -> Iterator[TeacherOutputs | None]:
    """The teacher's outputs for a batch: computed, or read where they are recorded."""
    fabric, data = loop.fabric, loop.data
    if teaching.network is None:
        yield None
        return
    network = fabric.to_device(lay_out(teaching.network.eval().requires_grad_(False), torch.channels_last))
    if teaching.recording is None:
        yield lambda views, _draw, _indices: ask(network, views)
        return
    stored = blank(data.train.stacked([0]))
    with torch.no_grad(), fabric.autocast():
        inputs = loop.prepare(fabric.to_device(stored))
        probe = ask(network, loop.views(inputs, [fabric.to_device(view) for view in loop.views.blank()]))
    precision = fabric.strategy.precision.precision
    taught = Recorded(
        teaching.recording, network, loop.trainable.terms.teacher_paths, probe,
        TrainingFacts(len(data.train), loop.trainable.budget.epochs, precision, _bytes(loop.networks)),
    )  # fmt: skip
    try:
        yield taught
    finally:
        taught.close()


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
    return value_of(metric, primary_of(network, split, prepare, device).numpy(), split.targets, primary)


@torch.no_grad()
def primary_of(network: nn.Module, split: Split, prepare: Prepare, device: torch.device) -> Tensor:
    """Return the primary output of such a network for a split, float32 (N×…) on the CPU; its mode is restored."""
    training = network.training
    network.eval()
    found = []
    for stored in split.batches():
        inputs = prepare({name: torch.from_numpy(rows).to(device) for name, rows in stored.items()})
        found.append(primary.first(call(network, inputs)).float().cpu())
    network.train(training)
    return torch.cat(found)


def _bytes(network: nn.Module) -> int:
    return sum(value.nbytes for value in network.state_dict().values())
