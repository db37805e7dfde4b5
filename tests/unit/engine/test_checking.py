"""Every mistake in one round: mistakes of one kind hide none of another, and bring no consequences."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from edgekd.cli import cli
from edgekd.engine.checking import check
from edgekd.errors import RecipeError

GOOD = """\
edgekd: 2
seed: 3
data: {source: "imagefolder:images", image_size: 32}
teacher: {model: "net.py:big", weights: best.pt}
student: {model: "net.py:small"}
distill:
  epochs: 4
  losses:
    - {kind: task}
    - {kind: kd, temperature: 4}
quantize: {epochs: 1}
export: [onnx, {format: tflite, io: int8}]
profile: {devices: [host, pi4]}
gates: {accuracy_drop: {max: 0.02}, latency_p50_ms: {max: 9, device: pi4}}
reads: [table.csv]
"""


@dataclass(frozen=True)
class Fault:
    """A change of the good recipe, and the key and the words of the one mistake that it is."""

    name: str
    old: str
    new: str
    key: str
    message: str


FAULTS = (
    Fault("unknown key", "seed: 3", "seed: 3\nspeed: 1", "speed", "unknown key"),
    Fault("misspelt section", "quantize: {epochs: 1}", "quantise: {epochs: 1}", "quantise", "unknown key"),
    Fault("misspelt key", "image_size: 32", "imagesize: 32", "data.imagesize", "unknown key"),
    Fault("wrong type", "temperature: 4", "temperature: hot", "distill.losses[1].temperature", "must be a number"),
    Fault("quoted number", "epochs: 4", "epochs: '4'", "distill.epochs", "must be a whole number"),
    Fault("not a list", "[host, pi4]", "pi4", "profile.devices", "must be a list"),
    Fault("unknown loss", "{kind: kd,", "{kind: kdd,", "distill.losses[1].kind", "unknown loss"),
    Fault("unknown format", "[onnx,", "[onx,", "export[0]", "unknown format"),
    Fault("missing weights", "best.pt", "bst.pt", "teacher.weights", "bst.pt does not exist"),
    Fault("missing data", "imagefolder:images", "imagefolder:image", "data.source", "image does not exist"),
    Fault("missing function", "net.py:small", "net.py:tiny", "student.model", "net.py has no tiny"),
    Fault("missing file", "table.csv", "tables.csv", "reads", "tables.csv does not exist"),
    Fault("unknown device", "pi4]}\ngates", "pi4, pi9]}\ngates", "profile.devices[2]", "no device called 'pi9'"),
    Fault("bad combination", "io: int8}]", "io: int8}, onnx]", "export[2]", "onnx is exported twice"),
    Fault("bad io", "format: tflite, io", "format: openvino, io", "export[1].io", "openvino has float32 input and output"),
    Fault("gate of two sides", "{max: 0.02}", "{max: 0.02, min: 0}", "gates.accuracy_drop", "max and min are both given"),
    Fault("warm-up", "  epochs: 4", "  warmup_epochs: 5\n  epochs: 4", "distill.warmup_epochs", "do not fit into 4 epochs"),
    Fault("trained twice", 'model: "net.py:big"', 'model: "net.py:big", seed: 1', "teacher.seed", "is trained already"),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("def big(): pass\ndef small(): pass\n")
    for name in ("best.pt", "table.csv"):
        Path(name).write_bytes(b"")
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "images" / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / place / "0.png")
    Path("devices").mkdir()
    Path("devices/pi4.yaml").write_text("edgekd: 1\ntransport: host\ndescription: a board\n")
    Path("good.yaml").write_text(GOOD)
    return tmp_path


def apply(*faults: Fault) -> Path:
    text = GOOD
    for fault in faults:
        assert text.count(fault.old) == 1, fault.name
        text = text.replace(fault.old, fault.new)
    Path("r.yaml").write_text(text)
    return Path("r.yaml")


def told(path: Path) -> list[tuple[str, str]]:
    return [(problem.key, problem.message) for problem in check(path).problems]


def expect(*faults: Fault) -> None:
    found = told(apply(*faults))
    names = [fault.name for fault in faults]
    for fault in faults:
        matching = [one for one in found if one[0] == fault.key and fault.message in one[1]]
        assert len(matching) == 1, (names, fault.name, found)
    assert len(found) == len(faults), (names, found)


def test_the_good_recipe_is_good(project: Path) -> None:
    assert check(Path("good.yaml")).ok


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_pair_of_mistakes_is_told_in_one_round(project: Path, fault: Fault) -> None:
    expect(fault)
    for other in FAULTS[FAULTS.index(fault) + 1 :]:
        if other.old not in GOOD.replace(fault.old, fault.new):  # both change the same words
            continue
        expect(fault, other)


def test_many_mistakes_are_told_in_one_round(project: Path) -> None:
    kinds = [fault for fault in FAULTS if fault.name not in ("warm-up", "not a list", "wrong type")]
    expect(*kinds)
    for left_out in itertools.islice(itertools.combinations(kinds, len(kinds) - 3), 0, None, 60):
        expect(*left_out)


def test_a_mistake_in_a_section_whose_key_is_misspelt_is_told_where_it_is_written(project: Path) -> None:
    text = GOOD.replace("quantize: {epochs: 1}", "quantise: {epochs: one, weight_bits: 9}")
    Path("r.yaml").write_text(text)
    assert [key for key, _ in told(Path("r.yaml"))] == ["quantise", "quantise.epochs", "quantise.weight_bits"]


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ("teacher: {", "student: {model: 'net.py:small'}\nteachers: {", []),  # no kd needs a teacher
        ("    - {kind: kd, temperature: 4}\n", "    - {kind: nothing}\n", ["distill.losses[1].kind"]),
        ('data: {source: "imagefolder:images", image_size: 32}', "data: {source: 7}", ["data.source"]),
        ("student: {", "  student: {", []),
    ],
)
def test_consequences_are_not_told(project: Path, old: str, new: str, keys: list[str]) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new)
    Path("r.yaml").write_text(text)
    found = told(Path("r.yaml"))
    if keys:
        assert [key for key, _ in found] == keys
    else:
        assert len(found) == 1


def test_what_could_not_be_checked_is_said(project: Path) -> None:
    path = apply(FAULTS[3], FAULTS[8])
    checked = check(path)
    assert checked.not_checked == ("distill.losses[1].temperature",)
    assert "not checked yet" not in refused("check", str(path))  # the key is reported itself


def refused(*arguments: str) -> str:
    with pytest.raises(RecipeError) as caught:
        CliRunner().invoke(cli, arguments, catch_exceptions=False, standalone_mode=False)
    return str(caught.value)


@pytest.mark.parametrize("setting", ["distill.epochs=abc", "data.image_size=4", "task=pumps"])
def test_a_key_that_is_reported_is_not_said_to_wait(project: Path, setting: str) -> None:
    text = refused("check", "good.yaml", "--set", setting)
    assert text.startswith(f"--set {setting}: {setting.partition('=')[0]}: ")
    assert "not checked yet" not in text


def test_nothing_that_depends_on_an_unknown_task_is_reported(project: Path) -> None:
    """Neither its metrics nor what its outputs are can be known."""
    gates = "gates: {metric: {name: mae, max: 1}, drop: {metric: flow, max: 0.1}, latency_p50_ms: {max: 9, device: pi4}}"
    text = GOOD.replace(GOOD[GOOD.index("gates:") : GOOD.index("\nreads")], gates)
    Path("r.yaml").write_text(f"task: pumps\n{text}")
    assert [key for key, _ in told(Path("r.yaml"))] == ["task"]
    Path("r.yaml").write_text(f"task: pumps\n{text.replace('[onnx,', '[onx,')}")
    assert sorted(key for key, _ in told(Path("r.yaml"))) == ["export[0]", "task"]
    Path("r.yaml").write_text(text)
    assert [key for key, _ in told(Path("r.yaml"))] == ["gates.metric.name", "gates.drop.metric"]
