from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgekd.cli import cli, list_

(WHAT,) = (own.type.choices for own in list_.params if isinstance(own.type, click.Choice))
KNOWN = {
    "recipes": "mobilenet", "models": "edgekd:resnet10", "losses": "kd", "devices": "host", "data": "synthetic",
}  # fmt: skip


@pytest.mark.parametrize("what", WHAT)
def test_all_that_a_recipe_can_name_is_listed(what: str) -> None:
    found = CliRunner().invoke(cli, ["list", what, "--json"], catch_exceptions=False, standalone_mode=False)
    assert KNOWN[what] in json.loads(found.stdout)
    lines = CliRunner().invoke(cli, ["list", what, "--match", KNOWN[what]], catch_exceptions=False, standalone_mode=False)
    assert lines.stdout.split()[0] == KNOWN[what]


def test_names_of_files_that_are_no_utf_8_are_printed(tmp_path: Path) -> None:
    """In messages, and in JSON so that whoever reads it has the name."""
    path = os.fsencode(tmp_path) + b"/\xff.yaml"
    Path(os.fsdecode(path)).write_text("edgekd: 2\n")
    command = [sys.executable, "-m", "edgekd", "check", path, "--json"]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"})
    assert done.returncode == 2
    assert b".yaml:1:9: edgekd: " in done.stderr
    (problem,) = (found for found in json.loads(done.stdout)["problems"] if found["key"] == "edgekd")
    assert os.fsencode(problem["where"]).startswith(path)
