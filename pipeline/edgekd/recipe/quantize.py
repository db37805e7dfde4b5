"""The ``quantize`` section of a recipe: how the student becomes int8."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationInfo

from edgekd.recipe.base import Fraction, Strict, mistake, validated

WeightBits = Literal["auto", 7, 8]


def _keep_float(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise mistake(f"{value!r} is not a list of layers", f"write auto, or a list such as [{value}]")
    return tuple(value) if isinstance(value, list) else value


class Int8(Strict):
    """Common keys of both methods of int8 quantization."""

    method: Literal["qat", "ptq"]
    """qat: quantization-aware training. ptq: post-training quantization."""
    weight_bits: WeightBits = "auto"
    """Bits of an int8 weight that are used. auto: 7 where a target's kernels add pairs of products in 16 bits (x86 with
    AVX2 and without VNNI), which saturate with 8; else 8."""
    keep_float: Annotated[Literal["auto"] | tuple[str, ...], BeforeValidator(_keep_float)] = ()
    """Layers that stay in float: paths of modules of the student, with all that is inside, such as [features.0]. auto: the
    fewest that meet the gates against float on the validation split (accuracy_drop; without labels expected_drop, agreement
    and sqnr_db), and what they cost."""

    def named_float(self) -> tuple[str, ...]:
        """Return the layers that are named to stay in float; none with auto."""
        return () if self.keep_float == "auto" else self.keep_float


class Qat(Int8):
    """int8 quantization-aware training; the distillation losses stay on."""

    method: Literal["qat"] = "qat"
    """qat: quantization-aware training from the distilled student. ptq: post-training quantization, without training."""
    epochs: PositiveInt = 2
    """Passes over the training images with fake quantization on."""
    lr: PositiveFloat = 0.0002
    """Peak learning rate; about a tenth of the float one."""
    freeze_last: Fraction = 0.34
    """Share of the steps, at the end, that train with frozen ranges."""
    learn_scales: bool = False
    """Move the scales by gradient (LSQ) from calibrated ranges, instead of following the observed values."""
    self_distill: bool = False
    """The float student is the teacher of the int8 one, by the kd loss on logits, instead of distill.losses; needs no
    labels and no teacher."""


class AdaRound(Strict):
    """Learned rounding of the weights, one layer after the other (Nagel et al. 2020)."""

    steps: PositiveInt = 1000
    """Optimizer steps for each layer."""
    lr: PositiveFloat = 0.01
    """Learning rate of Adam."""
    batch_size: PositiveInt = 32
    """Calibration images in a step."""
    regularization: NonNegativeFloat = 0.01
    """Factor of the term that drives every weight to one of its two grid points (λ)."""


def _adaround(value: Any) -> Any:
    return {} if value is True else value


class Ptq(Int8):
    """int8 post-training quantization: ranges from calibration images, no training."""

    method: Literal["ptq"]
    """ptq: post-training quantization of the distilled student, without training. qat: quantization-aware training."""
    observer: Literal["minmax", "percentile", "mse", "entropy"] = "minmax"
    """How an activation's range follows from the values seen: minmax (all of them), percentile (nearly all), mse (least
    squared error of rounding and clipping), entropy (least KL divergence, as TensorRT)."""
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    """Share of the values, in %, that observer: percentile keeps within the range; the rest is cut off in equal parts."""
    calibration_images: PositiveInt = 512
    """Training images, drawn once and not augmented, that ranges and corrections are measured on."""
    equalize: bool = False
    """Balance the weight ranges of neighbouring layers first (cross-layer equalization, Nagel et al. 2019)."""
    bias_correction: bool = True
    """Correct each layer's bias by the mean shift of its output (Nagel et al. 2019)."""
    adaround: Annotated[AdaRound | bool, BeforeValidator(_adaround)] = False
    """Learn the rounding of each weight: true, or a mapping with its options."""


METHODS: dict[str, type[Qat] | type[Ptq]] = {"qat": Qat, "ptq": Ptq}


def _quantize(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, Qat | Ptq):
        return value
    method = value.get("method", "qat") if isinstance(value, dict) else "qat"
    if isinstance(method, str) and method not in METHODS:
        raise mistake(f"unknown method {method!r}", f"allowed: {', '.join(METHODS)}", "method")
    schema = METHODS[method] if isinstance(method, str) else Qat
    return validated(schema, value, info)


Quantize = Annotated[Qat | Ptq, BeforeValidator(_quantize)]
