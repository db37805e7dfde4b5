"""Load snippets: a few lines of Python, with one runtime and numpy, that reproduce the reported accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from textwrap import indent

from edgekd.bundle import samples, several
from edgekd.data.preprocessing import Preprocessing
from edgekd.results.models import ModelRecord
from edgekd.results.run import DataRecord
from edgekd.runtimes import base

_HEAD = """\
# {title}. It reads the files beside it:
#   pip install {package} numpy
#   python load_{name}.py
# It prints {figure} on {what}: {expected}.
{own}{first}from pathlib import Path

import numpy as np
{imports}

here = Path(__file__).parent
samples = np.load(here / "samples.npz")
{prepared}"""

_PREPARED = """

def prepared(images):  # uint8, N x C x H x W
{lines}    return x


x = prepared(samples["images"])
"""

_OWN = """\
# With an image of yours it prints its class, too; that needs pillow:
#   python load_{name}.py photo.jpg
"""

_CLASS = """
if len(sys.argv) > 1:
    from PIL import Image

    names = json.loads((here / "manifest.json").read_text("utf-8"))["classes"]
    image = Image.open(sys.argv[1]).convert("{mode}").resize(({width}, {height}), Image.Resampling.BILINEAR)  # width, height
    pixels = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    print(names[int(run(prepared(pixels[None])).argmax())])
"""

_CLASSES = """
logits = np.concatenate([run(image[None]) for image in x])
print(f"top-1 {{np.mean(logits.argmax(axis=1) == {expected_classes}):.4f}}")
"""

_VALUES = """
outputs = np.concatenate([run(sample[None]) for sample in x])
expected = samples["{output}"]
print(f"largest difference {{np.abs(outputs - expected).max():.3g}}, of values with a deviation of {{expected.std():.3g}}")
"""


@dataclass(frozen=True)
class Bundled:
    """Samples of a bundle: ``whole`` if they are the whole test split, with labels or without, grey or in colour."""

    whole: bool
    labelled: bool
    grey: bool


def snippet(model: ModelRecord, data: DataRecord, bundled: Bundled) -> str | None:
    """Return the Python text that loads an artifact and runs it on the bundle's samples.

    It prints the accuracy, or without labels the share with the same top-1 as in this run; of a task without classes, and of
    outputs beside the primary one, the largest difference from the outputs of this run. None with several inputs where the
    runtime has no lines for them.
    """
    wanted = "samples['labels']" if bundled.labelled else f"samples['logits_{model.name}'].argmax(axis=1)"
    head = _head(model, data, bundled)
    if several.is_for(model) and several.known(model):
        made = several.arrays(model, images=bool(data.channels))
        return head + made + several.body(model, expected=wanted if data.classes else "")
    if len(model.inputs) > 1:
        return None
    lines = base.of(model.format).python
    assert model.path is not None  # a bundle holds files; only torch models have none
    sample = "image" if data.classes else "sample"
    body = lines.body.format(
        file=PurePath(model.path).name, to_input=_to_input(model, sample), from_output=_from_output(model, lines.raw),
        input=model.inputs[0].name, sample=sample, **_taken(model),
    )  # fmt: skip
    tail = _VALUES.format(output=samples.output(model.name, classes=False))
    if data.classes:
        tail = _CLASSES.format(expected_classes=wanted)
    if _takes_images(model, data):
        height, width = data.size
        mode = "L" if bundled.grey else "RGB"
        tail += _CLASS.format(mode=mode, width=width, height=height)
    return head + body + tail


def _takes_images(model: ModelRecord, data: DataRecord) -> bool:
    """Return whether an image is all that a file takes, and its class what it gives."""
    return bool(data.channels and data.classes) and not several.is_for(model)


def _head(model: ModelRecord, data: DataRecord, bundled: Bundled) -> str:
    runtime, known = base.of(model.format), model.figure("top1")
    noun = "images" if data.channels else "samples"
    figure = "how often the greatest logit is the one it was when this was written"
    expected = "1.0000"
    if not data.classes:
        figure, expected = "the largest difference from the outputs when this was written", "about 0"
    elif bundled.labelled:
        figure = "the top-1 accuracy"
        expected = f"{known.value:.4f}" if bundled.whole and known is not None else "close to the reported one"
    return _HEAD.format(
        title=f"{model.name} ({model.precision}) in {runtime.label}", package=runtime.packages[0],
        name=model.name, what=f"the {data.test} test {noun}" if bundled.whole else f"the bundle's first test {noun}",
        figure=figure, expected=expected, imports=runtime.python.imports, prepared=_prepared(model, data, bundled),
        own=_OWN.format(name=model.name) if _takes_images(model, data) else "",
        first="import json\nimport sys\n" if _takes_images(model, data) else "",
    )  # fmt: skip


def _prepared(model: ModelRecord, data: DataRecord, bundled: Bundled) -> str:
    if data.channels:
        rule = Preprocessing(data.mean, data.std, data.channels)
        return _PREPARED.format(lines=indent(rule.text("images", grey=bundled.grey), "    "))
    if several.is_for(model) and several.known(model):
        return ""
    return f'x = samples["{samples.INPUT}{model.inputs[0].name}"]\n'


def _taken(model: ModelRecord) -> dict[str, str]:
    """What the function takes, in words, and what the file wants instead."""
    port = model.inputs[0]
    if port.layout in ("NCHW", "NHWC"):
        return {"taken": "float32, 1 x C x H x W", "wanted": "; the file wants N x H x W x C" * (port.layout == "NHWC")}
    kind = "float32" if port.scale is not None else port.dtype
    return {"taken": f"{kind}, {' x '.join(map(str, port.shape))}", "wanted": ""}


def _to_input(model: ModelRecord, sample: str) -> str:
    port = model.inputs[0]
    found = f"np.ascontiguousarray({sample}.transpose(0, 2, 3, 1))" if port.layout == "NHWC" else sample
    if port.dtype != "int8" or port.scale is None:
        return found
    return f"np.clip(np.rint({found} / np.float32({port.scale})) + {port.zero_point}, -128, 127).astype(np.int8)"


def _from_output(model: ModelRecord, raw: str) -> str:
    port = model.outputs[0]
    if port.dtype != "int8":
        return raw
    return f"({raw}.astype(np.float32) - {port.zero_point}) * np.float32({port.scale})"
