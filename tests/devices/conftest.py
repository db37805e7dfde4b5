"""The test devices, started once for each worker.

A test that cannot have them is skipped, and says why; with ``CI=true`` it fails instead: there they must be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tests.devices import lab, phone

from edgekd.devices.schema import Device

SSH = "/usr/bin/ssh"
ISA = {"pi4": ("asimd",), "pi5": ("asimd", "asimddp")}
PROGRAM = str(Path(__file__).with_name("benchmark_model.py"))
"""A stand-in for TensorFlow Lite's benchmark_model."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, which a worker would else be busy with alone at the end."""
    longest = ("test_recipe.py", "test_outputs.py", "test_phone.py", "test_doctor.py")
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


def need(reason: str) -> None:
    """End the test where something for it is missing here: skipped, on a build server failed."""
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI=true: test devices must be there", pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the devices run on is made; returns a folder for their state."""
    need(lab.lacks())
    lab.build()
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="session")
def ssh_config(machine: Path) -> Iterator[Callable[[str, str], None]]:
    """Add a host to the configuration of the ssh that edgekd finds; OpenSSH itself has no variable for it."""
    config, tools = machine / "config", machine / "bin"
    config.write_text("")
    tools.mkdir()
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {config} "$@"\n')
    (tools / "ssh").chmod(0o755)

    def add(host: str, lines: str) -> None:
        with config.open("a") as file:
            file.write(f"Host {host}\n{lines}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tools), prepend=os.pathsep)
        yield add


def _board(name: str, machine: Path, ssh_config: Callable[[str, str], None]) -> Iterator[lab.Pi]:
    pi = lab.Pi(name, machine / name)
    ssh_config(name, pi.client())
    yield pi
    pi.stop()


@pytest.fixture(scope="session")
def pi4_board(machine: Path, ssh_config: Callable[[str, str], None]) -> Iterator[lab.Pi]:
    """The Pi 4 to do things to: look into it, write to its sensors, cut its connections."""
    yield from _board("pi4", machine, ssh_config)


@pytest.fixture(scope="session")
def pi5_board(machine: Path, ssh_config: Callable[[str, str], None]) -> Iterator[lab.Pi]:
    """The Pi 5."""
    yield from _board("pi5", machine, ssh_config)


def device(name: str, **changes: object) -> Device:
    """The device that a Pi's file describes, with changes."""
    keys = {
        "edgekd": 1, "name": name, "transport": "ssh", "host": name, "description": f"test device {name}", "emulated": True,
        "arch": "aarch64", "isa": ISA[name], "python": ("python3", "python3-tflite"), "retries": 0,
    }  # fmt: skip
    return Device.model_validate(keys | changes)


@pytest.fixture(scope="session")
def pi4(pi4_board: lab.Pi) -> Device:
    """The Pi 4 as edgekd knows it."""
    return device("pi4")


@pytest.fixture(scope="session")
def pi5(pi5_board: lab.Pi) -> Device:
    """The Pi 5 as edgekd knows it."""
    return device("pi5")


@pytest.fixture(scope="session")
def adb_client(machine: Path) -> Iterator[phone.Client]:
    """The adb client that edgekd finds."""
    client = phone.Client(machine / "adb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADB", str(client.program))
        yield client
    client.ask("kill-server")


@pytest.fixture
def new_phone(adb_client: phone.Client, tmp_path: Path) -> Iterator[Callable[[str], phone.Phone]]:
    """Make a phone that is not switched on yet, to do things to."""
    made: list[phone.Phone] = []

    def make(name: str = "phone") -> phone.Phone:
        made.append(phone.Phone(adb_client, tmp_path / name))
        return made[-1]

    yield make
    for item in made:
        item.forget()


@pytest.fixture(scope="session")
def test_phone(adb_client: phone.Client, machine: Path) -> Iterator[phone.Phone]:
    """A phone that is plugged in."""
    item = phone.Phone(adb_client, machine / "phone")
    item.start()
    yield item
    item.forget()


def android(item: phone.Phone, **changes: object) -> Device:
    """The device that a phone's file describes, with changes."""
    keys = {
        "edgekd": 1, "name": "phone", "transport": "adb", "serial": item.serial, "description": "test phone",
        "emulated": True, "arch": "aarch64", "isa": ("asimd", "asimddp"), "retries": 0,
    }  # fmt: skip
    return Device.model_validate(keys | changes)


@pytest.fixture
def device_files(pi4: Device, pi5: Device, tmp_path: Path) -> Path:
    """A folder with pi4.yaml and pi5.yaml."""
    for item in (pi4, pi5):
        text = yaml.safe_dump(item.model_dump(mode="json", exclude_unset=True))
        (tmp_path / f"{item.name}.yaml").write_text(text)
    return tmp_path
