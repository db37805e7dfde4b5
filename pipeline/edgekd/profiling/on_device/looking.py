"""Outputs of a model, times of its operations, and the path from an encoded image to the answer."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import feeds

PARTS = ("decode", "preprocess", "network", "postprocess")
TOP = 5
"""Classes that the end of the path looks for."""
RUNS = 20
"""Inferences of a run that times single operations."""
PATH_MS = 1000.0
"""Milliseconds that the whole path is timed for at the most, once every image had its turn."""


def outputs(runtime: Any, rows: list[dict[str, Any]], into: str) -> dict[str, Any]:
    """Run every feed once and write all outputs to an .npz file, an array for each with a row for each feed.

    Returns:
        ``names`` in the model's order, ``arrays`` (their keys in the file), ``kinds`` (as the model gives them), and
        ``others``: names of outputs that are no real numbers, which are left out.
    """
    import numpy as np

    values, kinds, others = gathered(runtime.outputs(feed) for feed in rows)
    stored = {f"output{at}": value for at, value in enumerate(values.values())}
    np.savez(into, **stored)
    told = {"names": list(values), "arrays": list(stored), "kinds": kinds, "others": others}
    return {"path": into, "count": len(rows), **told}


def gathered(rows: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], list[str], list[str]]:
    """Put the outputs of every feed, by name, into an array for each name.

    Returns:
        The arrays, their types in the model, and the names of outputs that are no real numbers: strings, complex numbers,
        sequences, maps.
    """
    import numpy as np

    found: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    others = [name for name, parts in found.items() if not all(is_real(getattr(part, "dtype", None)) for part in parts)]
    arrays = {name: [np.asarray(part) for part in parts] for name, parts in found.items() if name not in others}
    kinds = [str(parts[0].dtype) for parts in arrays.values()]
    return {name: _stacked(parts) for name, parts in arrays.items()}, kinds, others


def is_real(kind: Any) -> bool:
    """Return whether a numpy type has real numbers; ``None`` is the type of what is no array."""
    return kind is not None and kind.kind in "biuf"


def _stacked(rows: list[Any]) -> Any:
    """Rows as one array; of different sizes (as boxes are found), each flat and filled with NaN."""
    import numpy as np

    if len({row.shape for row in rows}) == 1:
        value = np.stack(rows)
        return value.astype("float32") if value.dtype.kind == "f" else value
    longest = max(row.size for row in rows)
    filled = np.full((len(rows), longest), np.nan, "float32")
    for at, row in enumerate(rows):
        filled[at, : row.size] = row.reshape(-1)
    return filled


def operations(runtime: Any, path: str, feed: dict[str, Any], runs: int = RUNS) -> dict[str, Any]:
    """Time of each operation; see the runtimes."""
    found: dict[str, Any] = runtime.operations(path, feed, runs)
    return found


def prepared(images: Any, given: dict[str, Any]) -> Any:
    """Turn uint8 N×C×H×W into a model's float32 input, as the bundle's load snippets do.

    Args:
        images: The images.
        given: ``mean``, ``std``, ``channels``, and ``layout``: ``NCHW`` or ``NHWC``.
    """
    import numpy as np

    x = images.astype(np.float32) / np.float32(255)
    x = (x - np.asarray(given["mean"], np.float32).reshape(-1, 1, 1)) / np.asarray(given["std"], np.float32).reshape(
        -1, 1, 1
    )
    x = np.broadcast_to(x, (len(x), given["channels"], *x.shape[2:]))
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if given["layout"] == "NHWC" else x)


def answers(runtime: Any, images: str, given: dict[str, Any]) -> dict[str, Any]:
    """Find the class of each image of an .npy file (uint8, N×C×H×W); returns them in order."""
    import numpy as np

    stored = np.load(images, allow_pickle=False, mmap_mode="r")
    ((name, spec),) = runtime.inputs().items()
    found = []
    for at in range(len(stored)):
        (row,) = feeds.samples(prepared(np.asarray(stored[at : at + 1]), given), *spec)
        found.append(int(np.argmax(next(iter(runtime.outputs({name: row}).values())))))
    return {"classes": found}


def whole(runtime: Any, files: list[str], given: dict[str, Any], ms: float = PATH_MS) -> dict[str, Any]:
    """Time the parts of the way from encoded images to the best classes.

    Args:
        runtime: With its model loaded.
        files: Encoded images of the network's size.
        given: See ``prepared``.
        ms: Milliseconds that the blocks of the protocol take; a short protocol has a short look at the path.

    Returns:
        ``parts``: the median milliseconds of each; ``with``: what decoded. Or ``why`` not.
    """
    import numpy as np

    try:
        from PIL import Image, __version__
    except ImportError:
        return {"why": "there is no Pillow to decode images with"}
    encoded = [Path(file).read_bytes() for file in files]
    inputs = runtime.inputs()
    if len(inputs) != 1:
        return {"why": f"the model has {len(inputs)} inputs"}
    ((name, spec),) = inputs.items()
    rows: list[list[float]] = []
    end = time.perf_counter_ns() + min(ms, PATH_MS) * 1e6
    while len(rows) < 3 * len(encoded) or time.perf_counter_ns() < end:
        marks = [time.perf_counter_ns()]
        with Image.open(io.BytesIO(encoded[len(rows) % len(encoded)])) as image:
            pixels = np.asarray(image)
        marks.append(time.perf_counter_ns())
        pixels = pixels[None, None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)[None]
        (x,) = feeds.samples(prepared(pixels, given), *spec)
        marks.append(time.perf_counter_ns())
        logits = runtime.run({name: x})
        marks.append(time.perf_counter_ns())
        best(logits)
        marks.append(time.perf_counter_ns())
        rows.append([(marks[at + 1] - marks[at]) / 1e6 for at in range(len(PARTS))])
    counted = rows[len(encoded) :]  # after a turn to warm up
    parts = {part: float(np.median([row[at] for row in counted])) for at, part in enumerate(PARTS)}
    return {"parts": parts, "with": f"Pillow {__version__}"}


def best(logits: Any) -> list[tuple[int, float]]:
    """The most likely classes with their probabilities, as far as ``logits`` are floats."""
    import numpy as np

    values = logits.reshape(-1).astype("float32")
    shares = np.exp(values - values.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")[:TOP]
    return [(int(at), float(shares[at])) for at in order]
