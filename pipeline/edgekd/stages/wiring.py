"""Is a trained network wired to the data as it was in its training? Asked before anything is trained.

A teacher whose classes are in another order, whose images are normalized in another way or which gives probabilities trains
a bad student without any error. So a network whose weights are given is run on some labelled images. If it is no better
than chance, or much better with another of the usual normalizations, the cause is looked for, and the run stops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ModelError
from edgekd.recipe_data import NORMALIZATIONS, Data
from edgekd.statistics import paired_shares, wilson

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.data import DataSet
    from edgekd.recipe import Teacher

IMAGES = 256
ENOUGH = 100  # labelled images, below which chance is no proof
GAIN = 0.03  # what another normalization has to bring at the least, of top-1
ORDER_GAIN = 0.2  # what another order of the classes has to bring at the least
FEW = 96  # images that are tried at each size, with each normalization
SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384)
_BATCH = 32


@dataclass(frozen=True)
class Sample:
    """Labelled images: uint8 N×C×S×S, labels int64 N."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def chance(self) -> float:
        """Share of the most frequent class."""
        return float(np.bincount(self.labels).max()) / len(self.labels)


def check(
    network: nn.Module,
    images: DataSet,
    data: Data,
    place: str,
    *,
    teaches: bool,
    say: Callable[[str], None],
) -> None:
    """Run a given network on labelled images, and stop if it is wired wrongly.

    Args:
        network: In evaluation mode, from normalized N×C×S×S to N×classes.
        images: What it sees.
        data: The data section that it sees.
        place: Where it stands in the recipe: ``teacher`` or ``student``.
        teaches: Whether something learns from it: then probabilities and chance are faults. Of a student that is used as it
            is chance is only said.
        say: Told its accuracy.

    Raises:
        ModelError: It gives probabilities, is no better than chance, or is better with another normalization where the
            recipe gives none. The message names the cause if one is found.
    """
    from edgekd.distill.teachers import Stored

    fixed = isinstance(network, Stored)
    sample, chosen = _sample(images)
    if isinstance(network, Stored):
        logits = network.train_logits.numpy()[chosen]
    else:
        logits = _run(network, sample.images, images.mean, images.std, data.channels)
    if teaches and _are_probabilities(logits):
        raise ModelError(
            f"{place} gives probabilities, not logits: each row is between 0 and 1 and sums to 1",
            f"take the softmax out of the network, or write {place}.outputs: probabilities",
        )
    if not images.train.labelled:
        return
    right = logits.argmax(1) == sample.labels
    n, top1 = len(right), float(right.mean())
    low, high = wilson(top1, n)
    shown = f"top-1 {100 * top1:.1f} % [{100 * low:.1f}, {100 * high:.1f}] on {n} training images"
    order = _order(logits, sample) if n >= ENOUGH else None
    if order is not None and teaches:
        raise ModelError(
            f"{place} has its classes in another order: {shown}; {order.words(images.classes)}",
            order.hint(place, images.classes),
        )
    if low > sample.chance or n < ENOUGH:
        given = data.mean is not None
        few = Sample(sample.images[:FEW], sample.labels[:FEW]) if given else sample
        better = None if fixed else _normalization(network, few, data.channels, right[: len(few.labels)])
        if better is not None and given:
            say(
                f"  warning: {place} has {shown}, but {100 * better.top1:.1f} % on {FEW} of them with {better.words}\n"
                f"    → {_write_normalization(place, better)}"
            )
        elif better is not None:
            raise ModelError(
                f"{place} has {shown} with the mean and the standard deviation of the data, and {100 * better.top1:.1f} % "
                f"with {better.words}",
                _write_normalization(place, better),
            )
        say(f"  {place}: {shown}")
        if low <= sample.chance:
            say(f"  warning: {place} is not better than chance ({100 * sample.chance:.1f} %), as far as {n} images can tell")
        return
    cause, hint = _cause(network, sample, images, data, logits, place, fixed=fixed)
    message = f"{place} is no better than chance: {shown}, chance is {100 * sample.chance:.1f} %. {cause}"
    if teaches:
        raise ModelError(message, hint)
    say(f"  warning: {message}\n    → {hint}")


def refuse_probabilities(network: nn.Module, example: Tensor, place: str) -> None:
    """Stop before a network is trained that has its softmax inside: every loss takes another one of it.

    Args:
        network: As it is built or loaded, in any mode.
        example: An input, 1×C×S×S.
        place: Where it stands in the recipe.

    Raises:
        ModelError: It gives probabilities.
    """
    import torch

    alike = copy.deepcopy(network)  # whose batch statistics may move
    several = torch.cat([example, example])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        # One that has its softmax in evaluation alone is trained right.
        outputs = [alike.train(mode)(several).float().numpy() for mode in (False, True)]
    if all(map(_are_probabilities, outputs)):
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


@dataclass(frozen=True)
class Normalization:
    """A usual normalization, and the accuracy with it."""

    words: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    top1: float


def _sample(images: DataSet) -> tuple[Sample, list[int]]:
    """Training images by chance, always the same ones (a step could follow the order of the classes), and which they are."""
    split = images.train
    count = min(IMAGES, len(split))
    chosen: list[int] = sorted(np.random.default_rng(0).choice(len(split), count, replace=False).tolist())
    return Sample(np.stack([split.images[i] for i in chosen]), split.labels[chosen]), chosen


def _run(
    network: nn.Module, images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], channels: int
) -> NDArray[np.float32]:
    import torch

    from edgekd.data import preprocess

    device = next((value.device for value in network.parameters()), torch.device("cpu"))
    found = []
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            batch = torch.from_numpy(preprocess(images[start : start + _BATCH], mean, std, channels))
            found.append(network(batch.to(device)).float().cpu().numpy())
    return np.concatenate(found)


def _are_probabilities(logits: NDArray[np.float32]) -> bool:
    return bool((logits >= 0).all() and (logits <= 1).all() and np.allclose(logits.sum(1), 1, atol=1e-3))


def _usual(channels: int) -> Iterator[tuple[str, tuple[float, ...], tuple[float, ...]]]:
    for name, (mean, std) in NORMALIZATIONS.items():
        if len(mean) <= channels:
            yield name, mean, std
    yield "pixels from 0 to 255", (0.0,), (1 / 255,)


def _normalization(network: nn.Module, sample: Sample, channels: int, right: NDArray[np.bool_]) -> Normalization | None:
    """The usual normalization that is better beyond chance and by enough, if one is."""
    best: Normalization | None = None
    for words, mean, std in _usual(channels):
        now = _run(network, sample.images, mean, std, channels).argmax(1) == sample.labels
        low, _ = paired_shares(int((now & ~right).sum()), int((right & ~now).sum()), len(right))
        if low > GAIN and (best is None or now.mean() > best.top1):
            best = Normalization(words, mean, std, float(now.mean()))
    return best


def _write_normalization(place: str, found: Normalization) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in part) for part in (found.mean, found.std))
    section = "data" if place == "student" else f"{place}.data"
    typed = found.words if found.words in NORMALIZATIONS else f"{mean}/{std}".replace(" ", "")
    command = f" (--normalize {typed})" if place == "student" else ""
    return f"write {section}: {{mean: [{mean}], std: [{std}]}}{command}, or those that it was trained with"


def _cause(
    network: nn.Module, sample: Sample, images: DataSet, data: Data, logits: NDArray[np.float32], place: str, *, fixed: bool
) -> tuple[str, str]:
    """Why a network is no better than chance, and what to do."""
    right = logits.argmax(1) == sample.labels
    order = _order(logits, sample)
    if order is not None:
        words = order.words(images.classes)
        return f"Its classes are in another order: {words}", "order the folders or labels of the data as in its training"
    if not fixed:
        better = _normalization(network, sample, data.channels, right)
        if better is not None:
            return f"It was trained with another normalization: {100 * better.top1:.1f} % with {better.words}", (
                _write_normalization(place, better)
            )
        size = _size(network, sample, images, data, right)
        if size is not None:
            side, top1, words = size
            section = "data" if place == "student" else f"{place}.data"
            return f"It was trained on images of another size: {100 * top1:.1f} % at {side}×{side}{words}", (
                f"write {section}: {{image_size: {side}}}{f' (--size {side})' if place == 'student' else ''}"
            )
    probabilities = _softmax(logits)
    most = float(np.bincount(logits.argmax(1)).max()) / len(logits)
    confidence, even = float(probabilities.max(1).mean()), 1 / logits.shape[1]
    if most > 0.9 or confidence < 2 * even + 0.05:
        says = f"gives {images.classes[int(np.bincount(logits.argmax(1)).argmax())]!r} for {100 * most:.0f} % of the images"
        return (
            f"It looks untrained: it {says}, with a probability of {confidence:.2f} in the mean",
            "are these the trained weights, of this architecture? Give others, or add train: {epochs: N}",
        )
    return (
        f"No order of classes, usual normalization or size explains it, and it is sure of what it says "
        f"({confidence:.2f} in the mean): it seems to know other classes than {', '.join(images.classes[:4])}"
        f"{', …' if len(images.classes) > 4 else ''}",
        "give weights that were trained on these classes, or add train: {epochs: N} to fine-tune it",
    )


@dataclass(frozen=True)
class Order:
    """Which class of the data each output is, and the accuracy in this order."""

    labels: tuple[int, ...]
    top1: float

    def words(self, classes: Sequence[str]) -> str:
        """Say what the order would be."""
        first = next(index for index, label in enumerate(self.labels) if index != label)
        return f"if its output {first} is {classes[self.labels[first]]!r}, and so on, it is right on {100 * self.top1:.1f} %"

    def hint(self, place: str, classes: Sequence[str]) -> str:
        """Say what to write."""
        return f"write {place}.classes: [{', '.join(classes[label] for label in self.labels)}]"


def _order(logits: NDArray[np.float32], sample: Sample) -> Order | None:
    """The order of classes that explains the predictions far better than the one of the data; None if none does."""
    from scipy.optimize import linear_sum_assignment

    classes = logits.shape[1]
    counts = np.zeros((classes, classes))
    np.add.at(counts, (logits.argmax(1), sample.labels), 1)
    _, labels = linear_sum_assignment(-counts)
    n = len(logits)
    share, as_it_is = float(counts[np.arange(classes), labels].sum()) / n, float(np.trace(counts)) / n
    # The best of all orders is better than the given one by its choice alone.
    if wilson(share, n)[0] < max(as_it_is + ORDER_GAIN, sample.chance + 0.4 * (1 - sample.chance)):
        return None
    return Order(tuple(int(label) for label in labels), share)


def _size(
    network: nn.Module, sample: Sample, images: DataSet, data: Data, right: NDArray[np.bool_]
) -> tuple[int, float, str] | None:
    """The usual size at which the network is right far more often, with the normalization that it needs there."""
    import torch

    from edgekd.vision import import_torchvision

    resize = import_torchvision().transforms.v2.functional.resize
    best: tuple[int, float, str] | None = None
    few, labels, right = sample.images[:FEW], sample.labels[:FEW], right[:FEW]
    for side in SIZES:
        if side == data.image_size:
            continue
        pixels = resize(torch.from_numpy(few), [side, side]).numpy()
        for words, mean, std in (("", images.mean, images.std), *_usual(data.channels)):
            try:
                now = _run(network, pixels, mean, std, data.channels).argmax(1) == labels
            except Exception:  # a network of a fixed size raises what it likes
                break
            low, _ = paired_shares(int((now & ~right).sum()), int((right & ~now).sum()), len(right))
            if low > GAIN and (best is None or now.mean() > best[1]):
                best = (side, float(now.mean()), f" with the normalization {words}" if words else "")
    return best


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    scaled = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    found: NDArray[np.float64] = scaled / scaled.sum(1, keepdims=True)
    return found
