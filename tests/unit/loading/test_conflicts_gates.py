"""Gates of metrics: the task has to have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import loading
from edgekd.errors import RecipeError


def check(gates: str) -> None:
    text = (
        "edgekd: 1\ndata: {source: fashion-mnist-mini}\nstudent: {model: edgekd:resnet10}\n"
        f"distill: {{epochs: 1, losses: [{{kind: task}}]}}\nquantize: {{epochs: 1}}\nexport: [onnx]\ngates: {gates}\n"
    )
    loading.load_text(text, Path("r.yaml"), "r.yaml")


def test_metrics_of_the_task_can_be_held() -> None:
    check("{drop: {metric: loss, max: 0.1}, metric: [{name: top1, min: 0.9}, {name: top5, min: 0.99}]}")


@pytest.mark.parametrize(
    ("gates", "place", "hint"),
    [
        ("{drop: {metric: topp1, max: 0.1}}", "gates.drop.metric", "did you mean top1?"),
        ("{metric: [{name: top1, min: 0.9}, {name: mae, max: 1}]}", "gates.metric[1].name", "allowed: loss, top1, top5"),
    ],
)
def test_an_unknown_metric_is_refused_at_its_place(gates: str, place: str, hint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check(gates)
    assert f"{place}: image-classification has no metric" in str(caught.value)
    assert hint in str(caught.value)
