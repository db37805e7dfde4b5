"""Write a file whole or not at all: beside it first, then under its name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whose earlier content stays until the new one is on the disk. A link stays one; its file is replaced.

    Raises:
        OSError: The disk is full, or the folder cannot be written; the earlier file is as it was.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():  # a pipe or a terminal has no earlier content
        target.write_bytes(data)
        return
    aside = target.with_name(f".{target.name[:64]}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            aside.chmod(target.stat().st_mode & 0o7777)
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write UTF-8 text as :func:`write_bytes` does; line breaks stay as they are."""
    write_bytes(path, text.encode("utf-8", errors))


def waiting(path: Path) -> Path:
    """Return what a file is called until all that is made from it has been written."""
    return path.with_name(f"unreported-{path.name}")


@contextmanager
def completing(path: Path) -> Iterator[Path]:
    """Give a result that is waiting its own name after the block, which writes the reports of it.

    So whoever finds a result finds its reports, whatever fails, and they can be made again from what is waiting.

    Yields:
        Where the result is now.
    """
    aside = waiting(path)
    yield aside if aside.is_file() else path
    if aside.is_file():
        aside.replace(path)
