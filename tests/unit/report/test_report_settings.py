"""Each ``--set`` that a report advises works on the recipe of its run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.report import sample

from edgekd import loading, resources
from edgekd.engine import guard
from edgekd.errors import RecipeError
from edgekd.loading.loaded import Loaded
from edgekd.recipe.export import stage_name
from edgekd.report import settings, view
from edgekd.results.fidelity import Figure
from edgekd.results.gates import Limit
from edgekd.results.layers import Difference
from edgekd.results.run import RunResult

RECIPES = sorted(Path(resources.folder("recipes")).rglob("*.yaml"))
QUANTIZED = [path for path in RECIPES if "studies" not in path.parts and "quantize:" in path.read_text("utf-8")]
METHODS = {
    "as it is": (),
    "qat": ("quantize={method: qat, epochs: 1, keep_float: [features.0], weight_bits: 8}",),
    "ptq": ("quantize={method: ptq, observer: mse, keep_float: [features.0]}",),
    "auto": ("quantize={keep_float: auto, epochs: 1}",),
}


def advised(text: str) -> Iterator[str]:
    """The settings that a text has, as a shell reads them."""
    for typed in re.findall(r"""--set ('(?:[^']|'"'"')*'|"[^"]*"|[^\s,;]+)""", text):
        yield shlex.split(typed)[0].rstrip(".")


def lossy(recipe: Loaded) -> RunResult:
    """A run of a recipe whose int8 loses accuracy in a way that no layer explains, and in one file a layer's arithmetic."""
    base = sample.good()
    method = recipe.recipe.quantize.method if recipe.recipe.quantize else "qat"
    close = replace(sample.fidelity(0.6), sqnr_db=Figure(1.0, 10000, 1.0, 1.0))
    torch = replace(base.model("qat"), name=method, fidelity=close)
    models = tuple(torch if model.name == "qat" else model for model in base.models)
    gates = (
        replace(sample.gate("accuracy_drop", "onnx", Limit("<=", 0.01), 0.3), verdict="fail", blocks=True),
        replace(sample.gate("parity_lsb_p99", "onnx", Limit("<=", 2), 4.0), verdict="fail", blocks=True),
        replace(sample.gate("parity_lsb_p99", "openvino", Limit("<=", 2), 4.0), verdict="fail", blocks=True),
    )
    wrong = Difference(share=0.5, steps=9)
    right = Difference(share=1e-5, steps=1)
    layers = tuple(
        replace(layer, path="" if at == 0 else layer.path, differences={"onnx": wrong, "openvino": right})
        for at, layer in enumerate(base.layers)
    )
    return replace(
        base,
        recipe=recipe.recipe.model_dump(mode="json", exclude_none=True),
        models=models,
        gates=gates,
        layers=layers,
        verdict="fail",
        repair=None,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", QUANTIZED, ids=lambda path: path.stem)
def test_each_piece_of_advice_can_be_typed(path: Path, method: str) -> None:
    try:
        loaded = loading.load(path, METHODS[method])
    except RecipeError:
        pytest.skip("this recipe cannot have this method")
    page = view.build(lossy(loaded))
    found = list(advised("\n".join([*page.verdict.failures, *page.verdict.cautions])))
    assert len(found) >= 3, page.verdict.failures
    for setting in found:
        loading.load(path, [*METHODS[method], setting.replace("[PATH]", "[features.0]")])


@pytest.mark.parametrize("path", QUANTIZED, ids=lambda path: path.stem)
def test_a_format_that_failed_can_be_left_out(path: Path) -> None:
    recipe = loading.load(path).recipe
    for item in recipe.export:
        for setting in advised(guard._left_out(recipe, stage_name(item.format, recipe.precision_of(item)))):
            loading.load(path, [setting])


def test_the_other_method_keeps_what_both_have() -> None:
    section = {"method": "qat", "epochs": 1, "keep_float": ["a"], "weight_bits": "auto"}
    assert settings.other_method(section, "ptq") == "--set 'quantize={method: ptq, keep_float: [a]}'"
    assert settings.in_float(section, "%add") == "--set \"quantize.keep_float=[a, '%add']\""
    assert settings.in_float({"keep_float": "auto"}, "b") == "--set 'quantize.keep_float=[b]'"
