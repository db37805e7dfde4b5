"""Load snippets: a few lines of Python, with one runtime and numpy, that reproduce the reported accuracy."""

from __future__ import annotations

from pathlib import PurePath

from edgekd.data.preprocessing import Preprocessing
from edgekd.results.models import ModelRecord
from edgekd.results.run import DataRecord
from edgekd.runtimes import base

_HEAD = """\
# {title}. Run it beside the bundle's files:
#   pip install {package} numpy
#   python load_{name}.py
# It prints {figure} on {what}: {expected}.
import numpy as np
{imports}

samples = np.load("samples.npz")
{prepared}"""

_TAIL = """
logits = np.concatenate([run(image[None]) for image in x])
print(f"top-1 {{np.mean(logits.argmax(axis=1) == {expected_classes}):.4f}}")
"""


def snippet(model: ModelRecord, data: DataRecord, *, whole: bool, labelled: bool) -> str:
    """Return the Python text that loads an artifact and prints its accuracy on the bundle's samples.

    Where they have no labels, it prints the share of them with the same top-1 as in this run.
    """
    runtime = base.of(model.format)
    lines = runtime.python
    known = model.figure("top1")
    top1 = known.value if known else None
    assert model.path is not None
    what = f"the {data.test} test images" if whole else "the bundle's first test images"
    expected = f"{top1:.4f}" if whole and top1 is not None else "close to the reported one"
    head = _HEAD.format(
        title=f"{model.name} ({model.precision}) in {runtime.label}", package=runtime.packages[0],
        name=model.name, what=what,
        figure="the top-1 accuracy" if labelled else "how often the greatest logit is the one it was when this was written",
        expected=expected if labelled else "1.0000",
        imports=lines.imports,
        prepared=Preprocessing(data.mean, data.std, data.channels).text('samples["images"]'),
    )  # fmt: skip
    to_input = "np.ascontiguousarray(image.transpose(0, 2, 3, 1))" if runtime.layout == "NHWC" else "image"
    from_output = lines.raw
    if model.inputs and model.inputs[0].dtype == "int8":
        scale, zero = model.inputs[0].scale, model.inputs[0].zero_point
        to_input = f"np.clip(np.rint({to_input} / np.float32({scale})) + {zero}, -128, 127).astype(np.int8)"
    if model.outputs and model.outputs[0].dtype == "int8":
        scale, zero = model.outputs[0].scale, model.outputs[0].zero_point
        from_output = f"({from_output}.astype(np.float32) - {zero}) * np.float32({scale})"
    return (
        head
        + lines.body.format(file=PurePath(model.path).name, to_input=to_input, from_output=from_output)
        + _TAIL.format(
            expected_classes="samples['labels']" if labelled else f"samples['logits_{model.name}'].argmax(axis=1)"
        )
    )
