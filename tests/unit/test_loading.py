from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, PositiveFloat

from edgekd import __version__, loading, recipe, resources
from edgekd.errors import RecipeError
from edgekd.loading.overrides import KeySyntaxError, parse_key
from edgekd.loading.shape import show
from edgekd.loading.source import parse
from edgekd.registry import exporters, losses

GOLDEN = Path(__file__).parents[1] / "golden" / "errors"
CASES = sorted(GOLDEN.glob("*.yaml"))

GOOD = """\
# A recipe that uses most of the schema.
edgekd: 1
seed: 3
data: {source: fashion-mnist-mini, augment: [crop, flip]}
teacher: {model: torchvision:resnet18, train: {epochs: 6, lr: 1e-3}}
student: {model: torchvision:mobilenet_v2, args: {width_mult: 0.35}, rewrite: {hardswish: relu6}}
distill:
  epochs: 8
  losses:
    - {kind: kd, temperature: 4, weight: 0.9}
    - {kind: fitnet, layers: {features.6: layer3}}
quantize: {method: qat, epochs: 2}
export: [onnx, {format: tflite, io: int8}]
profile: {devices: [host, pi4]}
gates: {accuracy_drop: {max: 0.01}, latency_p90_ms: {max: 12, device: pi4}}
"""


class Task(recipe.Loss):
    """Cross-entropy."""

    needs_teacher: ClassVar[bool] = False
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class KD(recipe.Loss):
    """Softened probabilities."""

    temperature: PositiveFloat = 4.0


class Features(recipe.Loss):
    """Feature maps."""

    layers: Literal["auto"] | dict[str, str] = "auto"


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed losses and formats: a new one must not change a golden text."""
    kinds = {"task": Task, "kd": KD, "fitnet": Features, "attention_transfer": Features}
    for registry, entries in ((losses, kinds), (exporters, dict.fromkeys(("onnx", "openvino", "tflite")))):
        monkeypatch.setattr(registry, "_entries", entries)
        monkeypatch.setattr(registry, "_loaded", True)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def _message(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        loading.load(path, overrides)
    return str(caught.value)


# --- golden texts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_message(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case is a recipe; its leading lines ``# --set KEY=VALUE`` are the command line. EDGEKD_UPDATE_GOLDEN=1 rewrites."""
    monkeypatch.chdir(case.parent)
    overrides = re.findall(r"^# --set (.*)$", case.read_bytes().decode("utf-8", "replace"), re.MULTILINE)
    text = _message(Path(case.name), *overrides).replace(__version__, "VERSION") + "\n"
    golden = case.with_suffix(".txt")
    if os.environ.get("EDGEKD_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_every_golden_text_has_its_case() -> None:
    assert len(CASES) >= 20
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {path.stem for path in CASES}
