"""Options of ``edgekd quantize`` and ``edgekd export`` as arguments of the Python functions."""

from __future__ import annotations

import re
import shlex

import yaml

_NAMES = "size|normalize|channels|classes|data|weights|method|epochs|io|format|precision|device"
_MANY = {"format": "formats", "precision": "precisions", "device": "devices"}
_END = r"(?=[,;.:)]?(?:\s|$))"
_LIST = r"-?[\d.]*\d(?:,-?[\d.]*\d)*"
_VALUE = re.compile(rf"--({_NAMES}) (\d+x\d+|\d+|imagenet|half|none|{_LIST}/{_LIST}){_END}")
_SETTING = re.compile(r"""--set ('[^']*'|"[^"]*"|\S+)""")
_NAME = re.compile(rf"--({_NAMES})\b")


def in_python(text: str) -> str:
    """Return a message of a command in the words of the function.

    Example:
        >>> in_python("add --normalize imagenet, or --size 48x64")
        'add normalize="imagenet", or size=(48, 64)'
        >>> in_python("--size is not given: --set 'data.classes=3'")
        'size is not given: overrides={"data.classes": 3}'
    """
    text = _SETTING.sub(lambda found: _override(found[1]), text)
    text = _VALUE.sub(lambda found: f"{found[1]}={_value(found[2])}", text)
    return _NAME.sub(lambda found: _MANY.get(found[1], found[1]), text)


def _override(typed: str) -> str:
    key, _, value = shlex.split(typed)[0].partition("=")
    return f'overrides={{"{key}": {yaml.safe_load(value)!r}}}'


def _value(text: str) -> str:
    if text.isdecimal():
        return text
    height, x, width = text.partition("x")
    return f"({height}, {width})" if x and height.isdecimal() else f'"{text}"'
