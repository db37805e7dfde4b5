"""A transport of another package: one class and an entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.devices import schema
from edgekd.devices.targets import board
from edgekd.errors import RecipeError
from edgekd.profiling import transports
from edgekd.registry import transports as registry

LENT = """
from pydantic import BaseModel, Field

from edgekd.profiling.transports.host import Host


class Options(BaseModel):
    rack: int = Field(ge=1)


class Lent(Host):
    keys = ("python",)
    options = Options

    def __init__(self, device):
        self.rack = Options.model_validate(device.options).rack
"""


@pytest.fixture
def lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    info = tmp_path / "edgekd_lent-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgekd-lent\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgekd.transports]\nlent = edgekd_lent:Lent\n")
    (tmp_path / "edgekd_lent.py").write_text(LENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.names()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    return tmp_path


def device(folder: Path, text: str) -> schema.Device:
    path = folder / "board.yaml"
    path.write_text(text)
    return schema.load(str(path))


def test_a_device_is_reached_by_it(lent: Path) -> None:
    found = device(lent, "transport: lent\npython: [python3]\noptions: {rack: 2}\n")
    with transports.to(found) as way:
        assert way.rack == 2  # type: ignore[attr-defined]
        assert way.run(["echo", "hello"], timeout=10).out == b"hello\n"
    other = device(lent, "transport: lent\noptions: {rack: 3}\n")
    assert board(found) != board(other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("transport: lend\n", "unknown transport 'lend'\n  1 | transport: lend"),
        ("transport: lend\n", "did you mean lent?"),
        ("transport: lent\noptions: {rack: 0}\n", "options: rack: Input should be greater than or equal to 1"),
        ("transport: lent\noptions: {}\n", "options of transport: lent: rack"),
        ("transport: lent\noptions: {rack: 1, rock: 1}\n", "transport: lent has no option 'rock'"),
        ("transport: lent\noptions: {rack: 1, rock: 1}\n", "did you mean rack?"),
        ("transport: lent\nserial: a\noptions: {rack: 1}\n", "serial: is not used with transport: lent"),
        ("transport: host\noptions: {rack: 1}\n", "options: transport: host has no options"),
    ],
)
def test_mistakes_in_its_file_are_told_at_their_place(lent: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        device(lent, text)
    assert message in str(caught.value)
