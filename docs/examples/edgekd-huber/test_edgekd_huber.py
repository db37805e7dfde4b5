"""Hold the loss against edgekd's conformance suite: ``pytest`` in this folder."""

from edgekd.testing import LossSuite


class TestHuber(LossSuite):
    """All checks that edgekd's own losses pass."""

    name = "huber"
