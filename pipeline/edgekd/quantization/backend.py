"""The only door to torchao, so that its import noise is silenced in one place."""

from __future__ import annotations

import logging
import warnings

# torchao logs a line for every compiled extension that its wheel brings for other Python versions and for GPUs, and
# torch logs a deprecation that torchao triggers. None of it concerns a user of edgekd.
_level = logging.root.manager.disable
logging.disable(logging.WARNING)
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization.pt2e import (
            DerivedObserverOrFakeQuantize,
            FakeQuantize,
            FixedQParamsObserver,
            MovingAverageMinMaxObserver,
            MovingAveragePerChannelMinMaxObserver,
        )
        from torchao.quantization.pt2e.fake_quantize import FakeQuantizeBase
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer import (
            DerivedQuantizationSpec,
            FixedQParamsQuantizationSpec,
            QuantizationAnnotation,
            QuantizationSpec,
            Quantizer,
            SharedQuantizationSpec,
        )
finally:
    logging.disable(_level)

__all__ = [
    "DerivedObserverOrFakeQuantize",
    "DerivedQuantizationSpec",
    "FakeQuantize",
    "FakeQuantizeBase",
    "FixedQParamsObserver",
    "FixedQParamsQuantizationSpec",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "QuantizationAnnotation",
    "QuantizationSpec",
    "Quantizer",
    "SharedQuantizationSpec",
    "convert_pt2e",
    "prepare_qat_pt2e",
]
