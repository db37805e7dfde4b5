"""The tables of docs/support.md: what edgekd has, from its registries and from the gaps of tests/conformance.

python benchmarks/support.py              # writes them; trains nothing, exports nothing
python benchmarks/support.py --measure    # asks each runtime about each operator before (5 min on 2 cores)
"""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "support.md"
OPERATORS = ROOT / "benchmarks" / "results" / "operators.json"
CONFORMANCE = ROOT / "tests" / "conformance"
SIZE, CHANNELS = 8, 4


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def precisions() -> str:
    """Precisions and formats, as the exporters say it."""
    from edgekd.exporting.exporter import Refused
    from edgekd.recipe.export import Precision
    from edgekd.registry import exporters
    from edgekd.runtimes import base

    names = exporters.names()

    def cell(format: str, precision: str) -> str:
        exporter: Any = exporters.get(format)
        found = exporter.precisions[precision]
        return f"never: {found.why}" if isinstance(found, Refused) else "yes"

    rows = [[f"`{one}`", *(cell(name, one) for name in names)] for one in get_args(Precision)]
    return table(["precision", *map(base.format_label, names)], rows)


def losses() -> str:
    """Losses and tasks: a loss runs where the task gives what it needs."""
    from edgekd.registry import losses, tasks

    names = tasks.names()

    def cell(loss: Any, task: Any) -> str:
        missing = [need for need in loss.needs if need not in task.gives]
        return f"never: needs {', '.join(missing)}" if missing else "yes"

    kinds: dict[str, Any] = {name: losses.get(name) for name in losses.names()}
    rows = [[f"`{name}`", *(cell(kind, tasks.get(task)) for task in names)] for name, kind in kinds.items()]
    return table(["loss", *(f"`{name}`" for name in names)], rows)


def operators() -> str:
    """Operators and runtimes, as :func:`measure` has found them."""
    from edgekd.runtimes import base

    found = json.loads(OPERATORS.read_text("utf-8"))
    rows = [[name, *(found["operators"][name][format] for format in found["runtimes"])] for name in found["operators"]]
    made = f"{', '.join(found['runtimes'].values())}, on {found['machine']}."
    return table(["operator", *map(base.label, found["runtimes"])], rows) + f"\n\n{made}"


def measure() -> None:
    """Export each operator in int8, between a convolution and a linear layer, and ask each runtime what it computes in."""
    import tempfile

    import torch
    from torch import nn

    from edgekd.devices import schema, targets
    from edgekd.exporting.exporter import Source
    from edgekd.quantization import qat
    from edgekd.registry import exporters

    bits = targets.weight_bits_for([schema.load("host")])
    versions: dict[str, str] = {}
    cells: dict[str, dict[str, str]] = {}
    images = torch.randn(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    for label, layer in layers():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, 1, 1), layer, nn.Flatten(), nn.LazyLinear(10)).eval()
        network(images)
        prepared = qat.prepare(network, images[:1], weight_bits=bits)
        with torch.no_grad():
            prepared.module(images)
        qat.freeze_observers(prepared.module)

        def int8(fold_weights: bool, module: Any = prepared.module) -> Any:
            return qat.convert(module, fold_weights=fold_weights)

        source = Source(network, images[:1], int8, prepared.float_ops)
        for name in exporters.names():
            with tempfile.TemporaryDirectory() as folder:
                cell, version = computed(name, source, Path(folder))
            cells.setdefault(label, {})[name] = cell
            versions[name] = version or versions.get(name, "")
        print(label, cells[label], flush=True)
    machine = f"{platform.machine()} with {bits}-bit weights"
    kept = {"machine": machine, "runtimes": versions, "operators": cells}
    OPERATORS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


def computed(name: str, source: Any, folder: Path) -> tuple[str, str]:
    """Return what a runtime computes the operator in, and the runtime's version."""
    from edgekd.errors import ExportError
    from edgekd.exporting import optimized
    from edgekd.exporting.exporter import Options
    from edgekd.quantization.naming import layer_path
    from edgekd.registry import exporters

    exporter: Any = exporters.get(name)
    try:
        exported = exporter().export(source, folder / f"net{exporter.suffix}", Options("int8", log=folder / "log"))
        graph = source.int8(fold_weights=True)
        modules = {node.name: layer_path(node) for node in graph.graph.nodes}
        found = optimized.look(exported.paths[0], name, graph, exported.float_ops, modules)
    except ExportError as error:
        return f"never: {error.message.rpartition(': ')[2]}", ""
    inside = [one for one in found.floats if not one.reason.startswith("conversion of the ")]
    return ("float32" if inside else "int8"), found.runtime


def layers() -> Iterator[tuple[str, Any]]:
    """Yield operators by the name in the table, as modules on N×4×8×8."""
    from torch import nn

    yield "conv2d", nn.Conv2d(CHANNELS, 4, 3)
    yield "conv2d, depthwise", nn.Conv2d(CHANNELS, CHANNELS, 3, groups=CHANNELS)
    yield "conv_transpose2d", nn.ConvTranspose2d(CHANNELS, 4, 2, 2)
    yield "linear, of four dimensions", nn.Linear(SIZE, 4)
    for kind in (
        nn.ReLU,
        nn.ReLU6,
        nn.LeakyReLU,
        nn.PReLU,
        nn.Sigmoid,
        nn.Tanh,
        nn.Hardsigmoid,
        nn.Hardswish,
        nn.SiLU,
        nn.GELU,
    ):
        yield kind.__name__.lower(), kind()
    yield "elu", nn.ELU()
    yield "mish", nn.Mish()
    yield "max_pool2d", nn.MaxPool2d(2)
    yield "avg_pool2d", nn.AvgPool2d(2)
    yield "adaptive_avg_pool2d, 1×1", nn.AdaptiveAvgPool2d(1)
    yield "batch_norm2d", nn.BatchNorm2d(CHANNELS)
    yield "layer_norm", nn.LayerNorm(SIZE)
    yield "group_norm", nn.GroupNorm(2, CHANNELS)
    yield "softmax", nn.Softmax(-1)
    yield "pixel_shuffle", nn.PixelShuffle(2)
    yield "upsample, nearest", nn.Upsample(scale_factor=2)
    yield "zero padding", nn.ZeroPad2d(1)
    yield "median", Of("median", lambda x: x.median(-1)[0])
    yield "sort", Of("sort", lambda x: x.sort(-1)[0])


def Of(name: str, function: Callable[[Any], Any]) -> Any:  # noqa: N802  # a class of a module, made where torch may be imported
    """Return a function as a module."""
    from torch import nn

    return type(name, (nn.Module,), {"forward": lambda self, x: function(x)})()


def gaps() -> str:
    """All gaps of edgekd's own entries."""
    from edgekd.testing import Suite

    rows = []
    for path in sorted(CONFORMANCE.glob("test_*.py")):
        for value in vars(module(path)).values():
            if isinstance(value, type) and issubclass(value, Suite) and value.name:
                for check, gap in sorted(value.gaps.items()):
                    rows.append([value.registry.noun, f"`{value.name}`", check.replace("_", " "), gap.state, gap.why])
    return table(["what", "name", "check", "state", "why"], sorted(rows))


def module(path: Path) -> Any:
    """Import a file of tests."""
    sys.path.insert(0, str(ROOT))
    try:
        spec = importlib.util.spec_from_file_location(f"conformance_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        return found
    finally:
        sys.path.remove(str(ROOT))


TABLES: dict[str, Callable[[], str]] = {"precisions": precisions, "operators": operators, "losses": losses, "gaps": gaps}


def written(page: str) -> str:
    """Return the page with its tables as they have to be."""
    for name, made in TABLES.items():
        before, rest = page.split(f"<!-- {name} -->\n", 1)
        after = rest.split(f"<!-- /{name} -->", 1)[1]
        page = f"{before}<!-- {name} -->\n{made()}\n<!-- /{name} -->{after}"
    return page


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure()
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
