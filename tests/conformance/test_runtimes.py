"""edgekd's own formats in the suite for everyone's."""

from __future__ import annotations

from edgekd.testing import RuntimeSuite, suites

globals().update(suites(RuntimeSuite))
