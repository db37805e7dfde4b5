"""Post-training quantization: the graph that would train in int8 gets its ranges from samples instead.

The result has the form of a trained graph: ``qat.state`` saves it, ``qat.load_state`` restores it, ``qat.convert`` makes
the int8 graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import fx, nn

from edgekd.progress import Progress, Silent
from edgekd.quantization import calibrate, histogram, reconstruct
from edgekd.quantization.equalize import equalize
from edgekd.quantization.reconstruct import Reconstructed
from edgekd.quantization.weighted_layers import layers
from edgekd.recipe.quantize import AdaRound, Ptq
from edgekd.task.named import Inputs, count, rows


@dataclass(frozen=True)
class Calibrated:
    """Result of post-training quantization.

    Attributes:
        images: Samples that the ranges are from.
        reconstruction_images: Samples that biases and rounding are from; fewer where memory is short, 0 without either.
        equalized_pairs: Pairs of layers whose weights were balanced.
        layers: What became of each layer, in order; empty without bias correction and AdaRound.
    """

    images: int
    reconstruction_images: int
    equalized_pairs: int
    layers: tuple[Reconstructed, ...]


def quantize(
    module: fx.GraphModule, inputs: Inputs, settings: Ptq, *, seed: int = 0, progress: Progress | None = None,
    student: nn.Module | None = None,
) -> Calibrated:  # fmt: skip
    """Quantize a prepared graph, in place.

    Args:
        module: ``qat.prepare(...).module`` of a trained float model, on the device of ``inputs``.
        inputs: Training samples as the network takes them.
        settings: The ``quantize`` section of a recipe.
        seed: Of the order in which AdaRound sees the samples.
        progress: Where to report.
        student: The float network that the graph was made from, which tells why a weight of the graph is not finite.

    Raises:
        QuantizeError: No samples, or values that are not finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from edgekd.quantization import qat
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()
        >>> module = qat.prepare(net, torch.zeros(1, 3, 8, 8)).module
        >>> done = quantize(module, torch.rand(16, 3, 8, 8), Ptq(method="ptq", observer="minmax"))
        >>> done.images, len(done.layers), qat.convert(module, fold_weights=True)(torch.rand(2, 3, 8, 8)).shape
        (16, 2, torch.Size([2, 10]))
    """
    progress = progress or Silent()
    calibrate.check(inputs)
    total = count(inputs)
    pairs = equalize(module, inputs) if settings.equalize else 0
    with progress.task(f"ranges ({settings.observer})", 2 * total) as task:
        calibrate.calibrate(module, inputs, _choice(settings), task, student)
    rounding = settings.adaround if isinstance(settings.adaround, AdaRound) else None
    if not settings.bias_correction and rounding is None:
        return Calibrated(total, 0, pairs, ())
    fitting = reconstruct.samples_that_fit(module, total)
    what = " and ".join(["rounding"] * (rounding is not None) + ["biases"] * settings.bias_correction)
    with progress.task(what, len(list(layers(module)))) as task:
        done = reconstruct.reconstruct(
            module, rows(inputs, slice(fitting)), bias_correction=settings.bias_correction, rounding=rounding, seed=seed,
            task=task,
        )  # fmt: skip
    return Calibrated(total, fitting, pairs, tuple(done))


def _choice(settings: Ptq) -> calibrate.Choose:
    if settings.observer == "percentile":
        return partial(histogram.percentile, share=settings.percentile)
    return {"minmax": histogram.minmax, "mse": histogram.mse, "entropy": histogram.entropy}[settings.observer]
