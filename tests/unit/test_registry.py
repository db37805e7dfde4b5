from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekd import __version__
from edgekd.cli import cli
from edgekd.errors import UsageError
from edgekd.loading import schema
from edgekd.recipe.distill import Distill
from edgekd.registry import Registry, exporters, hidden, losses, metrics, sources, tasks, transports
from edgekd.runtimes.base import runtimes


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed third-party package with a loss ``mine``, one ``broken``, and an exporter."""
    info = tmp_path / "edgekd_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgekd-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[edgekd.losses]\nmine = edgekd_plugin:Mine\nbroken = edgekd_plugin_broken:Loss\n"
        "moved = edgekd_plugin_moved:Loss\nfree = edgekd_plugin:Free\nkd = edgekd_plugin:Mine\n"
        "exits = edgekd_plugin_exits:Loss\n"
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
    (tmp_path / "edgekd_plugin_exits.py").write_text("raise SystemExit(7)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in (losses, exporters):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_plugins", set(registry._plugins))
        monkeypatch.setattr(registry, "_used", set())
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


ANOTHER_VERSION = f"install a version of edgekd-plugin that was made for edgekd {__version__}"
LACKING = f"as its author, add that: docs/extending.md says what it needs; as its user, {ANOTHER_VERSION}"


@pytest.mark.parametrize(
    ("registry", "name", "why", "hint"),
    [
        (exporters, "old", "edgekd_plugin:Old of edgekd-plugin 1.0, which has no export, packages, precisions", LACKING),
        (
            losses, "free", "edgekd_plugin:Free of edgekd-plugin 1.0, which does not derive from edgekd.recipe.loss.Loss",
            LACKING,
        ),
        (
            losses, "moved",
            "edgekd_plugin_moved:Loss of edgekd-plugin 1.0, which cannot be imported: No module named "
            "'edgekd.recipe_distill'", ANOTHER_VERSION,
        ),
    ],
)  # fmt: skip
def test_a_package_for_another_edgekd_is_refused_with_what_it_lacks(
    plugin: Path, registry: Registry[type], name: str, why: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        registry.get(name)
    assert str(caught.value) == f"{registry.noun} {name!r} comes from {why}\n  → {hint}"
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


def test_a_package_that_exits_at_import_is_named(plugin: Path) -> None:
    with pytest.raises(UsageError, match=r"edgekd_plugin_exits:Loss of edgekd-plugin 1.0, .* SystemExit: 7"):
        losses.get("exits")


def test_broken_packages_are_listed_beside_the_others(plugin: Path) -> None:
    found = CliRunner().invoke(cli, ["list", "losses"], standalone_mode=False)
    assert found.return_value == 0
    assert "Mine" not in found.stdout
    assert {"kd", "mine"} <= {line.split(" ")[0] for line in found.stdout.splitlines()}
    for name in ("broken", "exits", "free", "moved", "kd"):
        assert f"cannot be used: loss {name!r} comes from edgekd_plugin" in found.stderr
    told = json.loads(CliRunner().invoke(cli, ["list", "losses", "--json"], standalone_mode=False).stdout)
    assert "cannot be imported" in told["broken"]["error"]
    assert "edgekd has a loss of this name" in told["kd (edgekd-plugin 1.0)"]["error"]
    assert isinstance(told["kd"], str)
    formats = json.loads(CliRunner().invoke(cli, ["list", "formats", "--json"], standalone_mode=False).stdout)
    assert "error" in formats["old"]
    assert "error" not in formats["onnx"]


def test_what_lists_all_entries_leaves_out_the_broken_ones(plugin: Path) -> None:
    kinds = schema.json_schema()["$defs"]["Distill"]["properties"]["losses"]["items"]["oneOf"]
    assert {"$ref": "#/$defs/loss_mine"} in kinds
    assert {"$ref": "#/$defs/loss_broken"} not in kinds


def test_a_name_of_edgekd_is_not_taken_silently(plugin: Path) -> None:
    assert losses.get("mine").__name__ == "Mine"
    assert not list(hidden())
    assert losses.get("kd").__name__ == "KD"
    (said,) = hidden()
    assert said.startswith("loss 'kd' comes from edgekd_plugin:Mine of edgekd-plugin 1.0, which is not used: edgekd has")


def test_a_name_of_two_packages_is_refused(plugin: Path) -> None:
    info = plugin / "edgekd_other-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgekd-other\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[edgekd.losses]\nmine = edgekd_other:Mine\n")
    with pytest.raises(UsageError, match="comes from 2 places: .*edgekd-other 2.0") as caught:
        losses.get("mine")
    assert "uninstall" in caught.value.hint


THREADS = """
import sys, threading
from edgekd import registry
sys.setswitchinterval(1e-6)
barrier, wrong = threading.Barrier(6), []
def ask(one, name):
    barrier.wait()
    try:
        one.get(name)
    except BaseException as error:
        wrong.append(repr(error))
asked = [(registry.losses, "vid"), (registry.sources, "torchvision"), (registry.exporters, "tflite")]
threads = [threading.Thread(target=ask, args=each) for each in asked * 2]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit("; ".join(wrong) or 0)
"""


def test_threads_load_a_registry_once() -> None:
    """In a process whose registries are empty; each of two threads asks for the entry that is registered last."""
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_is_installed_while_edgekd_runs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook: entry points are read once, and again when packages came or went."""
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "late" not in losses.names()
    info = tmp_path / "edgekd_late-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[edgekd.losses]\nlate = edgekd_late:Late\n")
    assert "late" in losses.names()
    shutil.rmtree(info)
    assert "late" not in losses.names()
