"""Initial weights of the networks."""

from __future__ import annotations

from torch import nn


def he(network: nn.Module, *, linear: float | None = None) -> None:
    """Draw convolutions from a normal distribution of variance 2 / (k² · channels out) (He et al. 2015, §2.2).

    Args:
        network: Changed in place; batch norms keep 1 and 0, biases of convolutions become 0.
        linear: Standard deviation of the weights of linear layers, whose biases then become 0; None leaves them.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and linear is not None:
            nn.init.normal_(module.weight, 0.0, linear)
            nn.init.zeros_(module.bias)
