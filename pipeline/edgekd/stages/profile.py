"""profile.DEVICE: the measuring protocol on one device, for every artifact. Never re-used from an earlier run."""

from __future__ import annotations

from typing import Any

from edgekd.errors import DeviceError
from edgekd.profile import device, verdicts
from edgekd.profile.records import Variant
from edgekd.profile.session import Session, measure
from edgekd.recipe import Recipe
from edgekd.records_json import to_json
from edgekd.rundir import ModelRecord
from edgekd.stages import export
from edgekd.stages.context import Context

VERSION = 1
PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert", "numpy")


def config(recipe: Recipe, name: str) -> dict[str, Any]:
    """The protocol."""
    assert recipe.profile is not None
    return recipe.profile.model_dump(mode="json")


def run(context: Context) -> None:
    """Write ``profile.json`` (records, failures, findings) and the raw samples.

    Raises:
        DeviceError: No artifact could be measured.
    """
    assert context.recipe.profile is not None
    target = device.load(context.name.removeprefix("profile."))
    artifacts = {name.removeprefix("export."): path for name, path in context.inputs.items() if name.startswith("export.")}
    exported = {name: context.read(f"export.{name}", "exported.json") for name in artifacts}
    variants = [Variant(name, exported[name]["format"], artifacts[name] / exported[name]["paths"][0]) for name in artifacts]
    variants += [
        Variant(f"{name}{export.ALL_INT8}", value["format"], artifacts[name] / value["all_int8"]["paths"][0])
        for name, value in exported.items()
        if "all_int8" in value
    ]
    bars: dict[str, Any] = {}
    with context.progress.task(f"profile on {target.name}", 100) as task:

        def report(what: str, done: int, total: int) -> None:
            share = 100 * done // max(1, total)
            task.advance(share - bars.get("done", 0) if share > bars.get("done", 0) else 0, what)
            bars["done"] = max(bars.get("done", 0), share)

        session = measure(variants, context.recipe.profile, target, context.out, report)
    if not session.profiles:
        reasons = "; ".join(f"{failure.model}: {failure.reason}" for failure in session.failures)
        raise DeviceError(f"nothing could be measured on {target.name}: {reasons}", "run again with --debug")
    context.write("profile.json", _record(session, exported, target))


def _record(session: Session, exported: dict[str, Any], target: device.Device) -> dict[str, Any]:
    records = [
        ModelRecord(
            name=name,
            role="artifact",
            format=value["format"],
            precision=export.split(name)[1],
            float_ops=tuple(value.get("float_ops", ())),
        )
        for name, value in exported.items()
    ]
    profiles = [record for record in session.profiles if not record.model.endswith(export.ALL_INT8)]
    return {
        "profiles": [to_json(record) for record in profiles],
        "all_int8": [to_json(record) for record in session.profiles if record not in profiles],
        "failures": [to_json(failure) for failure in session.failures],
        "findings": list(verdicts.findings(profiles, records, target.cpu(), target.name)),
        "notes": list(session.notes),
    }
