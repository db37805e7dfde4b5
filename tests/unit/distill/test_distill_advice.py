from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.distill import advice
from edgekd.metrics.base import facts
from edgekd.metrics.classification import Top1
from edgekd.report.findings import sentence
from edgekd.results.findings import Finding

TOP1 = facts(Top1())


def words(found: tuple[Finding, ...]) -> tuple[str, ...]:
    return tuple(sentence(one, [TOP1]) for one in found)


def test_a_much_smaller_student_is_advised_an_assistant() -> None:
    (line,) = words(advice.gap(20, 100))
    assert line.startswith("Advice: the student has 20 % of the parameters of teacher; with less than 25 %, an assistant")
    assert "teacher: {model: BETWEEN, distill:" in line
    assert advice.gap(25, 100) == ()
    (line,) = words(advice.gap(1, 100, "teacher.teacher"))
    assert line.startswith("Advice: the teacher has 1 % of the parameters of teacher.teacher")


def test_a_teacher_worse_than_the_student_alone() -> None:
    (line,) = words(advice.weak(0.801, 0.8125, TOP1))
    assert line.startswith("Advice: the teacher has top-1 80.1 % on validation and the student alone top-1 81.2 %")
    assert advice.weak(0.9, 0.9, TOP1) == ()


def test_entropy_of_softened_probabilities() -> None:
    """p = (3/4, 1/4) at T = 1 from logits (log 3, 0); at T = 2 p = (√3, 1) / (√3 + 1)."""
    logits = np.array([[math.log(3), 0.0], [0.0, math.log(3)]], dtype=np.float32)

    def share(p: float) -> float:
        return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))

    assert advice.entropy(logits, 1.0) == pytest.approx(share(3 / 4), abs=1e-6)
    assert advice.entropy(logits, 2.0) == pytest.approx(share(math.sqrt(3) / (math.sqrt(3) + 1)), abs=1e-6)
    # Z-scores of two classes are 1 and -1
    assert advice.entropy(logits, 1.0, standardize=True) == pytest.approx(share(1 / (1 + math.exp(-2))), abs=1e-6)
    assert advice.entropy(np.zeros((3, 7), np.float32), 1.0, standardize=True) == pytest.approx(1.0)
    assert advice.entropy(np.array([[1e4, 0.0, 0.0]], np.float32), 1.0) == pytest.approx(0.0, abs=1e-12)


def test_temperatures_that_wash_out_or_leave_one_class() -> None:
    """One class of ten with a logit of 10: at T = 1 all on one, at T = 4 soft, at T = 20 nearly uniform."""
    logits = np.zeros((4, 10), np.float32)
    logits[:, 3] = 10

    def told(temperature: float) -> tuple[str, ...]:
        found = advice.Softness("kd", temperature, advice.entropy(logits, temperature))
        return words(advice.softness([found]))

    (flat,) = told(20)
    assert flat.startswith(
        "Advice: kd: at temperature 20 the teacher's probabilities are nearly uniform (99.4 % of the largest entropy"
    )
    assert flat.endswith("lower the temperature.")
    (sharp,) = told(1)
    assert "next to one-hot (0.2 % of the largest entropy" in sharp
    assert "raise the temperature" in sharp
    assert told(4) == ()
