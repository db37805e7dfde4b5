"""edgekd's own losses in the suite for everyone's."""

from __future__ import annotations

from edgekd.testing import Gap, LossSuite, suites

GAPS = {
    "crd": {"order": Gap("never", "draws its negatives for each place in the batch")},
    "mgd": {"order": Gap("never", "draws its mask for each place in the batch")},
    "task": {"documented": Gap("never", "cross-entropy has no paper of its own")},
}
globals().update(suites(LossSuite, GAPS))
