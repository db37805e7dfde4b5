"""edgekd's own metrics in the suite for everyone's."""

from __future__ import annotations

from edgekd.testing import Gap, MetricSuite, suites

AGREEMENT = ("agreement", "expected_drop", "sqnr_db")
GAPS = {
    "expected_drop": {"streams": Gap("not yet", "takes its temperature from all samples at once")},
    "sqnr_db": {"streams": Gap("not yet", "takes the mean of the signal from all samples at once")},
}
globals().update(suites(MetricSuite, GAPS, {name: {"targets": "reference"} for name in AGREEMENT}))
