"""Checks that something is refused in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgekd.errors import EdgekdError


@contextmanager
def refused(what: str, kind: type[EdgekdError]) -> Iterator[None]:
    """Expect an error of edgekd with a message; an assertion says so where there is none, or another.

    Args:
        what: What should be refused, for the assertion.
        kind: The error's class.
    """
    advice = f"raise edgekd.errors.{kind.__name__}(what is wrong, what to do)"
    try:
        yield
    except Exception as error:
        if not isinstance(error, kind) or not error.message.strip():
            raise AssertionError(f"{what} raises {error!r}: {advice}") from error
    else:
        raise AssertionError(f"{what} is accepted: {advice}")
