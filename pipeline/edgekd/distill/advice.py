"""What the sizes and the accuracies of teacher and student say about the choice of the teacher. Advice, never an error."""

from __future__ import annotations

LEAST_SHARE = 0.25
"""Share of the teacher's parameters below which an assistant is worth a try."""


def gap(student: int, teacher: int | None, key: str = "teacher") -> tuple[str, ...]:
    """Advise an assistant where the student is much smaller than its teacher.

    Mirzadeh et al. 2020 (Improved Knowledge Distillation via Teacher Assistant): a larger teacher can teach a small
    student worse, and a network of a size in between, taught first, better.

    Args:
        student: Number of the student's parameters.
        teacher: Number of its teacher's parameters, where it is known.
        key: Where the teacher is in the recipe.
    """
    if teacher is None or student >= LEAST_SHARE * teacher:
        return ()
    return (
        f"the {'student' if key == 'teacher' else key.removesuffix('.teacher')} has {100 * student / teacher:.2g} % of the "
        f"parameters of {key}; with less than {100 * LEAST_SHARE:g} %, an assistant of a size in between may teach it "
        f"better: {key}: {{model: BETWEEN, distill: {{epochs: N, losses: [{{kind: kd}}]}}, teacher: THE LARGE ONE}}",
    )


def weak(teacher: float, alone: float) -> tuple[str, ...]:
    """Tell a teacher that is less accurate than what it teaches is without it.

    Args:
        teacher: Top-1 of the teacher on validation, from 0 to 1.
        alone: The same of the student with hard labels alone.
    """
    if teacher >= alone:
        return ()
    return (
        f"the teacher has {100 * teacher:.1f} % on validation and the student alone {100 * alone:.1f} %: train the teacher "
        "longer, take a larger one, or lower the weight of the losses that follow it",
    )
