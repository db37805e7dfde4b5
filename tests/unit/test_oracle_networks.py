"""The oracle's networks: what is drawn for int8 to fail on is nothing that float notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

ORACLE = Path(__file__).parents[1] / "oracle"


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ORACLE))
    import networks

    return networks


def test_thirty_networks_compute_the_same_with_other_ranges(networks: Any) -> None:
    assert (len(networks.FITTED), len(networks.LATER)) == (20, 10)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name, build in networks.NETWORKS.items():
        torch.manual_seed(0)
        network = build(seed=1).eval()
        with torch.no_grad():
            before = network(x)
            network.finish()
            after = network(x)
        if name == "logit_offset":  # which all logits have in common
            before, after = (logits - logits.mean(1, keepdim=True) for logits in (before, after))
        torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3 * float(before.abs().max()), msg=name)


def test_a_seed_draws_the_same_network_each_time(networks: Any) -> None:
    for build in networks.NETWORKS.values():
        shapes = [[(key, value.shape) for key, value in build(seed=3).state_dict().items()] for _ in range(2)]
        assert shapes[0] == shapes[1]


def test_a_comment_changes_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ORACLE))
    import depends

    assert depends.digest("x = 1  # one") == depends.digest("x  =  1") != depends.digest("x = 2")
    assert depends.digest('def f():\n    "Say."\n    return 1') == depends.digest('def f():\n    "Tell."\n    return 1')
    assert "pipeline/edgekd/quantization/quantizer.py" in depends.digests()
