"""A task with its own metric, in a wheel.

It trains, distils and quantizes by entry point. What stops the rest of the chain: stages/export gives the exporters no
``ports``, so that files have an input called ``input`` and not ``x``; stages/evaluate is for images.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conformance.broken import failures
from tests.plugins.conftest import Site

SUITES = """
from edgekd.task.base import Samples
from edgekd.testing import MetricSuite, TaskSuite


class TestTask(TaskSuite):
    name = "vector-regression"
    samples = Samples({"x": ((8,), "float32")}, target=(3,))
    others = Samples({"image": ((3, 8, 8), "float32")})


class TestMetric(MetricSuite):
    name, targets = "mae", "values"
"""


@pytest.fixture(scope="module")
def site(installed: Callable[..., Site]) -> Site:
    return installed("edgekd-vectors")


def test_they_pass_their_suites(site: Site, tmp_path: Path) -> None:
    assert failures(tmp_path / "suites", SUITES, path=str(site.folder)) == {}


def test_the_suites_find_what_is_broken(site: Site, tmp_path: Path) -> None:
    module = "edgekd_vectors.py"
    broken = site.broken(
        tmp_path / "site",
        (module, "return F.mse_loss(primary, target)", "return -F.mse_loss(primary, target)"),
        (module, '(Port(VECTOR, ("N", *shape), kind="features"),)', '(Port("y", ("N", *shape), kind="features"),)'),
        (module, '"mae", "MAE", "", "lower"', '"mae", "MAE", "", "up"'),
        (module, "np.average(rows[:, 0], weights=weights)", "rows[:, 0].mean()"),
    )
    found = failures(tmp_path / "suites", SUITES, path=str(broken.folder))
    assert {"criterion", "signature"} <= found["TestTask"]
    assert {"facts", "weights"} <= found["TestMetric"]
