"""What a report says, for tests."""

from __future__ import annotations

from collections.abc import Iterable

from edgekd.report import missing, trust
from edgekd.report.findings import outputs
from edgekd.results.findings import Finding, Missing
from edgekd.results.profile import ProfileRecord
from edgekd.results.run import RunResult


def lacking(result: RunResult) -> list[str]:
    """Return the sentences of all figures that a run does not have."""
    return [missing.sentence(figure, result.task.metrics) for figure in result.not_measured]


def notes(found: Iterable[Missing]) -> list[str]:
    """Return the sentences of a session's notes."""
    return list(map(missing.sentence, found))


def doubts(found: Iterable[Finding]) -> list[str]:
    """Return the sentences of the reasons why times are not trusted."""
    return list(map(trust.sentence, found))


def differences(profiles: Iterable[ProfileRecord]) -> list[str]:
    """Return how the outputs on a device differ from their references."""
    return [line for profile in profiles for line in outputs(profile)]
