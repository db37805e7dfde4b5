"""Is a trained network wired to the data as it was in its training? Asked before anything is trained.

A teacher whose classes are in another order, whose images are normalized in another way or which gives probabilities trains
a bad student without any error; a student that is wired wrongly is exported and passes every comparison with itself. So a
network whose weights are given is run on some labelled images, as the recipe says and in the other usual ways
(:mod:`edgekd.assembly.hypotheses`). Where another way is right on more of them beyond chance, the run stops and says which.
Of a task with other inputs or without classes no other way is known: its first metric has to be better with the targets of
the samples than with the targets of other ones. Outputs that are NaN or infinite say nothing about any of this: they stop
the run first.
"""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd.assembly.hypotheses import Tried, Way, are_probabilities, chance, knows
from edgekd.errors import ModelError
from edgekd.loading.lock import flow
from edgekd.recipe.data import NORMALIZATIONS, Data
from edgekd.results.findings import Finding, said
from edgekd.statistics import wilson
from edgekd.task.image_classification import IMAGE

if TYPE_CHECKING:
    from torch import nn

    from edgekd.data.dataset import DataSet
    from edgekd.progress import Progress
    from edgekd.recipe.teacher import Teacher
    from edgekd.task.base import Purpose

UNCHECKED = Finding("rewrite_unchecked", "warning", "student")
"""Doubt about a student that may compute something else until it is trained."""
CHANCE = "chance"
"""Code of the doubt about a network that is no better than chance."""
IMAGES = (256, 1024)  # labelled images that a network is run on: so many at 96 pixels or more, more of smaller ones
SAMPLES = 128  # of other inputs than images, in one batch
SHUFFLES = 19  # orders of targets, all of which the right one has to beat: by chance it does once in 20 times
ENOUGH = 100  # labelled images, below which nothing is proved
FOUND = 200  # labelled images, below which another way is only said
MUCH = 0.1  # what another way has to bring for sure, of top-1, to stop a run that has written down its own
FAULT = 0.4  # share of the mistakes that a fault of normalization or size makes, at the least
TURNED = 0.25  # and one of the order of classes or channels, which nothing but a fault looks like
TOLD = 0.2  # share of the mistakes from which on another way is said


@dataclass(frozen=True)
class Role:
    """The role of the network under test.

    Attributes:
        place: Where it stands in the recipe: ``teacher``, ``teacher.teacher``, ``student``.
        teaches: Whether something learns from it: then probabilities and chance stop the run. Of a student that is used as
            it is they are only said.
        box: It is a file of which only the outputs are known.
        normalized: The recipe says what its images are normalized with.
    """

    place: str
    teaches: bool
    box: bool = False
    normalized: bool = False

    @property
    def called(self) -> str:
        """Name in messages: a network that nothing is distilled into is nobody's student."""
        return "the network" if self.place == "student" else self.place


def check(network: nn.Module, images: DataSet, data: Data, role: Role, progress: Progress) -> tuple[Finding, ...]:
    """Run a given network on labelled images, and stop if it is wired wrongly.

    Args:
        network: In evaluation mode, from normalized samples to their primary output.
        images: What it sees.
        data: The data section that it sees.
        role: Who it is.
        progress: Told its accuracy, and what is doubtful.

    Returns:
        What is doubtful, for the report.

    Raises:
        ModelError: It gives NaN, infinity or probabilities, is no better than chance, or is right on more images in another
            way. The message names the way.
    """
    doubts = tuple(_doubts(network, images, data, role, progress))
    for doubt in doubts:
        progress.say(f"  warning: {doubt.figures['text']}")
    return doubts


def _doubts(network: nn.Module, images: DataSet, data: Data, role: Role, progress: Progress) -> Iterator[Finding]:
    from edgekd.distill.teachers import Stored

    if {*images.train.inputs} != {IMAGE} or "classes" not in images.purpose.task.gives:
        yield from _by_metric(network, images, role, progress)
        return
    pixels, labels, chosen = _sample(images, data.size)
    tried = Tried(network, pixels, labels, images, data)
    fixed = isinstance(network, Stored)
    given = tried.as_it_is(network.train_logits.numpy()[chosen] if isinstance(network, Stored) else None)
    _refuse_not_finite(given.logits, network, tried.as_it_is, role, images.noun)
    yield from _probabilities(given.logits, role)
    if not images.train.labelled:
        if not fixed and not role.normalized and data.source != "random":
            text = "sees images normalized with their own mean and deviation, as the recipe gives none"
            yield _doubt(role, f"{role.called} {text}; without labels this cannot be checked")
        return
    n, classes = len(labels), given.logits.shape[1]
    low, high = wilson(given.top1, n)
    shown = f"top-1 {100 * given.top1:.1f} % [{100 * low:.1f}, {100 * high:.1f}] on {n} training images"
    luck = chance(given.logits.argmax(1), labels, classes)
    lost = low <= luck and not knows(given.logits.argmax(1), labels)
    doubtful = n >= ENOUGH and given.top1 < 1
    ways = {"fixed": fixed, "lost": lost, "chosen": role.normalized}
    best = tried.best(given, role.called, progress, **ways) if doubtful else None
    if best is not None and (lost or best.cut(given) >= TOLD):
        found = f"{role.called} has {shown}, and {100 * best.top1:.1f} % {_words(best, images.classes)}"
        hint = _hint(best, role, images.classes)
        if best.normalization is not None:
            hint += f", the best of the usual ones{_or_own(role, images)}; its training script has the right values"
        written = (best.normalization is not None and role.normalized) or best.side is not None
        fault = TURNED if best.labels is not None or best.bgr else FAULT
        sure = best.cut(given) >= fault and n >= FOUND and (not written or best.gain(given) > MUCH)
        if lost or sure:
            raise ModelError(found, hint)
        yield _doubt(role, f"{found}; {hint}")
    elif lost and n >= ENOUGH:
        cause, hint = _unexplained(given, images.classes, role)
        message = f"{role.called} is no better than chance: {shown}, chance is {100 * luck:.1f} %. {cause}"
        if role.teaches:
            raise ModelError(message, hint)
        yield replace(_doubt(role, f"{message}; {hint}"), code=CHANCE)
    else:
        few = "" if n >= ENOUGH or given.top1 == 1 else f"; other sizes and normalizations are tried on {ENOUGH} or more"
        progress.say(f"  {role.called}: {shown}, normalized with {_normalized(images, role)}{few}")
        if lost:
            found = f"{role.called} is not better than chance ({100 * luck:.1f} %), as far as {n} images can tell"
            yield _doubt(role, found)


def _or_own(role: Role, images: DataSet) -> str:
    """Name the images' own normalization, where the recipe gives none."""
    if role.normalized:
        return ""
    rule = images.preprocessing
    typed = f"--normalize {_typed(rule.mean, rule.std)}"
    own = typed if role.place == "student" else flow({"mean": list(rule.mean), "std": list(rule.std)})
    return f", or {own} if it was trained with the images' own"


def _by_metric(network: nn.Module, images: DataSet, role: Role, progress: Progress) -> Iterator[Finding]:
    """Compare a network's outputs with the targets of their samples and with targets of other samples.

    It needs nothing of a task but its first metric: a network that is fed as it was trained is better with the targets of
    the samples than with those of others.
    """
    from edgekd.metrics.base import shown

    place, purpose = role.called, images.purpose
    chosen = _chosen(len(images.train), IMAGES[1])
    output = _outputs(network, images, chosen) if chosen else None
    if output is not None:
        _refuse_not_finite(output, network, partial(_outputs, network, images, chosen), role, images.noun)
    if output is None or not images.train.labelled:
        yield _doubt(role, f"{place} was not checked before its use: there are no training samples with targets")
        return
    targets = images.train.targets[chosen]
    if "classes" in purpose.task.gives:
        yield from _probabilities(output, role)
    metric, n = purpose.task.metrics[0], len(chosen)

    def value(places: NDArray[np.int64]) -> float | None:
        rows = metric.per_sample({purpose.signature.primary: output}, targets[places], purpose.signature.primary)
        return None if rows is None else metric.reduce(rows)

    own = value(np.arange(n))
    random = np.random.default_rng(0)
    others = [value(random.permutation(n)) for _ in range(SHUFFLES)]
    if own is None or not math.isfinite(own) or any(other is None for other in others):
        yield _doubt(role, f"{place} was not checked before its use: {metric.label} says nothing about its outputs")
        return
    best = (max if metric.better == "higher" else min)(other for other in others if other is not None)
    found = f"{metric.label} {shown(metric, own)} on {n} training samples; {shown(metric, best)} with the targets of others"
    if own > best if metric.better == "higher" else own < best:
        progress.say(f"  {place}: {found}")
        return
    message = f"{place} is no better than chance: {found}"
    if n < ENOUGH:
        yield _doubt(role, f"{message}; as far as {n} samples can tell")
        return
    hint = "are these the trained weights, of this architecture, and are the inputs in the units of its training?"
    if role.teaches:
        raise ModelError(message, f"{hint} {_others(role)}")
    yield replace(_doubt(role, f"{message}; {hint}"), code=CHANCE)


def _outputs(network: nn.Module, images: DataSet, chosen: Sequence[int]) -> NDArray[np.float32]:
    """Return the primary output for training samples; of a stored network those that are stored."""
    import torch

    from edgekd.distill.teachers import Stored
    from edgekd.task import primary
    from edgekd.task.named import batches, call

    if isinstance(network, Stored):
        return network.train_logits.numpy()[list(chosen)]
    taken = images.taken(images.train.stacked(chosen))
    parts = batches({name: torch.from_numpy(value) for name, value in taken.items()}, SAMPLES)
    with torch.inference_mode():
        found: NDArray[np.float32] = np.concatenate([primary.first(call(network, part)).float().numpy() for part in parts])
    return found


def _refuse_not_finite(
    outputs: NDArray[np.float32], network: nn.Module, run: Callable[[], object], role: Role, noun: str
) -> None:
    """Stop at outputs that are no numbers: nothing can be learned from them, compared with them or said about their wiring.

    Args:
        outputs: The primary output for training samples.
        network: The network; its modules tell where such values begin.
        run: Computes the outputs again.
        role: Who it is.
        noun: Name of a sample.

    Raises:
        ModelError: There are NaN or infinite ones.
    """
    from edgekd.distill.teachers import is_open
    from edgekd.task.finite import FORWARD_HINT, first_module, not_finite

    found = not_finite(outputs)
    if found is None:
        return
    message = f"{role.called} gives {found.kind} for {found.rows} of {found.of} training {noun}s"
    if not is_open(network):
        raise ModelError(message, f"run the file on these {noun}s, as it was in its training; give another file")
    first = first_module(network, run, nan=found.nan)
    raise ModelError(f"{message}{f'; {first} is the first to do so' if first else ''}", FORWARD_HINT)


def _doubt(role: Role, text: str) -> Finding:
    """Return a doubt; where it is sure, its text is that of an error."""
    return said(text, "warning", role.place)


def _probabilities(outputs: NDArray[np.float32], role: Role) -> Iterator[Finding]:
    place, called = role.place, role.called
    if are_probabilities(outputs):
        told = f"{called} gives probabilities, not logits: each row is between 0 and 1 and sums to 1"
        if role.teaches:
            raise ModelError(told, f"take the softmax out of the network, or write {place}.outputs: probabilities")
        yield _doubt(role, f"{told}; every figure about its logits is then about probabilities")
    elif len(outputs) >= ENOUGH and outputs.min() >= 0 and 0.5 < outputs.max() <= 1:
        yield _doubt(role, f"all outputs of {called} are between 0 and 1, as those of a sigmoid; logits are of any size")


def refuse_probabilities(network: nn.Module, purpose: Purpose, place: str) -> None:
    """Stop before a network is trained that has its softmax inside: every loss takes another one of it.

    Args:
        network: As it is built or loaded, in any mode.
        purpose: Its task; only one with classes has logits.
        place: Where it stands in the recipe.

    Raises:
        ModelError: It gives probabilities.
    """
    import torch

    from edgekd.models import build
    from edgekd.task.named import call

    if "classes" not in purpose.task.gives:
        return
    alike = copy.deepcopy(network)  # whose batch statistics may move
    several = {name: torch.cat([value, value]) for name, value in build.example(purpose.signature).items()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # One that has its softmax in evaluation alone is trained right.
        outputs = [call(alike.train(mode), several).float().numpy() for mode in (False, True)]
    if all(map(are_probabilities, outputs)):
        raise ModelError(
            f"{place} gives probabilities, not logits: each row is between 0 and 1 and sums to 1",
            "take the softmax out of the network: the losses compute their own",
        )


def order_of(section: Teacher, classes: Sequence[str], place: str) -> tuple[int, ...] | None:
    """Return the output of a teacher that belongs to each class of the data; None: they are in the same order.

    Raises:
        ModelError: The names in the recipe are others than the data's.
    """
    if section.classes is None:
        return None
    given = [str(name) for name in section.classes]
    if sorted(given) != sorted(classes):
        odd = sorted({*given} ^ {*classes})
        what = f"{', '.join(odd[:3])} is in only one of them" if odd else "a name is there twice"
        raise ModelError(
            f"{place}.classes are not the classes of the data: {what}",
            f"list these in the order of its outputs: {', '.join(classes)}",
        )
    return tuple(given.index(name) for name in classes)


def _sample(images: DataSet, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[int]]:
    """Training images by chance, always the same ones, their labels, and which they are."""
    split = images.train
    least, most = IMAGES
    count = min(len(split), most, max(least, least * 96**2 // math.prod(size)))
    chosen = _chosen(len(split), count)
    return np.stack([split.images[i] for i in chosen]), split.labels[chosen], chosen


def _chosen(total: int, most: int) -> list[int]:
    """Return places of at most ``most`` samples by chance, always the same ones: a step could follow the classes."""
    chosen: list[int] = sorted(np.random.default_rng(0).choice(total, min(total, most), replace=False).tolist())
    return chosen


def _normalized(images: DataSet, role: Role) -> str:
    mean, std = map(_numbers, (images.preprocessing.mean, images.preprocessing.std))
    return "what the recipe says" if role.normalized else f"the images' own mean {mean} and deviation {std}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _words(way: Way, classes: Sequence[str]) -> str:
    """Say how it is right on more."""
    said = []
    if way.side is not None:
        said.append(f"at {way.side}×{way.side}")
    if way.normalization is not None:
        said.append(f"with the normalization {way.normalization[0]}".replace("normalization that", "normalization"))
    if way.bgr:
        said.append("with the channels in the order blue, green, red")
    if way.labels is not None:
        first = next(index for index, label in enumerate(way.labels) if index != label)
        said.append(f"if its output {first} is {classes[way.labels[first]]!r}, and so on")
    return " and ".join(said)


def _hint(way: Way, role: Role, classes: Sequence[str]) -> str:
    """Say what to write for it."""
    place, own = role.place, role.place == "student"
    written: list[str] = []
    typed: list[str] = []
    section: dict[str, object] = {}
    if way.side is not None:
        section["image_size"] = way.side
        typed.append(f"--size {way.side}")
    if way.normalization is not None:
        name, (mean, std) = way.normalization
        typed.append(f"--normalize {name if name in NORMALIZATIONS else _typed(mean, std)}")
        values = {"mean": _rounded(mean), "std": _rounded(std)}
        if role.box:
            written.append(", ".join(f"{place}.{key}: {flow(value)}" for key, value in values.items()))
        else:
            section |= values
    if way.labels is not None:
        names = [classes[label] for label in way.labels]
        if own:
            section["class_order"] = names
            typed.append(f"--set {_quoted(f'data.class_order={flow(names)}')}")
        else:
            written.append(f"{place}.classes: {flow(names)}")
    if section:
        written.insert(0, f"{'data' if own else f'{place}.data'}: {flow(section)}")
    hint = f"write {' and '.join(written)}" if written else ""
    if own and typed:
        hint += f" ({' '.join(typed)})"
    if way.bgr:
        turned = "turn the channels of its first convolution: weight = weight[:, [2, 1, 0]]"
        hint = f"{hint}; {turned}" if hint else turned
    return hint


def _typed(mean: Sequence[float], std: Sequence[float]) -> str:
    """A normalization as an option takes it."""
    return "/".join(_numbers(part).replace(" ", "") for part in (mean, std))


def _quoted(text: str) -> str:
    """As a shell takes it; names of classes often have single quotes around them."""
    return shlex.quote(text) if {*text} & {*'"$`\\!'} else f'"{text}"'


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _others(role: Role) -> str:
    """Name what can be done about weights that are no good: only a teacher whose network is known can be trained here."""
    if role.box:
        return "Give another file"
    return "Give others" if role.place == "student" else "Give others, or add train: {epochs: N}"


def _unexplained(given: Way, classes: Sequence[str], role: Role) -> tuple[str, str]:
    """Why a network is no better than chance where no usual way explains it, and what to do."""
    counts = np.bincount(given.logits.argmax(1))
    most, sure = float(counts.max()) / len(given.logits), given.confidence
    if most > 0.9 or given.unsure:
        says = f"gives {classes[int(counts.argmax())]!r} for {100 * most:.0f} % of the images"
        return (
            f"It looks untrained: it {says}, with a probability of {sure:.2f} in the mean",
            f"are these the trained weights, of this architecture? {_others(role)}",
        )
    listed = f"{', '.join(classes[:4])}{', …' if len(classes) > 4 else ''}"
    return (
        "No order of classes or channels, usual normalization or size explains it, and its confidence is high "
        f"({sure:.2f} in the mean): it seems to be trained on other classes than {listed}",
        f"are these weights for these classes? {_others(role)}",
    )
