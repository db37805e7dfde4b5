from __future__ import annotations

import pytest

from edgekd import statistics
from edgekd.errors import joined
from edgekd.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (7.0, "7.00"),
        (9.996, "10.0"),
        (0.012345, "0.0123"),
        (99.96, "100"),
        (12345.6, "12,300"),
        (-0.5, "−0.500"),
        (3.34e-6, "3.34×10⁻⁶"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert words.sig(value) == text


@pytest.mark.parametrize(("value", "limit"), [(0.99485, 0.995), (0.9612, 0.9612004), (12.0004, 12.0)])
def test_a_missed_limit_never_looks_met(value: float, limit: float) -> None:
    assert float(words.apart(value, limit)) != limit


def test_only_a_perfect_share_reads_100() -> None:
    assert words.percent(1.0) == "100"
    assert words.percent(0.99996) == "99.996"
    assert words.percent(0.9144) == "91.4"


@pytest.mark.parametrize(("share", "text"), [(-0.0035, "−0.35"), (0.0, "0.00"), (-0.00001, "0.00"), (0.1, "+10.00")])
def test_points(share: float, text: str) -> None:
    assert words.points(share) == text


def test_what_cannot_be_printed_is_replaced() -> None:
    assert words.plain("a\x1b[31mb\ud800\u202ec\nd") == "a\ufffd[31mb\ufffd\ufffdc\nd"
    assert words.one_line("a\n  b\tc") == "a b c"


def test_wilson_interval_matches_the_textbook() -> None:
    low, high = statistics.wilson(0.9, 100)
    assert (round(low, 3), round(high, 3)) == (0.826, 0.945)
    assert statistics.wilson(1.0, 10)[1] == 1.0


def test_prose() -> None:
    assert joined([]) == ""
    assert joined(["a"]) == "a"
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert words.plural(1, "gate") == "1 gate"
    assert words.plural(1200, "gate") == "1,200 gates"
    assert [words.duration(s) for s in (0.4, 75, 7384)] == ["0.400 s", "1 min 15 s", "2 h 3 min"]
    assert words.shorten("abcdef", 4) == "abc…"
