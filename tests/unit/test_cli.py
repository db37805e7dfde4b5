from __future__ import annotations

import json

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
