"""profile.DEVICE: the measuring protocol on one device, for every artifact. Never re-used from an earlier run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgekd.assembly import beside, graphs, samples
from edgekd.assembly.context import Context
from edgekd.assembly.outputs import ALL_INT8, EvaluateOutput, ExportOutput, ProfileOutput
from edgekd.assembly.stage import Node, Work
from edgekd.devices import targets
from edgekd.errors import DeviceError
from edgekd.profiling import inspection
from edgekd.profiling.inspection import Wants
from edgekd.profiling.session import Session, measure
from edgekd.profiling.variant import Variant
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.runtimes import base
from edgekd.stages import evaluate
from edgekd.task.base import task_of
from edgekd.task.image_classification import IMAGE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgekd.evaluation.device_checks import Checked, Expected
    from edgekd.exporting.exporter import Exported


def _variants(
    exported: Mapping[str, ExportOutput], artifacts: Mapping[str, Path], feeds: Mapping[str, Path]
) -> Iterator[Variant]:
    """The artifacts, and after them the same files all in int8 where layers were given back to float.

    Args:
        exported: What was written, by artifact.
        artifacts: Their folders.
        feeds: Files of test samples, by input, in the layout of the network and with ``.NHWC`` behind its name.
    """
    files = [(name, value.file, artifacts[name]) for name, value in exported.items()]
    files += [
        (f"{name}{ALL_INT8}", value.all_int8, artifacts[name])
        for name, value in exported.items()
        if value.all_int8 is not None
    ]
    for name, value, folder in files:
        names = {part.name: f"{part.name}.NHWC" if part.layout == "NHWC" else part.name for part in value.inputs}
        inputs = {part: feeds[name] for part, name in names.items() if name in feeds}
        layouts = {part.layout for part in value.inputs}
        layout = next(iter(layouts)) if len(value.inputs) == 1 and layouts <= {"NCHW", "NHWC"} and feeds else ""
        yield Variant(name, value.format, folder / value.paths[0], inputs, layout=layout)


@dataclass(frozen=True)
class _Fed:
    """Test samples for a device.

    Attributes:
        feeds: Files of those that are fed in turn, as a network takes them, by input; none where there are none.
        places: Of these in the test split.
        counted: Places of those whose classes are found.
        labels: Of these; None without labels.
        wants: What is looked at beside times.
    """

    feeds: Mapping[str, Path]
    places: NDArray[np.int64]
    counted: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    wants: Wants

    @classmethod
    def of(cls, context: Context, folder: Path) -> _Fed:
        """Write samples from all over the split into a folder."""
        import numpy as np

        images = samples.images(context)
        test, protocol = images.test, need(context.recipe.profile, "profile")
        nothing = np.zeros(0, np.int64)
        if not len(test):
            return cls({}, nothing, nothing, None, Wants())
        places = samples.spread(len(test), samples.FED)
        stacked = test.stacked(places)
        feeds = {}
        for number, (name, x) in enumerate(graphs.named(images.purpose, images.taken(stacked)).items()):
            turned = {f"{name}.NHWC": x.transpose(0, 2, 3, 1)} if x.ndim == 4 else {}
            for key, value in {name: x, **turned}.items():
                feeds[key] = folder / f"samples{number}{'_NHWC' * (key != name)}.npy"
                np.save(feeds[key], np.ascontiguousarray(value))
        if {*stacked} != {IMAGE}:
            return cls(feeds, places, nothing, None, Wants())
        counted = samples.spread(len(test), protocol.accuracy or 0) if images.classes else nothing
        file = folder / "split.npy"
        if len(counted):
            np.save(file, np.stack([test.images[int(place)] for place in counted]))
        wants = Wants(
            preprocessing=images.preprocessing,
            encoded=tuple(inspection.encoded(list(stacked[IMAGE]), folder)),
            images=file if len(counted) else None,
        )
        return cls(feeds, places, counted, test.labels[counted] if images.test.labelled else None, wants)


def _expected(context: Context, model: str, file: Exported, images: _Fed) -> Expected:
    """What this machine and torch give for the same samples, as the stage evaluate has found it.

    Args:
        context: The stage's.
        model: Name of the artifact.
        file: Its file, whose layout the outputs have on a device.
        images: What it is fed.
    """
    import numpy as np

    from edgekd.evaluation.device_checks import Expected

    folder, figures = context.inputs["evaluate"], context.output(EvaluateOutput, "evaluate").models
    parity = figures[model].parity if model in figures else None
    if parity is None:  # a file for comparison
        return Expected()
    here, classes = np.load(folder / f"{model}.npy"), "classes" in task_of(context.recipe.task).gives
    with np.load(folder / evaluate.TORCH) as stored:
        torch = stored[parity.reference][images.places]
    primary, *_ = file.outputs

    def laid_out(found: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {port.name: base.laid_out(found[port.name], port.layout) for port in file.outputs if port.name in found}

    return Expected(
        host=laid_out({primary.name: here[images.places], **beside.fed(folder, model)}),
        torch=laid_out({primary.name: torch, **beside.fed(folder, f"{evaluate.REFERENCE}{parity.reference}")}),
        labels=images.labels,
        host_classes=here[images.counted].argmax(axis=1) if classes else None,
        classes=classes,
    )


def _record(session: Session, checked: Checked) -> ProfileOutput:
    profiles = tuple(record for record in checked.profiles if not record.model.endswith(ALL_INT8))
    return ProfileOutput(
        profiles=profiles,
        all_int8=tuple(record for record in checked.profiles if record not in profiles),
        failures=session.failures,
        findings=checked.findings,
        notes=(*session.notes, *checked.notes),
        device=session.device,
    )


class ProfileStage:
    """Figures of all files on one device."""

    name = "profile"
    version = 6
    reused = False
    optional = True

    def packages(self, name: str) -> tuple[str, ...]:
        """Name what decides its result."""
        return (*base.packages(), "numpy")

    def nodes(self, recipe: Recipe) -> Iterator[Node]:
        """Yield one for each device: it reads the files, their input, and what they give on this machine."""
        files = tuple(node.name for node in evaluate.made(recipe) if node.stage.name in ("export", "synthesize"))
        for device in recipe.profile.names if recipe.profile else ():
            yield Node(f"profile.{device}", self, (*files, "evaluate"), recipe)

    def work(self, recipe: Recipe) -> Work:
        """Measure."""
        return Work.FILES

    def config(self, recipe: Recipe, name: str) -> dict[str, Any]:
        """The protocol and the device, by its name, as paths are of no key: each device's stage has a folder of its own."""
        protocol = need(recipe.profile, "profile")
        return {**protocol.model_dump(mode="json"), "devices": [name.removeprefix("profile.")]}

    def run(self, context: Context) -> ProfileOutput:
        """Measure every file, and write the raw samples.

        Raises:
            DeviceError: No artifact could be measured.
        """
        from edgekd.evaluation import device_checks

        target = targets.named(context.recipe, context.name.removeprefix("profile."))
        artifacts = {
            name.removeprefix("export."): path for name, path in context.inputs.items() if name.startswith("export.")
        }
        exported = {name: context.output(ExportOutput, f"export.{name}") for name in artifacts}
        protocol = need(context.recipe.profile, "profile")
        shown = 0
        with TemporaryDirectory() as folder, context.progress.task(f"profile on {target.name}", 100) as task:
            images = _Fed.of(context, Path(folder))
            variants = list(_variants(exported, artifacts, images.feeds))

            def report(what: str, done: int, total: int) -> None:
                nonlocal shown
                share = 100 * done // max(1, total)
                task.advance(share - shown, what)
                shown = share

            session = measure(variants, protocol, target, context.out, report, wants=images.wants, say=context.say)
            report(f"{len(session.profiles)} of {len(variants)} files measured", 1, 1)
            expected = {name: _expected(context, name, value.file, images) for name, value in exported.items()}
            checked = device_checks.check(session, variants, target, expected, protocol.threads)
        if not session.profiles:
            reasons = "; ".join(f"{failure.model}: {failure.reason}" for failure in session.failures)
            raise DeviceError(f"nothing could be measured on {target.name}: {reasons}", "run again with --debug")
        return _record(session, checked)
