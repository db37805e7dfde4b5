from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import resources
from edgekd.errors import UsageError


def _fill(root: Path) -> None:
    for kind, names in {"recipes": ["mobilenet", "resnet"], "devices": ["host", "pi4"]}.items():
        (root / kind).mkdir(parents=True)
        for name in names:
            (root / kind / f"{name}.yaml").write_text("edgekd: 1\n")
        (root / kind / "README.md").write_text("not one of them")
        (root / kind / "schema.json").write_text("{}")


def _package(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path.mkdir(parents=True)
    (path / "assets" / "mini").mkdir(parents=True)
    (path / "assets" / "mini" / "train.npz").write_bytes(b"")
    (path / "assets" / "__pycache__").mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", path)
    return path


@pytest.fixture(params=["wheel", "checkout"])
def data(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that holds recipes/ and devices/, in each of the two layouts."""
    if request.param == "wheel":
        root = _package(tmp_path / "site-packages" / "edgekd", monkeypatch) / "_data"
    else:
        _package(tmp_path / "pipeline" / "edgekd", monkeypatch)
        root = tmp_path
    _fill(root)
    return root


def test_finds_recipes_and_devices_with_and_without_suffix(data: Path) -> None:
    assert resources.find("recipes", "mobilenet") == data / "recipes" / "mobilenet.yaml"
    assert resources.find("recipes", "mobilenet.yaml") == data / "recipes" / "mobilenet.yaml"
    assert resources.find("devices", "pi4") == data / "devices" / "pi4.yaml"


def test_lists_names_only(data: Path) -> None:
    assert resources.available("recipes") == ["mobilenet", "resnet"]
    assert resources.available("devices") == ["host", "pi4"]
    assert resources.available("assets") == ["mini"]


def test_lists_and_finds_what_is_in_a_folder_of_its_own(data: Path) -> None:
    (data / "recipes" / "big").mkdir()
    (data / "recipes" / "big" / "first.yaml").write_text("edgekd: 1\n")
    assert resources.available("recipes") == ["mobilenet", "resnet", "big/first"]
    assert resources.find("recipes", "big/first") == data / "recipes" / "big" / "first.yaml"


def test_finds_a_file_in_an_asset(data: Path) -> None:
    assert resources.find("assets", "mini").is_dir()
    assert resources.find("assets", "mini/train.npz").name == "train.npz"


def test_a_wheel_does_not_look_above_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = _package(tmp_path / "lib" / "site-packages" / "edgekd", monkeypatch)
    _fill(package / "_data")
    (tmp_path / "lib" / "recipes").mkdir()
    assert resources.available("recipes") == ["mobilenet", "resnet"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mobilnet", "did you mean mobilenet?"), ("zzz", "allowed: mobilenet, resnet")],
)
def test_unknown_name_suggests(data: Path, name: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        resources.find("recipes", name)
    assert str(caught.value) == f"no recipe called {name!r} ships with edgekd\n  → {hint}"


@pytest.mark.parametrize("name", ["../devices/host", "/etc/hostname", "", "."])
def test_a_name_does_not_leave_the_folder(data: Path, name: str) -> None:
    with pytest.raises(UsageError):
        resources.find("recipes", name)


def test_an_installation_without_data_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _package(tmp_path / "a" / "edgekd", monkeypatch)
    assert resources.available("devices") == []
    with pytest.raises(UsageError, match="none are installed"):
        resources.find("devices", "host")


def test_this_checkout_has_its_assets() -> None:
    assert resources.folder("assets").parent.name == "edgekd"
