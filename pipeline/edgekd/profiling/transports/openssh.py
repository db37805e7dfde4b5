"""OpenSSH's client: its command line, and what its messages mean."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from edgekd.devices.schema import Device
from edgekd.errors import DeviceError

OPTIONS = {
    "BatchMode": "yes",  # it never asks; what it would ask is told instead
    "ConnectTimeout": "5",
    "ServerAliveInterval": "4",
    "ServerAliveCountMax": "3",
    "ControlPersist": "no",
    # What the user's configuration may ask for in a terminal, and what has no place here.
    "RequestTTY": "no",
    "RemoteCommand": "none",
    "PermitLocalCommand": "no",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "LogLevel": "INFO",
}
"""Ours; everything else (user, keys, jumps, host keys) is said by the user's configuration."""
FOLDER_MAX = 70
"""Bytes that the path of the control socket's folder may have: 104 in all, of which ssh takes 17 while it makes it."""


def command(device: Device, control: str, *, master: bool) -> list[str]:
    """Return the words that start the client, up to the remote command.

    Args:
        device: Where to.
        control: Path of the control socket.
        master: Whether this is the connection that the others share.
    """
    assert device.host  # the schema refuses transport: ssh without one
    options = OPTIONS | {"ControlMaster": "yes" if master else "no", "ControlPath": control.replace("%", "%%")}
    words = ["ssh", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    if device.port is not None:
        words += ["-p", str(device.port)]
    return [*words, "--", device.host]


def quoted(words: Sequence[str]) -> str:
    r"""Return words as one line that bash, dash, zsh and fish take apart into the same words.

    In fish a backslash counts inside single quotes, in the others it does not: outside of them it is quoted on its own.

    Example:
        >>> print(quoted(["a b", "it's", "c\\d"]))
        'a b' 'it'"'"'s' 'c'"\\"'d'
    """
    return " ".join("'" + word.replace("'", "'\"'\"'").replace("\\", "'\"\\\\\"'") + "'" for word in words)


def by_hand(device: Device) -> str:
    """The command that a user types to reach a device."""
    port = f"-p {device.port} " if device.port is not None else ""
    return f"ssh {port}{shlex.quote(device.host or '')}"


_NETWORK = {
    r"Could not resolve hostname": "check the name, or write the board's address as host: in its file",
    r"Connection refused": "the board answers, but has no SSH server on that port: switch SSH on (sudo raspi-config), "
    "or correct port: in its file",
    r"timed out|No route to host|Network is unreachable|Host is down": "check that it is switched on and in this network",
}


def refusal(device: Device, said: str) -> DeviceError:
    """Say why a connection was not made, from what the client printed.

    Args:
        device: Where to.
        said: What the client printed on stderr.
    """
    where = f"{device.name} ({device.host})"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "ssh printed no reason"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        remove = next((line for line in lines if line.startswith("ssh-keygen ")), "ssh-keygen -R HOST")
        return DeviceError(
            f"{where}: its host key is not the one in known_hosts: it was set up anew, or another machine answers",
            f"if it was set up anew: {remove}   and then once: {by_hand(device)}",
        )
    if "Host key verification failed" in said:
        return DeviceError(
            f"{where}: its host key is not known here, so it could be any machine",
            f"connect once by hand, compare the fingerprint and answer yes: {by_hand(device)}",
        )
    if "Permission denied" in said or "Too many authentication failures" in said:
        return DeviceError(
            f"{where}: it does not accept your key: {last}",
            f"{by_hand(device).replace('ssh ', 'ssh-copy-id ', 1)}; a key with a passphrase must be in the agent (ssh-add). "
            f"{by_hand(device)} true must work without a question",
        )
    for pattern, hint in _NETWORK.items():
        if re.search(pattern, said):
            return DeviceError(f"{where} cannot be reached: {last}", hint)
    return DeviceError(f"{where} cannot be reached: {last}", f"this must work without a question: {by_hand(device)} true")
