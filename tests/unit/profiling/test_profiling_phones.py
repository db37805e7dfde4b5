"""Finding the adb client and choosing a phone; the rest of the transport is tested on a test phone (tests/devices)."""

from pathlib import Path

import pytest

from edgekd.errors import DeviceError
from edgekd.profiling.transports import phones

LISTED = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
R58M12ABCDE            device usb:1-4 product:beyond1 model:SM_G973F device:beyond1 transport_id:1
192.168.1.7:5555       offline transport_id:2
????????????           no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-2
0A041FDD4003KV         unauthorized usb:1-1 transport_id:7

"""


@pytest.fixture
def adb(tmp_path: Path):
    """A client that lists what it is given: phones with such states cannot be plugged in here."""

    def write(text: str) -> str:
        program = tmp_path / "adb"
        (tmp_path / "listed").write_text(text)
        program.write_text(f"#!/bin/sh\ncat '{tmp_path}/listed'\n")
        program.chmod(0o755)
        return str(program)

    return write


def test_every_state_of_a_phone_is_read():
    assert [(phone.serial, phone.state, phone.model) for phone in phones.phones(LISTED)] == [
        ("R58M12ABCDE", "device", "SM_G973F"),
        ("192.168.1.7:5555", "offline", ""),
        ("????????????", "no permissions", ""),
        ("0A041FDD4003KV", "unauthorized", ""),
    ]


@pytest.mark.parametrize(
    ("serial", "message", "hint"),
    [
        ("192.168.1.7:5555", "is offline", "plug it in again"),
        ("????????????", "may not be opened by this user", "plugdev"),
        ("0A041FDD4003KV", "does not trust this computer yet", "accept the question"),
        (None, r"there are 4 phones: R58M12ABCDE \(SM_G973F\), 192.168.1.7:5555 \(offline\)", "serial: R58M12ABCDE"),
        ("192.168.1.8:5555", "there is no phone 192.168.1.8:5555; adb sees R58M12ABCDE", "adb connect 192.168.1.8:5555"),
        ("R58", "there is no phone R58", "USB debugging"),
    ],
)
def test_a_phone_that_cannot_be_used_is_told_with_what_to_do(adb, serial, message, hint):
    with pytest.raises(DeviceError, match=message) as told:
        phones.choose(adb(LISTED), serial, "pixel")
    assert hint in told.value.hint


def test_the_only_phone_needs_no_serial(adb):
    assert phones.choose(adb("List of devices attached\nR58M\tdevice\n"), None, "pixel").serial == "R58M"


def test_without_a_client_the_message_says_what_to_install(adb, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    for name in ("ADB", "ANDROID_HOME", "ANDROID_SDK_ROOT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DeviceError, match="adb is not installed") as told:
        phones.client()
    assert "apt install adb" in told.value.hint
    program = Path(adb(LISTED))
    (tmp_path / "platform-tools").mkdir()
    program.rename(tmp_path / "platform-tools" / "adb")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    assert phones.client() == str(tmp_path / "platform-tools" / "adb")
    monkeypatch.setenv("ADB", "/no/adb")
    with pytest.raises(DeviceError, match="ADB=/no/adb is not a program"):
        phones.client()
