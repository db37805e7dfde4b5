"""``--json``: what docs/run.md promises of every command."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.cli import cli, main

ROOT = Path(__file__).parents[3]
RUN = "run.json"
COMMANDS = {
    ("check", "mobilenet"): {"recipe"},
    ("check", "studies/losses"): {"study"},
    ("plan", "mobilenet", "--ask-devices", "--set", "profile=null"): {"stages", "devices"},
    ("upgrade", "--check", "my.yaml"): {"files"},
    ("export", "edgekd:resnet10", "--weights", "best.pt", "--classes", "3", "--recipe-only"): {"recipe"},
}


@pytest.fixture
def edgekd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command in a folder with a recipe and weights; its JSON, whose exit code is the command's."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "recipes" / "mobilenet.yaml", "my.yaml")
    Path("best.pt").write_bytes(b"")

    def run(*words: str) -> Any:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--json"])
        value = json.loads(capsys.readouterr().out)
        assert value["exit_code"] == ended.value.code
        assert value["ok"] is (ended.value.code == 0)
        return value

    return run


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_says_ok_and_its_exit_code_beside_its_keys(words: tuple[str, ...], edgekd: Callable[..., Any]) -> None:
    assert edgekd(*words).keys() == {"ok", "exit_code", *COMMANDS[words]}


def test_a_report_is_what_its_run_json_holds(edgekd: Callable[..., Any]) -> None:
    (old,) = (ROOT / "tests" / "old" / "run").rglob(RUN)
    shutil.copy(old, RUN)
    value = edgekd("report", RUN)
    assert value["ok"]
    assert {"schema", "verdict", "models", "gates"} <= value.keys()
    Path(RUN).write_text(json.dumps(value))
    assert edgekd("report", RUN) == value, "what --json prints is read again"


def test_a_command_that_could_not_do_its_work(edgekd: Callable[..., Any]) -> None:
    value = edgekd("check", "my.yaml", "--set", "distill.epochs=many")
    assert value.keys() == {"ok", "exit_code", "error", "hint", "problems"}
    assert value["problems"][0].keys() == {"where", "key", "message", "hint", "snippet"}
    assert edgekd("check", "none.yaml")["exit_code"] == 2


def test_the_page_has_every_command_with_json() -> None:
    page = (ROOT / "docs" / "run.md").read_text("utf-8")
    (table,) = re.findall(r"<!-- json -->(.*?)<!-- /json -->", page, re.DOTALL)
    named = {
        words.split()[0] for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for words in re.findall("`(.+?)`", row)
    }
    able = {name for name, command in cli.commands.items() if any("--json" in each.opts for each in command.params)}
    assert named == able - {"list"}
    for words, keys in COMMANDS.items():
        (row,) = re.findall(rf"^\| `{words[0]}\b.*$", table, re.MULTILINE)
        assert keys <= set(re.findall(r"`(\w+)`", row))
