"""Load snippets of files with several inputs or outputs: every input by its name, every output compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

from edgekd.bundle import samples
from edgekd.results.models import FilePort, ModelRecord
from edgekd.runtimes import base

_BODY = """

def to_file(sample):  # one sample as the network takes it: {taken}
    return {{
{inputs}
    }}


def from_file(raw):  # as the network gives them: {given}
    return {{
{outputs}
    }}


def run(sample):
    return from_file(run_file(to_file(sample)))


found = [run({{name: value[at : at + 1] for name, value in x.items()}}) for at in range(min(map(len, x.values())))]
"""
_TOP1 = """\
logits = np.concatenate([outputs["{primary}"] for outputs in found])
print(f"top-1 {{np.mean(logits.argmax(axis=1) == {expected}):.4f}}")
"""
_DIFFERENCES = """\
for name, key in {keys}.items():
    expected = samples[key]  # of the first samples, where all would be too large for the bundle
    outputs = np.concatenate([outputs[name] for outputs in found[: len(expected)]])
    off, deviation = np.abs(outputs.astype(np.float64) - expected).max(), expected.std()
    print(f"{{name}}: largest difference {{off:.3g}}, of values with a deviation of {{deviation:.3g}}")
"""


def is_for(model: ModelRecord) -> bool:
    """Return whether a file has several inputs or outputs."""
    return len(model.inputs) > 1 or len(model.outputs) > 1


def known(model: ModelRecord) -> bool:
    """Return whether its runtime has lines for such a file."""
    return bool(base.of(model.format).python.several)


def arrays(model: ModelRecord, *, images: bool) -> str:
    """Return lines that make ``x``, all samples by input; of images it is their array before.

    Args:
        model: The file.
        images: Whether its only input is images.
    """
    if images:
        return f'x = {{"{model.inputs[0].name}": x}}\n'
    keys = "".join(f'    "{port.name}": samples["{samples.INPUT}{port.name}"],\n' for port in model.inputs)
    return f"x = {{\n{keys}}}\n"


def body(model: ModelRecord, *, expected: str) -> str:
    """Return lines that load the file, run it on ``x`` and print how near its outputs are to those of the run.

    Args:
        model: The file.
        expected: Of a task with classes, the classes as an expression; empty without.
    """
    primary, *others = model.outputs
    assert model.path is not None  # only delivered files have a snippet
    names = [port.name for port in model.outputs]
    load = base.of(model.format).python.several.format(file=PurePath(model.path).name, outputs=json.dumps(names))
    text = load + _BODY.format(
        taken=_words(model.inputs), given=_words(model.outputs),
        inputs="\n".join(_lines(model.inputs, _to_file)), outputs="\n".join(_lines(model.outputs, _from_file)),
    )  # fmt: skip
    keys = {port.name: samples.output(model.name, classes=False, port=port.name) for port in others}
    if expected:
        text += _TOP1.format(primary=primary.name, expected=expected)
    else:
        keys = {primary.name: samples.output(model.name, classes=False), **keys}
    return text + (_DIFFERENCES.format(keys=json.dumps(keys)) if keys else "")


def _lines(ports: Sequence[FilePort], of: Callable[[FilePort], str]) -> Iterator[str]:
    for port in ports:
        yield f'        "{port.name}": {of(port)},'


def _to_file(port: FilePort) -> str:
    value = f'sample["{port.name}"]'
    if port.layout == "NHWC":
        value += ".transpose(0, 2, 3, 1)"
    if port.scale is not None:
        limits = "0, 255" if port.dtype == "uint8" else "-128, 127"
        value = f"np.clip(np.rint({value} / np.float32({port.scale})) {_signed(port.zero_point or 0)}, {limits})"
    return f'np.ascontiguousarray({value}, "{port.dtype}")'


def _from_file(port: FilePort) -> str:
    value = f'raw["{port.name}"]'
    if port.scale is not None:
        value = f"(({value}.astype(np.float32) {_signed(-(port.zero_point or 0))}) * np.float32({port.scale}))"
    return f"{value}.transpose(0, 3, 1, 2)" if port.layout == "NHWC" else value


def _signed(number: int) -> str:
    """Write a number that is added: ``+ 3``, ``- 3``."""
    return f"{'-' if number < 0 else '+'} {abs(number)}"


def _words(ports: Sequence[FilePort]) -> str:
    """Name ports with their types and sizes, such as ``ids (int32, 1 x 7)``."""
    found = []
    for port in ports:
        shape = [port.shape[at] for at in (0, 3, 1, 2)] if port.layout == "NHWC" else port.shape
        kind = "float32" if port.scale is not None else port.dtype
        found.append(f"{port.name} ({kind}, {' x '.join(map(str, shape))})")
    return ", ".join(found)
