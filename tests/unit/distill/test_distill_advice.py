from __future__ import annotations

from edgekd.distill import advice


def test_a_much_smaller_student_is_advised_an_assistant() -> None:
    (line,) = advice.gap(20, 100)
    assert line.startswith("the student has 20 % of the parameters of teacher; with less than 25 %, an assistant")
    assert "teacher: {model: BETWEEN, distill:" in line
    assert advice.gap(25, 100) == ()
    (line,) = advice.gap(1, 100, "teacher.teacher")
    assert line.startswith("the teacher has 1 % of the parameters of teacher.teacher")


def test_a_teacher_worse_than_the_student_alone() -> None:
    (line,) = advice.weak(0.801, 0.8125)
    assert line.startswith("the teacher has 80.1 % on validation and the student alone 81.2 %")
    assert advice.weak(0.9, 0.9) == ()
