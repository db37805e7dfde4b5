"""Inputs for a model."""

from __future__ import annotations

from typing import Any

from .errors import UnfitError


def samples(source: Any, shape: list[Any], kind: str, grid: tuple[float, int]) -> list[Any]:
    """Values of one input to feed in turn, each as the model takes it.

    Args:
        source: Path of an .npy file or its array (rows of a batch are fed one by one), a shape, or ``None`` for the model's
            own; without a file the values are random and the same every time.
        shape: The model's input shape, ``None`` where free; empty where its rank is free, too.
        kind: numpy type the model takes, or ``string``.
        grid: (scale, zero point) of a quantized input; floats are put on it.
    """
    import numpy as np

    x = read(source)
    if x is None or isinstance(x, list):
        sides = x or [1 if side is None else side for side in shape]
        try:
            x = noise(sides, kind, grid)
        except MemoryError:
            raise UnfitError(f"an input of {sides} does not fit into the memory of this device") from None
    if x.dtype.kind == "f" and kind in ("int8", "uint8") and grid[0] > 0:
        limits = np.iinfo(kind)
        x = np.clip(np.round(x / grid[0]) + grid[1], limits.min, limits.max).astype(kind)
    rows = [x[i : i + 1] for i in range(len(x))] if shape[:1] in ([1], [None]) and x.ndim == len(shape) else [x]
    if isinstance(source, list):  # of this size, in one piece
        rows = [x]
    fits = not shape or (len(rows[0].shape) == len(shape) and all(a in (None, b) for a, b in zip(shape, rows[0].shape)))  # noqa: B905
    if not fits or ("string" if x.dtype.kind == "U" else str(x.dtype)) != kind:
        raise UnfitError(f"the model takes {kind} {shape}, the input is {x.dtype} {list(x.shape)}")
    return [np.asarray(row, order="C") for row in rows]  # ascontiguousarray gives a number a dimension


def noise(shape: list[int], kind: str, grid: tuple[float, int]) -> Any:
    """Random values of a type, the same every time; integers are 0 and 1, which are an index and a mask of any model."""
    import numpy as np

    random = np.random.default_rng(0)
    if kind.startswith("float") or grid[0] > 0:
        return random.standard_normal(shape).astype(kind if kind.startswith("float") else "float32")
    if kind not in ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))):
        raise UnfitError(f"the model takes {kind}, which edgekd cannot make up")
    return random.integers(0, 2, shape).astype(kind)


def read(source: Any) -> Any:
    """The array of an .npy file; anything else as it is."""
    import numpy as np

    return np.load(source, allow_pickle=False) if isinstance(source, str) else source


def feeds(source: Any, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """Feeds in turn: an array for each of the model's inputs, by name.

    Args:
        source: By the name of an input, or for the only one without its name: see ``samples``. An input that is not named
            has random values.
        inputs: See above, of a runtime.
    """
    named = source if isinstance(source, dict) else dict.fromkeys(inputs, source)
    if not set(named) <= set(inputs):
        raise UnfitError(f"the model takes {', '.join(inputs)}, the inputs are {', '.join(named)}")
    rows = {name: samples(named.get(name), *spec) for name, spec in inputs.items()}
    count = max(len(part) for part in rows.values())
    return [{name: part[turn % len(part)] for name, part in rows.items()} for turn in range(count)]
