"""Thirty small image classifiers, each a function of a seed that draws widths, depths, ranges and exponents.

They are what a user's model file is: ``networks.py:cat`` with ``args: {seed: 3}``. Each is drawn so that int8 is harmless
to it with some seeds and destroys it with others. Where only the ranges matter, the network is trained as usual and
``finish`` then changes them without changing what the network computes in float: a channel behind a ReLU is multiplied by a
factor and what reads it divided by it, as the ranges of real networks differ from channel to channel.
"""

from __future__ import annotations

import networks_fitted
import networks_later
from networks_parts import NETWORKS

FITTED = tuple(name for name, build in NETWORKS.items() if build.__module__ == networks_fitted.__name__)
LATER = tuple(name for name, build in NETWORKS.items() if build.__module__ == networks_later.__name__)
globals().update(NETWORKS)
