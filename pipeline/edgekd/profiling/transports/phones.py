"""The user's adb client, and the phones that it sees."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import DeviceError, LostError
from edgekd.profiling.transports.local import Local

ANSWER_S = 30.0
"""Seconds that the adb client gets for an answer; the first call starts its server."""
_INSTALL = "install Android's platform-tools (Debian, Ubuntu: sudo apt install adb), or set ADB to the path of adb"
_READY = "device"
_STATES = {
    "offline": ("is offline", "unplug it and plug it in again; if that does not help: adb kill-server"),
    "unauthorized": (
        "does not trust this computer yet",
        "unlock it and accept the question `Allow USB debugging?`; if it does not ask: adb kill-server, then adb devices",
    ),
    "authorizing": ("is being connected", "wait a moment and try again"),
    "connecting": ("is being connected", "wait a moment and try again"),
    "no permissions": (
        "may not be opened by this user",
        "add yourself to the group plugdev (sudo usermod -aG plugdev $USER), install the package "
        "android-sdk-platform-tools-common, log in again and run adb kill-server",
    ),
    "bootloader": ("is in its bootloader", "start Android on it: fastboot reboot"),
    "recovery": ("is in recovery mode", "start Android on it: adb reboot"),
    "sideload": ("is in recovery mode", "start Android on it: adb reboot"),
}


@dataclass(frozen=True)
class Phone:
    """A phone as ``adb devices -l`` shows it: serial number, state and model."""

    serial: str
    state: str
    model: str = ""

    def __str__(self) -> str:
        """Serial number with what is known of it, such as ``R58M1234 (Pixel_8, unauthorized)``."""
        known = ", ".join(word for word in (self.model, "" if self.state == _READY else self.state) if word)
        return f"{self.serial} ({known})" if known else self.serial


def client() -> str:
    """Return the path of the adb client: ``$ADB``, on PATH, or in the Android SDK (``$ANDROID_HOME``).

    Raises:
        DeviceError: There is none.
    """
    chosen = os.environ.get("ADB")
    if chosen and not shutil.which(chosen):
        raise DeviceError(f"ADB={chosen} is not a program", "set ADB to the path of adb, or unset it to search PATH")
    sdks = [
        Path(sdk, "platform-tools", "adb") for key in ("ANDROID_HOME", "ANDROID_SDK_ROOT") if (sdk := os.environ.get(key))
    ]
    found = next(filter(None, map(shutil.which, [chosen or "adb", *map(str, sdks)])), None)
    if found is None:
        raise DeviceError("adb is not installed: not on PATH, nor in ANDROID_HOME/platform-tools", _INSTALL)
    return found


def listed(adb: str, local: Local | None = None) -> tuple[Phone, ...]:
    """Return all phones that the adb client sees, in any state.

    Raises:
        DeviceError: The client does not work.
    """
    done = ask([adb, "devices", "-l"], local=local)
    if done.returncode:
        raise DeviceError(f"adb devices failed: {told(done)}", "try it by hand: adb kill-server, then adb devices")
    return tuple(phones(done.stdout.decode(errors="replace")))


def phones(text: str) -> Iterator[Phone]:
    r"""Yield the phones in the output of ``adb devices -l``.

    Example:
        >>> list(phones("List of devices attached\nR58M device usb:1-1 product:x model:Pixel_8 device:shiba\n"))
        [Phone(serial='R58M', state='device', model='Pixel_8')]
    """
    _, _, rows = text.partition("List of devices attached")
    for row in rows.splitlines():
        match = re.match(r"(\S+(?: \S+)*?)\s+(no permissions|[a-z]+)\b(.*)", row.strip())
        if match:
            model = re.search(r"\bmodel:(\S+)", match[3])
            yield Phone(match[1], match[2], model[1] if model else "")


def choose(adb: str, serial: str | None, name: str, local: Local | None = None) -> Phone:
    """Return the phone to use.

    Args:
        adb: The client.
        serial: Serial number in the device file; None for the only phone there is.
        name: Name of the device file, for messages.
        local: See :func:`ask`.

    Raises:
        DeviceError: There is none, there are several, or it is not ready.
    """
    found = listed(adb, local)
    able = [phone for phone in found if phone.serial == serial] if serial else list(found)
    if not able:
        seen = f"; adb sees {', '.join(map(str, found))}" if found else "; adb sees no phone at all"
        raise DeviceError(f"{f'there is no phone {serial}' if serial else 'there is no phone'}{seen}", _plug(serial))
    if len(able) > 1:
        raise DeviceError(
            f"there are {len(able)} phones: {', '.join(map(str, able))}",
            f"write which one into devices/{name}.yaml, such as serial: {able[0].serial}",
        )
    phone = able[0]
    if phone.state != _READY:
        what, hint = _STATES.get(phone.state, (f"is in the state {phone.state}", "adb devices -l shows more"))
        raise DeviceError(f"the phone {phone.serial} {what} (adb devices: {phone.state})", hint)
    return phone


def ask(argv: Sequence[str], timeout: float = ANSWER_S, local: Local | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the adb client to its end; ``local`` are the processes of a session, without which it runs after its end, too.

    Raises:
        DeviceError: It does not answer in time or does not start.
    """
    try:
        return (local or Local()).run(argv, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise LostError(f"adb gave no answer within {timeout:.0f} s", "adb kill-server, then try again") from None
    except OSError as error:
        raise DeviceError(f"{argv[0]} does not start: {error.strerror}", _INSTALL) from error


def told(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return what the adb client said of a failure, in one line."""
    lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
    return re.sub(r"^(adb: )?(error: )?", "", " ".join(lines[-2:]))[:300] or f"exit code {done.returncode}"


def _plug(serial: str | None) -> str:
    if serial and ":" in serial:
        return f"connect it: adb connect {serial}"
    return "plug it in, unlock it, switch on USB debugging (Settings, Developer options), and see adb devices"
