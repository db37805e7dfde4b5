"""devices/README.md and docs/devices.md say what the schema and the commands have."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from edgekd import loading
from edgekd.devices.isa import FEATURES
from edgekd.devices.schema import Device

ROOT = Path(__file__).parents[3]
KEYS = (ROOT / "devices" / "README.md").read_text("utf-8")
PAGE = (ROOT / "docs" / "devices.md").read_text("utf-8")


def test_every_key_of_a_device_is_documented() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", KEYS.split("## Keys")[1], re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert documented == list(Device.model_fields)
    assert all(f"`{feature}`" in KEYS for feature in FEATURES)


def test_every_shipped_device_is_listed() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \|", KEYS.split("## Add one")[0], re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "devices").glob("*.yaml"))


def test_the_device_files_of_the_page_are_valid() -> None:
    files = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(transport:.*?)```", PAGE + KEYS, re.DOTALL)]
    assert len(files) == 2
    for value in files:
        Device.model_validate({"name": "mine", **value})


def test_the_recipe_of_the_page_is_valid(tmp_path: Path) -> None:
    (part,) = re.findall(r"```yaml\n(export:.*?)```", PAGE, re.DOTALL)
    recipe = tmp_path / "my.yaml"
    rest = "edgekd: 1\ndata: {source: fashion-mnist-mini}\nstudent: {model: torchvision:mobilenet_v2}\nquantize: {}\n"
    recipe.write_text(f"{rest}distill: {{epochs: 1, losses: [{{kind: task}}]}}\n{part}", encoding="utf-8")
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "pi4.yaml").write_text("transport: ssh\nhost: pi@raspberrypi\n", encoding="utf-8")
    loaded = loading.load(recipe)
    assert [gate.device for name, gate in loaded.recipe.gates.limits() if name == "latency_p90_ms"] == ["host", "pi4"]
