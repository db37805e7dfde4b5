from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

import edgekd
from edgekd import resources
from edgekd.cli import cli, main
from edgekd.cli.listing import list_
from edgekd.cli.options import Number
from edgekd.errors import StageError, UsageError

(WHAT,) = (own.type.choices for own in list_.params if isinstance(own.type, click.Choice))
KNOWN = {
    "metrics": "top1",
    "recipes": "mobilenet", "models": "edgekd:resnet10", "losses": "kd", "devices": "host", "data": "synthetic",
    "formats": "tflite", "runtimes": "openvino",
    "tasks": "image-classification",
}  # fmt: skip


def test_edgekd_alone_says_what_to_type() -> None:
    """Every line is a command that there is, with arguments that it takes; nothing heavy is imported for it."""
    script = (
        "import sys; from edgekd.cli import main\n"
        "try: main([])\n"
        "finally: assert not {'torch', 'numpy', 'pydantic', 'yaml', 'rich'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    typed = [line.split("  ")[1].split() for line in done.stdout.splitlines() if line.startswith("  edgekd")]
    assert 4 <= len(typed) <= 6
    for words in typed:
        assert words[0] == "edgekd"
        if words[1] != "--help":
            command = cli.commands[words[1]]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known
    assert typed[0][2] in resources.available("recipes")


@pytest.mark.parametrize("what", WHAT)
def test_all_that_a_recipe_can_name_is_listed(what: str) -> None:
    found = CliRunner().invoke(cli, ["list", what, "--json"], catch_exceptions=False, standalone_mode=False)
    assert KNOWN[what] in json.loads(found.stdout)
    lines = CliRunner().invoke(cli, ["list", what, "--match", KNOWN[what]], catch_exceptions=False, standalone_mode=False)
    assert lines.stdout.split()[0] == KNOWN[what]


def test_names_of_files_that_are_no_utf_8_are_printed(tmp_path: Path) -> None:
    """In messages, and in JSON so that whoever reads it has the name."""
    path = os.fsencode(tmp_path) + b"/\xff.yaml"
    Path(os.fsdecode(path)).write_text("edgekd: 3\n")
    command = [sys.executable, "-m", "edgekd", "check", path, "--json"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"})
    assert done.returncode == 2
    assert b".yaml:1:9: edgekd: " in done.stderr
    (problem,) = (found for found in json.loads(done.stdout)["problems"] if found["key"] == "edgekd")
    assert os.fsencode(problem["where"]).startswith(path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--sustained", "nan"], "nan is not a finite number"),
        (["--sustained", "inf"], "inf is not in the range"),
        (["--sustained", "1e300"], "is not in the range"),
        (["--shape", "x=1", "--shape", "x=2"], "--shape x is given twice: 1 and 2"),
        (["--input", "x=a.npy", "--input", "x=b.npy"], "--input x is given twice: a.npy and b.npy"),
        (["--against", "a", "--against", "b"], "Invalid value for '--against': it is given twice"),
        (["--pack", "a", "--pack", "b"], "Invalid value for '--pack': it is given twice"),
        (["--threads", "1", "--threads", "2"], "Invalid value for '--threads': it is given twice"),
    ],
)
def test_numbers_that_are_none_and_values_that_would_be_dropped_are_refused(options: list[str], told: str) -> None:
    with pytest.raises((UsageError, click.UsageError)) as error:
        cli.main(["profile", "net.onnx", *options], standalone_mode=False)
    said = error.value.format_message() if isinstance(error.value, click.UsageError) else str(error.value)
    assert told in said


@pytest.mark.parametrize(
    ("typed", "size"), [("48", 48), ("48x64", [48, 64]), ("48X64", [48, 64]), ("48×64", [48, 64]), ("48x48", 48)]
)
@pytest.mark.parametrize("command", ["quantize", "export"])
def test_the_size_of_images_that_are_not_square(command: str, typed: str, size: object, tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"")
    words = [command, "torchvision:resnet18", "--weights", str(tmp_path / "best.pt"), "--data", "fashion-mnist-mini"]
    found = CliRunner().invoke(
        cli, [*words, "--size", typed, "--recipe-only"], catch_exceptions=False, standalone_mode=False
    )
    assert yaml.safe_load(found.stdout)["data"]["image_size"] == size


@pytest.mark.parametrize("typed", ["4x40", "48x2000", "3x48x64", "48x", "x", "-8", "48.5", ""])
def test_what_is_no_size_of_images_is_refused(typed: str) -> None:
    words = ["export", "torchvision:resnet18", "--weights", "best.pt", "--size", typed]
    with pytest.raises(click.BadParameter, match="8 to 1024 pixels, as one number or HEIGHTxWIDTH, such as 96 or 48x64"):
        cli.main(words, standalone_mode=False)


@pytest.mark.parametrize(
    ("command", "value", "hint"),
    [
        ("run", "4", "type --processes 4"),
        ("plan", "2", "type --processes 2"),
        ("study", "2", "type --processes 2"),
        ("run", "pi4", "type --processes N; to measure on pi4: --set profile.devices=[pi4]"),
        ("quantize", "pi4", "type --processes N; to measure on pi4: --device pi4"),
    ],
)
def test_the_earlier_name_of_processes_says_the_new_one(command: str, value: str, hint: str) -> None:
    model = "torchvision:resnet18" if command == "quantize" else "mobilenet"
    with pytest.raises(UsageError, match="devices are boards now") as error:
        cli.main([command, model, "--devices", value], standalone_mode=False)
    assert error.value.hint == hint
    told = CliRunner().invoke(cli, [command, "--help"]).stdout
    assert "--processes" in told
    assert "--devices" not in told.replace("without-devices", "").replace("ask-devices", "")


def test_no_number_of_the_command_line_is_a_float_that_may_be_nan() -> None:
    def options(command: click.Command) -> Iterator[click.Parameter]:
        yield from command.params
        for inner in getattr(command, "commands", {}).values():
            yield from options(inner)

    floats = [option for option in options(cli) if isinstance(option.type, click.types.FloatParamType)]
    assert [option.name for option in floats if not isinstance(option.type, Number)] == []
    assert floats


@pytest.mark.parametrize("content", [b"\x08\x0a\xff\xfe\x00" * 1000, b"{", b"[]", b"{}", b'"text"', b"[" * 100_000])
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    for path in (tmp_path / "net.onnx", tmp_path / "net.onnx" / "x"):
        with pytest.raises(UsageError) as error:
            cli.main(["report", str(path)], standalone_mode=False)
        first, hint = str(error.value).splitlines()
        assert first.startswith(f"{path} is not a run.json: ")
        assert len(first) < len(str(path)) + 120
        assert hint == "  → give a run folder, such as reports/mobilenet/latest"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["chek"], "did you mean edgekd check?"),
        (["qqqq"], "edgekd --help"),
        (["report"], "such as edgekd report reports/mobilenet/latest; edgekd report --help"),
        (["upgrade"], "such as edgekd upgrade my.yaml; edgekd upgrade --help"),
        (["run", "--no-such-option", "x"], "edgekd run --help"),
    ],
)
def test_a_wrong_command_line_says_what_to_type(line: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line)
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"  → {hint}\n")


@pytest.mark.parametrize("call", ["sys.exit()", "sys.exit(0)", "raise SystemExit('no such thing')"])
def test_code_of_a_user_cannot_end_edgekd_without_a_word(
    call: str, tmp_path: Path, npz: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0 would be a night that went well."""
    (tmp_path / "net.py").write_text(
        "import sys\nfrom torch import nn\n\nclass Net(nn.Module):\n    def __init__(self, num_classes):\n"
        "        super().__init__()\n        self.f = nn.Linear(1, num_classes)\n"
        f"    def forward(self, x):\n        {call}\n"
    )
    (tmp_path / "r.yaml").write_text(
        f"edgekd: 2\ndata: {{source: '{npz()}', image_size: 16}}\nstudent: {{model: 'net.py:Net'}}\n"
        "distill: {epochs: 1, losses: [{kind: task}]}\nbaselines: []\nexport: [onnx]\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["run", "r.yaml"])
    assert caught.value.code == 3
    said = capsys.readouterr().err
    assert "code that edgekd has called ends the process: sys.exit(" in said
    assert "net.py:9" in said
    with pytest.raises(StageError, match="ends the process"):
        edgekd.run("r.yaml", quiet=True)


def test_ctrl_c_during_the_imports_has_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-m", "edgekd", "list", "losses"], env=env,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")
