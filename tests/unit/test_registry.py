from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.recipe.distill import Distill
from edgekd.registry import Registry, exporters, losses


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed third-party package with a loss ``mine``, one ``broken``, and an exporter."""
    info = tmp_path / "edgekd_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgekd-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edgekd.losses]\nmine = edgekd_plugin:Mine\nbroken = edgekd_plugin_broken:Loss\n"
        "[edgekd.exporters]\nfancy = edgekd_plugin:Fancy\n"
    )
    (tmp_path / "edgekd_plugin.py").write_text(
        "from typing import ClassVar, Literal\n"
        "from edgekd.recipe.loss import Loss\n"
        "class Mine(Loss):\n"
        "    needs_teacher: ClassVar[bool] = False\n"
        "    kind: Literal['mine'] = 'mine'\n"
        "    margin: float = 0.5\n"
        "class Fancy: pass\n"
    )
    (tmp_path / "edgekd_plugin_broken.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in (losses, exporters):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    return tmp_path


def test_built_in_entries() -> None:
    assert exporters.names() == ["onnx", "openvino", "tflite"]
    assert losses.get("kd").__name__ == "KD"


def test_a_third_partys_loss_is_used_in_a_recipe(plugin: Path) -> None:
    assert "mine" in losses.names()
    distill = Distill.model_validate({"epochs": 1, "losses": [{"kind": "mine", "margin": 0.25}]})
    assert type(distill.losses[0]).__name__ == "Mine"
    assert distill.model_dump()["losses"][0]["margin"] == 0.25
    assert exporters.get("fancy").__name__ == "Fancy"  # type: ignore[attr-defined]


def test_a_third_partys_package_is_imported_only_when_named(plugin: Path) -> None:
    """A broken package must not break those who do not use it."""
    assert "broken" in losses.names()
    assert losses.get("kd").__name__ == "KD"
    with pytest.raises(UsageError) as caught:
        losses.get("broken")
    assert str(caught.value) == (
        "loss 'broken' comes from edgekd_plugin_broken:Loss, which cannot be imported: No module named "
        "'no_such_dependency'\n  → repair or uninstall that package"
    )


def test_unknown_names() -> None:
    with pytest.raises(UsageError) as caught:
        losses.get("fitnt")
    assert str(caught.value) == "unknown loss 'fitnt'\n  → did you mean fitnet?"
    with pytest.raises(UsageError) as caught:
        exporters.get("tensorrt")
    assert str(caught.value) == "unknown exporter 'tensorrt'\n  → allowed: onnx, openvino, tflite"


def test_a_name_is_taken_once() -> None:
    registry: Registry[type] = Registry("thing", "edgekd.distill.losses", "edgekd.things")
    registry.register("one")(int)
    with pytest.raises(ValueError, match="thing 'one' is registered twice"):
        registry.register("one")(str)
    assert registry.get("one") is int
