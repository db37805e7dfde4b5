"""Fingerprints of the samples: one hash for a data section, one for the files of a source."""

from __future__ import annotations

import hashlib
import json
import os

from edgekd import reads
from edgekd.data.sources.base import Versioned, source_of
from edgekd.errors import DataError
from edgekd.recipe.data import Data
from edgekd.recipe.source import parts


def of(data: Data) -> str:
    """Hash of everything that decides the images: the files' bytes and the recipe's ``data`` section without its paths.

    A folder is told by the names, sizes and bytes of its images. torchvision's data sets are told by name and version, for
    torchvision checks its downloads itself.
    """
    source, place = source_of(data)
    unset = {"class_order"} if data.class_order is None else set()  # a key that is newer than many a cache
    settings = data.model_dump(mode="json", exclude={"source", "root", "download", *unset})
    digest = hashlib.sha256(json.dumps([parts(data.source)[0], settings], sort_keys=True).encode())
    if isinstance(source, Versioned):
        digest.update(source.version(place).encode())
    for name, content in _hashed(data.source):
        digest.update(name + b"\0" + content)
    return digest.hexdigest()


def files_sha256(source: str) -> str:
    """Hash of a source's files, by their names in it and their bytes.

    Raises:
        DataError: They are not there, or cannot be read.
    """
    return hashlib.sha256(b"".join(name + b"\0" + content for name, content in _hashed(source))).hexdigest()


def _hashed(source: str) -> list[tuple[bytes, bytes]]:
    """Name and SHA-256 of each file of a source; of a process once, while size, times and place of all stay."""
    reader, place = source_of(source)
    files = reader.files(place)
    state = reads.state(path for _, path in files)
    known = _contents.get(source)
    if known is not None and state == known[0]:
        return known[1]
    found = []
    for name, path in files:
        try:
            with reads.in_key(path), path.open("rb") as file:
                found.append((os.fsencode(name), hashlib.file_digest(file, "sha256").digest()))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}", "correct its permissions, or remove it") from error
    if state:
        _contents[source] = state, found
    return found


_contents: dict[str, tuple[str, list[tuple[bytes, bytes]]]] = {}
"""What was hashed in this process, and the state of its files then."""
