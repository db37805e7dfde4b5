"""The ways in which a trained network may have been fed and read, and how often it is right in each.

A network of which the weights are given was trained with some normalization, size and order of channels and classes. Each
usual one is tried on labelled images; what is right on far more of them than what the recipe says is how it was trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgekd.recipe.data import NORMALIZATIONS, Data
from edgekd.statistics import paired_shares, wilson

if TYPE_CHECKING:
    from torch import nn

    from edgekd.data.dataset import DataSet
    from edgekd.progress import Progress

Normalization: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, of each channel or one of all."""
Right: TypeAlias = NDArray[np.bool_]

LARGE = 96  # pixels from which on data sets of small images are not thought of
FULL = "pixels from 0 to 255"
OTHERS: dict[str, Normalization] = {
    "that of CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)),
    "that of CIFAR-100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "that of MNIST": ((0.1307,), (0.3081,)),
    "that of Fashion-MNIST": ((0.286,), (0.353,)),
    FULL: ((0.0,), (1 / 255,)),
}
"""Tried besides those that have a name in a recipe; on large images, only the last."""
SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 299, 384)
SURE = 0.004  # how seldom chance alone may bring what a way brings (one-sided sign test)
SIMPLER = 0.02  # what each change of a way has to bring, of top-1: the simpler explanation wins
FED = 0.15  # how far from chance to all right a network has to be that is fed in another way
ORDERED = 0.3  # and with another order of the classes
SOME = 64  # images on which each size is tried before it is tried on all
FEW, NEAR = 16, 2  # of those, on which it is tried first, and how many fewer than the given way it may have right there
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Way:
    """A way to feed a network and to read its outputs.

    Attributes:
        logits: What it gives for the sample, N×classes.
        right: Whether that is right, for each image. With ``labels``, each half is read as the other half says.
        normalization: Name, mean and standard deviation; None: as the recipe has it.
        side: Height and width; None: as the recipe has it.
        bgr: The channels come in the order blue, green, red.
        labels: The class that each output is; None: in the order of the data.
    """

    logits: NDArray[np.float32]
    right: Right
    normalization: tuple[str, Normalization] | None = None
    side: int | None = None
    bgr: bool = False
    labels: tuple[int, ...] | None = None

    @property
    def top1(self) -> float:
        """Share of the images it is right on."""
        return float(self.right.mean())

    @property
    def confidence(self) -> float:
        """Mean of the greatest probability."""
        return float(_probabilities(self.logits).max(1).mean())

    @property
    def unsure(self) -> bool:
        """True if it hardly prefers one class to another, as a network before its training."""
        return bool(self.confidence < 2 / self.logits.shape[1] + 0.05)

    @property
    def changes(self) -> int:
        """In how many things it is not what the recipe says."""
        return (self.normalization is not None) + (self.side is not None) + self.bgr + (self.labels is not None)

    def gain(self, other: Way) -> float:
        """Lower end of the 95 % interval of the share of images that it brings over another way."""
        gained, lost = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        return paired_shares(gained, lost, len(self.right))[0]

    def cut(self, other: Way) -> float:
        """Share of the other way's mistakes that it does not make.

        A network that is little trained, or with random crops, is right on a few more images with a little more contrast or
        smoother ones; one that is fed wrongly makes a good part of its mistakes for that alone.
        """
        return 1 - (1 - self.top1) / (1 - other.top1) if other.top1 < 1 else 0.0

    def beats(self, other: Way, *, chosen: bool = True) -> bool:
        """Return whether it is right on more images than another way, beyond chance and by enough for each of its changes.

        Args:
            other: What the recipe says.
            chosen: Somebody has chosen the other's normalization; what nobody has is no simpler explanation.
        """
        from scipy.stats import binomtest

        gained, lost = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        unchosen = self.normalization is not None and not chosen
        if self.top1 - other.top1 < SIMPLER * (self.changes - other.changes - unchosen):
            return False
        return gained > lost and bool(binomtest(gained, gained + lost, alternative="greater").pvalue < SURE)


class Tried:
    """A network on a sample of labelled images.

    Args:
        network: In evaluation mode; a stored one has its logits and no other way.
        pixels: uint8 N×C×S×S.
        labels: int64 N.
        images: The data that it sees.
        data: Its section.
    """

    def __init__(
        self, network: nn.Module, pixels: NDArray[np.uint8], labels: NDArray[np.int64], images: DataSet, data: Data
    ) -> None:
        self._network, self._pixels, self._labels = network, pixels, labels
        self._own = images.preprocessing
        self._data = data
        small = min(data.size) < LARGE
        named = NORMALIZATIONS | OTHERS if small else NORMALIZATIONS | {FULL: OTHERS[FULL]}
        self._named = {name: value for name, value in named.items() if len(value[0]) <= data.channels}

    def as_it_is(self, logits: NDArray[np.float32] | None = None) -> Way:
        """The way that the recipe says; ``logits`` of a stored network."""
        found = self._run(self._pixels) if logits is None else logits
        return Way(found, found.argmax(1) == self._labels)

    def best(self, given: Way, place: str, progress: Progress, *, fixed: bool, lost: bool, chosen: bool) -> Way | None:
        """The way that is right on most images, if it is on more than the given one beyond chance.

        Args:
            given: What the recipe says.
            place: What the network is called.
            progress: Where to report: a large network takes a minute or two.
            fixed: Only the order of the classes can be another one, for nothing can be run again.
            chosen: The recipe says how images are normalized.
            lost: The given way is no better than chance: then every size is tried with every normalization.
        """
        found = [given]
        if not fixed:
            with progress.task(f"trying other normalizations, sizes and channel orders for {place}", 3) as task:
                found += self._normalizations(self._pixels)
                task.advance()
                if self._data.channels == self._pixels.shape[1] == 3:
                    found.append(self._way(self._pixels[:, ::-1], bgr=True))
                task.advance()
                found += self._sizes(given, lost=lost)
                task.advance()
        found += [self._ordered(way) for way in found]
        known = (way for way in found if way.changes and np.isfinite(way.logits).all())
        better = [way for way in known if way.beats(given, chosen=chosen) and self._plausible(way)]
        if not better:
            return None
        score = {way: way.top1 - SIMPLER * way.changes for way in better}
        best = max(score.values())
        # Of normalizations that are much alike, the true one makes it surest of what is right.
        return min((way for way in better if score[way] > best - SIMPLER), key=self._loss)

    def _plausible(self, way: Way) -> bool:
        """Return whether this can be a network's training: random weights have a best way and a best order, too."""
        luck = chance(way.logits.argmax(1), self._labels, way.logits.shape[1])
        low, _ = wilson(way.top1, len(way.right))
        least = FED if way.labels is None else ORDERED
        return low > luck + least * (1 - luck) and not (way.labels is not None and way.unsure)

    def _loss(self, way: Way) -> float:
        """Cross-entropy."""
        outputs = np.argsort(way.labels) if way.labels is not None else np.arange(way.logits.shape[1])
        of_label = _probabilities(way.logits)[np.arange(len(self._labels)), outputs[self._labels]]
        return float(-np.log(of_label.clip(1e-12)).mean())

    def _normalizations(
        self, pixels: NDArray[np.uint8], side: int | None = None, of: NDArray[np.int64] | None = None
    ) -> Iterator[Way]:
        for named in self._named.items():
            yield self._way(pixels, named, side, of=of)

    def _sizes(self, given: Way, *, lost: bool) -> Iterator[Way]:
        """The sizes that promise the most on some of the images, on all of them."""
        import torch

        from edgekd.models.torchvision import import_torchvision

        resize = import_torchvision().transforms.v2.functional.resize
        # From all over the sample, which is in the order of the classes.
        some = np.linspace(0, len(self._labels) - 1, SOME).round().astype(int)
        few = some[:: SOME // FEW]
        hoped = given.right[few].sum() - NEAR
        tried = []
        own = min(self._data.size)
        for side in SIZES:
            # What is far larger takes long, and is seldom what a network is fed too little of.
            if (side, side) == self._data.size or side > (8 if own < LARGE or lost else 1.4) * own:
                continue
            pixels = resize(torch.from_numpy(self._pixels[some]), [side, side]).numpy()
            try:
                if not lost and self._way(pixels[:: SOME // FEW], side=side, of=few).right.sum() < hoped:
                    continue
                ways = [self._way(pixels, side=side, of=some)]
                ways += self._normalizations(pixels, side, some) if lost else ()
            except Exception:  # a network of a fixed size raises what it likes
                continue
            tried.append((side, max(ways, key=lambda way: way.top1)))
        for side, way in sorted(tried, key=lambda found: -found[1].top1)[:2]:
            if way.top1 > float(given.right[some].mean()):
                pixels = resize(torch.from_numpy(self._pixels), [side, side]).numpy()
                yield self._way(pixels, way.normalization, side)

    def _way(
        self,
        pixels: NDArray[np.uint8],
        normalization: tuple[str, Normalization] | None = None,
        side: int | None = None,
        *,
        bgr: bool = False,
        of: NDArray[np.int64] | None = None,
    ) -> Way:
        """Run it; ``of`` are the places of the images in the sample, where they are not all."""
        logits = self._run(pixels, normalization and normalization[1])
        return Way(logits, logits.argmax(1) == (self._labels if of is None else self._labels[of]), normalization, side, bgr)

    def _run(self, pixels: NDArray[np.uint8], normalization: Normalization | None = None) -> NDArray[np.float32]:
        import torch

        from edgekd.distill.teachers import BlackBox

        network, rule = self._network, self._own
        if normalization is not None:
            other = replace(rule, mean=normalization[0], std=normalization[1])
            network, rule = (network.trained_with(other), rule) if isinstance(network, BlackBox) else (network, other)
        device = next((value.device for value in network.parameters()), torch.device("cpu"))
        found = []
        with torch.no_grad():
            for start in range(0, len(pixels), _BATCH):
                batch = torch.from_numpy(rule.arrays(pixels[start : start + _BATCH]))
                found.append(network(batch.to(device)).float().cpu().numpy())
        return np.concatenate(found)

    def _ordered(self, way: Way) -> Way:
        """The same with the order of classes that fits best.

        Each half is judged by the order of the other one: the best of all orders would fit any predictions better than the
        given one does.
        """
        predicted, labels = way.logits.argmax(1), self._labels
        right = np.zeros(len(labels), bool)
        half = np.arange(len(labels)) % 2 == 0
        for fitted in (half, ~half):
            class_of = np.array(_order(predicted[fitted], labels[fitted], way.logits.shape[1]))
            right[~fitted] = class_of[predicted[~fitted]] == labels[~fitted]
        order = _order(predicted, labels, way.logits.shape[1])
        if order == tuple(range(len(order))):
            return way
        return Way(way.logits, right, way.normalization, way.side, way.bgr, order)


def _order(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> tuple[int, ...]:
    """The class of the data that each output is, so that most are right; where nothing tells, as it is."""
    from scipy.optimize import linear_sum_assignment

    counts = 0.5 * np.eye(classes)
    np.add.at(counts, (predicted, labels), 1)
    _, found = linear_sum_assignment(-counts)
    return tuple(int(label) for label in found)


def knows(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> bool:
    """Return whether predictions depend on the labels: few shuffles of the labels are right as often (permutation test).

    It sees what the interval of the accuracy does not where nearly all images are of one class.
    """
    random = np.random.default_rng(0)
    right = (predicted == labels).sum()
    shuffles = 4000
    as_often = sum((predicted == random.permutation(labels)).sum() >= right for _ in range(shuffles))
    return bool((as_often + 1) / (shuffles + 1) < 0.001)


def chance(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """Return the accuracy that predictions reach if they do not depend on the labels (Cohen 1960, expected agreement)."""
    shares = (np.bincount(values, minlength=classes) / len(values) for values in (predicted, labels))
    return float(np.prod(list(shares), axis=0).sum())


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    scaled = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    found: NDArray[np.float64] = scaled / scaled.sum(1, keepdims=True)
    return found


def are_probabilities(outputs: NDArray[np.float32]) -> bool:
    """Return whether outputs (N×classes) are those of a softmax, also one that is rounded to 1/256 as int8 networks have."""
    rounded = max(1e-3, outputs.shape[1] / 512)
    return bool((outputs >= 0).all() and (outputs <= 1.001).all() and np.allclose(outputs.sum(1), 1, atol=rounded))
