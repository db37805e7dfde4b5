"""The teacher's mistakes that students make, too, from logits made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from edgekd.report.findings import mistakes
from edgekd.results.codec import from_json, to_json
from edgekd.results.mistakes import CopiedErrors
from edgekd.stages.evaluate import copied

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
TEACHER = [0, 0, 1, 1, 1, 1, 1, 0, 2, 0]  # wrong on 2, 3, 7 and 9
DISTILLED = [0, 0, 1, 2, 1, 1, 1, 0, 2, 0]  # copies 2, 7 and 9; 3 is wrong, but another class
ALONE = [0, 1, 0, 1, 1, 1, 1, 1, 2, 2]  # copies 3


def logits(classes: list[int]) -> NDArray[np.float32]:
    return np.eye(3, dtype=np.float32)[classes]


def test_the_same_wrong_class_is_counted() -> None:
    found = copied(
        {"teacher": logits(TEACHER), "student_alone": logits(ALONE), "distilled": logits(DISTILLED)},
        LABELS,
        ["teacher", "student_alone", "distilled"],
    )
    assert [record.model for record in found] == ["student_alone", "distilled"]
    alone, distilled = found
    assert (alone.images, alone.mistakes, alone.copied, alone.more, alone.p) == (10, 4, 1, None, None)
    assert (distilled.copied, distilled.share, distilled.more, distilled.fewer) == (3, 0.75, 3, 1)
    # the distilled student takes 0 for 1 in a quarter of the cases (twice wanted), 1 for 0 in a quarter, 2 for 0 in half
    assert distilled.chance == pytest.approx(2 * 1 / 4 + 1 / 4 + 1 / 2)
    # the one alone takes 0 for 1 in half, and the rest never
    assert alone.chance == pytest.approx(2 * 1 / 2)
    assert from_json(CopiedErrors, to_json(distilled)) == distilled


@pytest.mark.parametrize(("more", "fewer"), [(3, 1), (0, 0), (5, 5), (40, 12), (700, 650)])
def test_the_p_value_is_that_of_an_exact_sign_test(more: int, fewer: int) -> None:
    found = CopiedErrors("distilled", 5000, 2000, 900, 1.0, more, fewer)
    expected = binomtest(more, more + fewer).pvalue if more + fewer else 1.0
    assert found.p == pytest.approx(expected)


def test_nothing_to_copy() -> None:
    right = {"teacher": logits(list(LABELS)), "distilled": logits(DISTILLED)}
    assert copied(right, LABELS, ["teacher", "distilled"]) == []
    assert copied({"distilled": logits(DISTILLED)}, LABELS, ["distilled"]) == []
    assert list(mistakes([])) == []


def test_what_is_mistakes() -> None:
    alone = CopiedErrors("student_alone", 2000, 200, 80, 41.0)
    assert list(mistakes([alone, CopiedErrors("distilled", 2000, 200, 120, 44.25, 55, 15)])) == [
        "The teacher is wrong on 200 of 2,000 test images; the distilled student gives the same wrong class on 120 of them "
        "(60.0 %, 44.2 by chance), the student alone on 80 (40.0 %): 20.0 points more with the teacher (p = 1.7e-06)."
    ]
    (line,) = mistakes([alone, CopiedErrors("distilled", 2000, 200, 76, 44.25, 16, 20)])
    assert line.endswith("no difference shown, −2.0 points (p = 0.62).")
    (line,) = mistakes([CopiedErrors("distilled", 2000, 200, 76, 44.25)])
    assert line.endswith("on 76 of them (38.0 %, 44.2 by chance).")
