"""profile.DEVICE: the measuring protocol on one device, for every artifact. Never re-used from an earlier run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd.devices import targets
from edgekd.errors import DeviceError
from edgekd.profiling.measured import Variant
from edgekd.profiling.session import Session, measure
from edgekd.recipe import Recipe
from edgekd.records_json import to_json
from edgekd.stages import export, training
from edgekd.stages.context import Context

VERSION = 3
PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert", "numpy")
IMAGES = 8
"""Test images that every artifact is fed in turn: a handful, as a figure on one image would be that image's."""


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """The protocol; devices by name, as paths are of no key."""
    assert recipe.profile is not None
    return {**recipe.profile.model_dump(mode="json"), "devices": recipe.profile.names}


def run(context: Context) -> None:
    """Write ``profile.json`` (records, failures, notes, the device) and the raw samples.

    Raises:
        DeviceError: No artifact could be measured.
    """
    assert context.recipe.profile is not None
    target = targets.named(context.recipe, context.name.removeprefix("profile."))
    artifacts = {name.removeprefix("export."): path for name, path in context.inputs.items() if name.startswith("export.")}
    exported = {name: context.read(f"export.{name}", "exported.json") for name in artifacts}
    bars: dict[str, Any] = {}
    with TemporaryDirectory() as folder, context.progress.task(f"profile on {target.name}", 100) as task:
        variants = list(_variants(exported, artifacts, _feeds(context, Path(folder))))

        def report(what: str, done: int, total: int) -> None:
            share = 100 * done // max(1, total)
            task.advance(share - bars.get("done", 0) if share > bars.get("done", 0) else 0, what)
            bars["done"] = max(bars.get("done", 0), share)

        session = measure(variants, context.recipe.profile, target, context.out, report)
    if not session.profiles:
        reasons = "; ".join(f"{failure.model}: {failure.reason}" for failure in session.failures)
        raise DeviceError(f"nothing could be measured on {target.name}: {reasons}", "run again with --debug")
    context.write("profile.json", _record(session))


def _variants(exported: Mapping[str, Any], artifacts: Mapping[str, Path], feeds: Mapping[str, Path]) -> Iterator[Variant]:
    """The artifacts, and after them the same files all in int8 where layers were given back to float.

    Args:
        exported: ``exported.json``, by artifact.
        artifacts: Their folders.
        feeds: Files of test images, by layout.
    """
    files = [(name, value, artifacts[name]) for name, value in exported.items()]
    files += [
        (f"{name}{export.ALL_INT8}", value["all_int8"], artifacts[name])
        for name, value in exported.items()
        if "all_int8" in value
    ]
    for name, value, folder in files:
        inputs = {part["name"]: feeds[part["layout"]] for part in value["inputs"] if part["layout"] in feeds}
        yield Variant(name, value["format"], folder / value["paths"][0], inputs)


def _feeds(context: Context, folder: Path) -> dict[str, Path]:
    """Write test images from all over the split, as a network takes them (float32), by layout; none where there are none."""
    import numpy as np

    from edgekd import data

    images = training.images(context)
    if not len(images.test):
        return {}
    places = np.unique(np.linspace(0, len(images.test) - 1, IMAGES).round().astype(int))
    stacked = np.stack([images.test.images[int(place)] for place in places])
    x = data.preprocess(stacked, images.mean, images.std, images.channels)
    found = {layout: folder / f"images_{layout}.npy" for layout in ("NCHW", "NHWC")}
    np.save(found["NCHW"], x)
    np.save(found["NHWC"], np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    return found


def _record(session: Session) -> dict[str, Any]:
    profiles = [record for record in session.profiles if not record.model.endswith(export.ALL_INT8)]
    return {
        "profiles": [to_json(record) for record in profiles],
        "all_int8": [to_json(record) for record in session.profiles if record not in profiles],
        "failures": [to_json(failure) for failure in session.failures],
        "notes": list(session.notes),
        "device": to_json(session.device),
    }
