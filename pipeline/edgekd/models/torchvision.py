"""Importing torchvision beside any build of torch."""

from __future__ import annotations

import sys
from typing import Any


def import_torchvision() -> Any:
    """Import torchvision, also where its compiled operators cannot be loaded.

    torchvision's wheel is built against the CUDA torch; beside a CPU-only torch it dies at import because ``nms`` has no
    schema. edgekd needs no detection operators, so two schemas without an implementation are enough.
    """
    if "torchvision" not in sys.modules:
        import torch

        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # as torch has it
        for schema in (
            "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        ):
            try:
                library.define(schema)
            except RuntimeError:  # the compiled operators are there after all
                break
        _LIBRARIES.append(library)  # a Library that is collected takes its schemas with it
    import torchvision
    import torchvision.datasets
    import torchvision.models.feature_extraction
    import torchvision.transforms.v2

    return torchvision


_LIBRARIES: list[Any] = []
