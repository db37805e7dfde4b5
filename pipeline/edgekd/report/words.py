"""Formats of numbers and foreign text: three significant digits, real minus signs, no control characters."""

from __future__ import annotations

import math
import re

NOT_MEASURED = "not measured"
NONE = "—"
"""Does not apply here (which is not the same as not measured)."""

MIB = 2**20

# What no document may carry: control characters, lone surrogates (they cannot be encoded), and the marks that
# reorder text, with which a hostile name could pretend to be another.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def plain(text: str) -> str:
    r"""Replace what cannot be printed; newlines and tabs stay.

    Example:
        >>> plain("a\x1b[31mb")
        'a�[31mb'
    """
    return _UNPRINTABLE.sub("\ufffd", text)


def one_line(text: str) -> str:
    """Return ``text`` printable and on one line."""
    return " ".join(plain(text).split())


def local(name: str) -> str:
    """Leave out the folders of this machine, which say nothing to a reader elsewhere.

    Example:
        >>> local("/home/me/net.py:Net"), local("imagefolder:/home/me/photos"), local("timm/resnet18")
        ('net.py:Net', 'imagefolder:photos', 'timm/resnet18')
    """
    return re.sub(r"(^|:)/(?:[^/:]+/)*(?=[^/:])", r"\1", name)


def shorten(text: str, length: int) -> str:
    """Cut ``text`` to ``length`` characters, with an ellipsis where something is gone."""
    return text if len(text) <= length else text[: max(1, length - 1)].rstrip() + "…"


def sig(value: float, digits: int = 3) -> str:
    """Write a number with significant digits; trailing zeros stay, they are information.

    Example:
        >>> sig(7.0), sig(0.012345), sig(12345.6), sig(-0.5), sig(0.0)
        ('7.00', '0.0123', '12,300', '−0.500', '0')
    """
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = int(exponent)
    if power < -4 or power > 8:
        return f"{mantissa}×10{str(power).translate(_SUPERSCRIPT)}".replace("-", "−")
    return f"{float(f'{mantissa}e{power}'):,.{max(0, digits - 1 - power)}f}".replace("-", "−")


def known(value: float | None) -> str | None:
    """Write a figure with three significant digits, or ``None`` where it was not measured."""
    return None if value is None else sig(value)


def apart(value: float, limit: float) -> str:
    """Write ``value`` with as many digits as it takes to look different from ``limit``, three at the least.

    Example:
        >>> apart(99.48, 99.5), apart(99.5, 99.5)
        ('99.48', '99.5')
    """
    digits = (d for d in range(3, 10) if value == limit or sig(value, d) != sig(limit, d))
    return sig(value, next(digits, 10))


def exact(value: float) -> str:
    """Write a number a person typed, such as a limit, as it was typed."""
    return f"{value:.10g}".replace("-", "−")


def percent(share: float) -> str:
    """Write a share from 0 to 1 in percent, without the sign (that stands in the header).

    Rounding never makes it look perfect: 0.99996 is 99.996, only 1 is 100.
    """
    return "100" if share == 1 else apart(share * 100, 100.0)


def signed(value: float) -> str:
    """Write a difference with its sign, three significant digits."""
    return f"+{sig(value)}" if value > 0 else sig(value)


def points(share: float) -> str:
    """Write a difference of shares in points; two decimals, as 10,000 images resolve no more.

    Example:
        >>> points(-0.0035), points(0.0), points(0.1234)
        ('−0.35', '0.00', '+12.34')
    """
    text = f"{share * 100:+.2f}"
    return "0.00" if text in {"+0.00", "-0.00"} else text.replace("-", "−")


def count(value: int) -> str:
    """Write an exact whole number with thousands separated."""
    return f"{value:,}"


def mib(size: int) -> str:
    """Write bytes in MiB, without the unit."""
    return sig(size / MIB)


def duration(seconds: float) -> str:
    """Write a wall time in the unit a person would choose.

    Example:
        >>> duration(0.4), duration(75), duration(7384)
        ('0.400 s', '1 min 15 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{sig(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plural(number: int, noun: str) -> str:
    """Write a count with its noun.

    Example:
        >>> plural(1, "gate"), plural(3, "gate")
        ('1 gate', '3 gates')
    """
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def interval(low: float, high: float) -> str:
    """Write the ends of an interval behind its estimate, with a leading space.

    Example:
        >>> interval(-0.204, 1.23), interval(98.1, 99.62)
        (' [−0.20, 1.23]', ' [98.1, 99.6]')
    """
    if 0 < max(abs(low), abs(high)) < 0.05:  # two decimals would be one digit, or none
        return f" [{sig(low, 2)}, {sig(high, 2)}]"
    digits = 1 if max(abs(low), abs(high)) >= 10 else 2
    return f" [{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")
