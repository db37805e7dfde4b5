"""Devices of the user's project in a recipe: found beside it and in the working folder, by name and by path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.cli import model
from edgekd.devices import schema, targets
from edgekd.engine import locked, plan, preflight
from edgekd.errors import RecipeError, UsageError
from edgekd.loading import load, lock_text
from edgekd.loading.loaded import Loaded
from edgekd.stages import quantize
from edgekd.stages.profile import ProfileStage

RECIPE = """
edgekd: 1
data: {source: fashion-mnist-mini}
student: {model: edgekd:resnet10}
distill: {epochs: 1, losses: [{kind: task}]}
quantize: {method: ptq}
export: [onnx]
profile: {devices: %s}
"""
PI = "transport: ssh\nhost: pi@pi\narch: aarch64\nisa: [asimd]\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Loaded]:
    """Loads a recipe with devices, from the folder ``here``; device files by their path in the project."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def loaded(devices: str, files: dict[str, str], overrides: tuple[str, ...] = ()) -> Loaded:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "my.yaml").write_text(RECIPE % devices)
        return load(tmp_path / "my.yaml", overrides)

    return loaded


def test_a_device_is_found_by_name_and_path_and_becomes_absolute(project: Callable[..., Loaded], tmp_path: Path) -> None:
    files = dict.fromkeys(("devices/pi4.yaml", "here/devices/pi5.yaml", "lab/pi3.yaml", "here/pi2.yaml"), PI)
    loaded = project("[host, pi4, pi5, lab/pi3.yaml]", files)
    assert loaded.recipe.profile is not None
    assert loaded.recipe.profile.devices == (
        "host",
        *(str(tmp_path / name) for name in ("devices/pi4.yaml", "here/devices/pi5.yaml", "lab/pi3.yaml")),
    )
    names = [node.name for node in plan.nodes(loaded.recipe) if node.stage.name == "profile"]
    assert names == ["profile.host", "profile.pi4", "profile.pi5", "profile.pi3"]
    configs = [ProfileStage().config(loaded.recipe, name)["devices"] for name in names]
    assert configs == [["host"], ["pi4"], ["pi5"], ["pi3"]], "each has a key of its own"
    typed = project("[host]", {}, ("profile.devices=[pi2.yaml, ../lab/pi3.yaml]",))
    assert typed.recipe.profile is not None
    assert typed.recipe.profile.devices == (str(tmp_path / "here/pi2.yaml"), str(tmp_path / "lab/pi3.yaml"))
    assert not preflight.problems(loaded)
    named = project("[host]", {}, ("profile.devices=[pi4, pi5]",))
    assert named.recipe.profile is not None
    assert named.recipe.profile.devices == tuple(
        str(tmp_path / name) for name in ("devices/pi4.yaml", "here/devices/pi5.yaml")
    )


def test_beside_the_recipe_comes_before_the_working_folder(project: Callable[..., Loaded], tmp_path: Path) -> None:
    loaded = project("[pi4]", {"devices/pi4.yaml": PI, "here/devices/pi4.yaml": PI})
    assert loaded.recipe.profile is not None
    assert loaded.recipe.profile.devices == (str(tmp_path / "devices/pi4.yaml"),)


def test_what_a_device_decides_follows_its_file(project: Callable[..., Loaded]) -> None:
    assert quantize.weight_bits(project("[pi4]", {"devices/pi4.yaml": PI}).recipe) == 8
    unknown = project("[pi4]", {"devices/pi4.yaml": "transport: ssh\nhost: pi\n"}).recipe
    assert quantize.weight_bits(unknown) == 7
    assert targets.named(unknown, "pi4").host == "pi"


def test_two_devices_of_one_name_and_a_gate_on_none_are_mistakes(project: Callable[..., Loaded]) -> None:
    with pytest.raises(RecipeError, match=r"my.yaml:8:35: profile.devices\[1\]: two devices are called pi4"):
        project("[lab/pi4.yaml, home/pi4.yaml]", {})
    project("[lab/pi4.yaml]", {"lab/pi4.yaml": PI}, ("gates.latency_p50_ms={max: 5, device: pi4}",))
    with pytest.raises(RecipeError, match="nothing is profiled on pi5"):
        project("[lab/pi4.yaml]", {}, ("gates.latency_p50_ms={max: 5, device: pi5}",))


def test_a_device_that_is_not_there_and_one_that_is_wrong_are_told_together(project: Callable[..., Loaded]) -> None:
    missing, wrong = preflight.devices(project("[pi4, pi44]", {"devices/pi4.yaml": PI.replace("isa", "iso")}))
    assert (missing.key, missing.hint) == ("profile.devices[1]", "did you mean pi4?")
    assert missing.where.endswith("my.yaml:8:26")
    assert wrong.where.endswith("devices/pi4.yaml:4:1")


def test_a_lock_names_the_file_from_its_folder_and_knows_its_bytes(project: Callable[..., Loaded], tmp_path: Path) -> None:
    loaded = project("[host, pi4]", {"devices/pi4.yaml": PI})
    folder = tmp_path / "reports" / "my" / "0001"
    folder.mkdir(parents=True)
    locked.write(loaded, folder)
    lock = folder / "recipe.lock.yaml"
    assert "[host, ../../../devices/pi4.yaml]" in lock.read_text()
    again = load(lock)
    assert again.recipe.profile == loaded.recipe.profile
    assert lock_text(again, folder).count("pi4.yaml") == 1
    locked.check(again)
    (tmp_path / "devices/pi4.yaml").write_text(PI + "threads: 2\n")
    with pytest.raises(UsageError, match="other bytes than there are now in .*devices/pi4.yaml"):
        locked.check(again)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('description: "a\\0b"', "description: has a NUL character"),
        ('env: {A: "\\0"}', "env: has a NUL character"),
        ('python: [a, "b\\0"]', "python: has a NUL character"),
        ("env: {a-b: c}", "'a-b' is no name of a variable"),
        ("env: {'A=B': c}", "'A=B' is no name of a variable"),
        ("env: {'': c}", "'' is no name of a variable"),
    ],
)
def test_what_no_device_takes_is_refused_in_words(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "pi4.yaml").write_text(f"{PI}{line}\n")
    with pytest.raises(RecipeError) as error:
        schema.load(str(tmp_path / "pi4.yaml"))
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("text", "place"), [(PI, "1:12: transport"), ("transport: host\nthreads: 2\nemulated: true\n", "3:11: emulated")]
)
def test_the_name_of_this_machine_is_no_other_machines(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "host.yaml").write_text(text)
    with pytest.raises(RecipeError) as error:
        schema.load(str(tmp_path / "host.yaml"))
    assert f"host.yaml:{place}: does not fit the name host" in str(error.value)
    (tmp_path / "host.yaml").write_text("transport: host\nthreads: 2\n")
    assert schema.load(str(tmp_path / "host.yaml")).threads == 2


def test_a_gate_on_a_mistyped_device_is_told_what_is_meant(project: Callable[..., Loaded]) -> None:
    gate = ("gates.latency_p50_ms={max: 3, device: pi44}",)
    with pytest.raises(RecipeError, match=r"did you mean pi4\?"):
        project("[host, pi4]", {"devices/pi4.yaml": PI}, gate)


def test_several_devices_are_named_on_the_command_line() -> None:
    words = ("net.py:Net", "--weights", __file__, "--device", "host", "--device", "pi4", "--device", "host")
    context = model.export.make_context("export", [*words])
    assert context.params["devices"] == ("host", "pi4", "host")
