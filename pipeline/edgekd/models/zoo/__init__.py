"""Networks that ship with edgekd (``edgekd:NAME``): small-image versions the model libraries do not offer.

All but resnet10 and resnet18 are the networks of the published CIFAR-100 comparisons of distillation (Tian et al. 2020, §4,
and what came after it), with the authors' widths, strides and numbers of parameters. Teachers keep the authors' names of
modules too, so that a published checkpoint is loaded as it is.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edgekd.models.zoo.mobilenet import mobilenet_v2
from edgekd.models.zoo.resnet import resnet10, resnet18
from edgekd.models.zoo.resnet_cifar import resnet8x4, resnet20, resnet32, resnet32x4, resnet56, resnet110
from edgekd.models.zoo.shufflenet import shufflenet_v1, shufflenet_v2
from edgekd.models.zoo.vgg import vgg8, vgg13
from edgekd.models.zoo.wrn import wrn_16_2, wrn_40_1, wrn_40_2

_ALL = (
    resnet10, resnet18, resnet20, resnet32, resnet56, resnet110, resnet8x4, resnet32x4, wrn_16_2, wrn_40_1, wrn_40_2,
    vgg8, vgg13, mobilenet_v2, shufflenet_v1, shufflenet_v2,
)  # fmt: skip
BUILDERS: dict[str, Callable[..., nn.Module]] = {builder.__name__: builder for builder in _ALL}
