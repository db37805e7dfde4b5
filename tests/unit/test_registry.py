from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import UsageError
from edgekd.recipe.distill import Distill
from edgekd.registry import Registry, exporters, losses, metrics, sources, tasks, transports
from edgekd.runtimes.base import runtimes


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed third-party package with a loss ``mine``, one ``broken``, and an exporter."""
    info = tmp_path / "edgekd_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgekd-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edgekd.losses]\nmine = edgekd_plugin:Mine\nbroken = edgekd_plugin_broken:Loss\n"
        "moved = edgekd_plugin_moved:Loss\nfree = edgekd_plugin:Free\n"
        "[edgekd.exporters]\nfancy = edgekd_plugin:Fancy\nold = edgekd_plugin:Old\n"
    )
    (tmp_path / "edgekd_plugin.py").write_text(
        "from typing import ClassVar, Literal\n"
        "from edgekd.recipe.loss import Loss\n"
        "class Mine(Loss):\n"
        "    needs_teacher: ClassVar[bool] = False\n"
        "    kind: Literal['mine'] = 'mine'\n"
        "    margin: float = 0.5\n"
        "class Fancy:\n"
        "    suffix, packages, precisions = '.fancy', (), {}\n"
        "    def export(self, source, path, options): ...\n"
        "class Old:\n"
        "    suffix = '.old'\n"
        "    def write(self, path): ...\n"
        "class Free: pass\n"
    )
    (tmp_path / "edgekd_plugin_moved.py").write_text("from edgekd.recipe_distill import Loss\n")
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
        "loss 'broken' comes from edgekd_plugin_broken:Loss of edgekd-plugin 1.0, which cannot be imported: No module named "
        "'no_such_dependency'\n  → repair or uninstall that package"
    )


MADE_FOR_ANOTHER = (
    "\n  → it was made for another edgekd: install a version of it for this one; docs/extending.md says what it needs"
)


@pytest.mark.parametrize(
    ("registry", "name", "why"),
    [
        (exporters, "old", "edgekd_plugin:Old of edgekd-plugin 1.0, which has no export, packages, precisions"),
        (losses, "free", "edgekd_plugin:Free of edgekd-plugin 1.0, which does not derive from edgekd.recipe.loss.Loss"),
        (
            losses, "moved",
            "edgekd_plugin_moved:Loss of edgekd-plugin 1.0, which cannot be imported: No module named "
            "'edgekd.recipe_distill'",
        ),
    ],
)  # fmt: skip
def test_a_package_for_another_edgekd_is_refused_with_what_it_lacks(
    plugin: Path, registry: Registry[type], name: str, why: str
) -> None:
    with pytest.raises(UsageError) as caught:
        registry.get(name)
    assert str(caught.value) == f"{registry.noun} {name!r} comes from {why}{MADE_FOR_ANOTHER}"
    assert name in registry.names()


@pytest.mark.parametrize(
    "registry", [losses, exporters, metrics, sources, tasks, runtimes, transports], ids=lambda one: one.noun
)
def test_the_built_in_entries_have_what_is_asked_of_others(registry: Registry[type]) -> None:
    assert {name: lacks for name in registry.names() if (lacks := registry._lacks(registry.get(name)))} == {}


def test_unknown_names() -> None:
    with pytest.raises(UsageError) as caught:
        losses.get("fitnt")
    assert str(caught.value) == "unknown loss 'fitnt'\n  → did you mean fitnet?"
    with pytest.raises(UsageError) as caught:
        exporters.get("tensorrt")
    assert str(caught.value) == "unknown exporter 'tensorrt'\n  → allowed: onnx, openvino, tflite"


def test_a_name_is_taken_once() -> None:
    registry: Registry[type] = Registry("thing", "edgekd.distill.losses", "builtins.int", "edgekd.things")
    registry.register("one")(int)
    with pytest.raises(ValueError, match="thing 'one' is registered twice"):
        registry.register("one")(str)
    assert registry.get("one") is int
