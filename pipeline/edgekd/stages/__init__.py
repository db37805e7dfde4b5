"""Stages: one kind of step a file; assembly/stage.py says what each one is."""

from edgekd.assembly.stage import Stage
from edgekd.stages.evaluate import MADE, EvaluateStage
from edgekd.stages.package import PackageStage
from edgekd.stages.profile import ProfileStage

STAGES: tuple[Stage, ...] = (*MADE, EvaluateStage(), ProfileStage(), PackageStage())
"""All stages, in the order of a run."""
