"""edgekd's own transports in the suite for everyone's; ssh and adb need boards: tests/devices/test_conformance.py."""

from __future__ import annotations

from edgekd.testing import Gap, TransportSuite


class TestHost(TransportSuite):
    name = "host"
    gaps = {  # noqa: RUF012
        "locked": Gap("never", "this machine may have several runs; a session waits for cool and quiet cores instead"),
    }
