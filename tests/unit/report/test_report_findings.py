"""The sentences of findings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.report import sample

from edgekd.report import findings
from edgekd.results.findings import Finding, said
from edgekd.results.mistakes import CopiedErrors

MADE = {"images": 1200, "norms": 9, "of": "teacher", "recognized": 0.981, "test_is_real": True}


@pytest.mark.parametrize(
    ("code", "figures", "text"),
    [
        ("synthesized", MADE, "All 1,200 images of training, validation and calibration were synthesized from 9 batch norms "
         "of the teacher, which finds the wanted class in 98.1 % of them; only the test images are real."),
        ("rewritten", {"changes": ["3 hardswish became relu6"]},
         "The student was rewritten for int8 before distillation: 3 hardswish became relu6."),
        ("advice", {"text": "use ReLU6"}, "Advice: use ReLU6."),
        ("of_a_newer_edgekd", {"watts": 3}, "of_a_newer_edgekd: watts 3"),
    ],
)  # fmt: skip
def test_a_finding_in_words(code: str, figures: dict[str, Any], text: str) -> None:
    assert findings.sentence(Finding(code, figures=figures)) == text


def test_findings_that_follow_from_other_records() -> None:
    """The best artifact is said of every device, though no stage has written it down."""
    copied = (CopiedErrors("distilled", 1000, 40, 10, 3.0),)
    found = findings.sentences(replace(sample.good(), copied=copied, findings=(said("Last."),)))
    assert found[0].startswith("On host OpenVINO int8 is the fastest artifact that passes the gates")
    assert found[1].startswith("The teacher is wrong on 40 of 1,000 test images; the distilled student gives the same wrong")
    assert found[-1] == "Last."
