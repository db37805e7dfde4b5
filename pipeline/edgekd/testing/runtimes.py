"""The conformance suite of a format: its exporter and its runtime, which have one name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.errors import ExportError, UsageError
from edgekd.exporting.exporter import Exported, Exporter, Options, Refused, Source
from edgekd.recipe.export import Precision
from edgekd.registry import exporters
from edgekd.runtimes import base
from edgekd.testing import exports
from edgekd.testing.suite import Suite
from edgekd.testing.words import refused

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
LOOSE = {"dynamic": 0.05, "int16x8": 1e-3}
"""Greatest error as a share of the output's range, of precisions that round activations as well; of others 1e-5."""
STEPS, MEAN_STEPS = 2, 0.25
"""Steps by which an output of an int8 file may differ from the int8 graph's (docs/gates.md), and all in the mean."""


class RuntimeSuite(Suite):
    """Conformance suite of formats. In two lines: ``class TestMine(RuntimeSuite): name = "mine"``.

    A precision that the exporter refuses is no gap: the check is then that it is refused in words.
    """

    registry: ClassVar[Any] = base.runtimes

    @classmethod
    def variants(cls) -> Mapping[str, Iterable[str]]:
        """All precisions that a recipe can ask for."""
        return {"precision": PRECISIONS}

    @classmethod
    def exporter(cls) -> Exporter:
        """Return the exporter of the format."""
        assert cls.name in exporters, f"no exporter is called {cls.name}: files of a runtime have to come from somewhere"
        found: Any = exporters.get(cls.name)
        return found()  # type: ignore[no-any-return]  # the registry holds classes

    @classmethod
    def runtime(cls) -> base.Runtime:
        """Return the runtime of the format."""
        return base.of(cls.name)

    @classmethod
    def export(cls, folder: Path, source: Source | None = None, precision: Precision = "float32") -> Exported:
        """Write a file."""
        exporter = cls.exporter()
        source = exports.network() if source is None else source
        return exporter.export(source, folder / f"model{exporter.suffix}", Options(precision, log=folder / "log"))

    @pytest.fixture(scope="class")
    @classmethod
    def written(cls, tmp_path_factory: pytest.TempPathFactory) -> Exported:
        """A float32 file of a small convolutional network."""
        return cls.export(tmp_path_factory.mktemp("written"))

    @classmethod
    def run(cls, exported: Exported, threads: int = 1) -> NDArray[np.float32]:
        """Return the outputs of a file for the suite's images."""
        return base.run_file(exported.paths[0], cls.name, exports.images().numpy(), threads)

    def test_facts(self) -> None:
        """Exporter and runtime fit each other, and say what they are."""
        exporter, runtime = self.exporter(), self.runtime()
        assert runtime.label, "give a label, the runtime's name in sentences"
        assert runtime.format_label, "give a format_label, the format's name in tables"
        assert runtime.layout in ("NCHW", "NHWC"), f"layout is {runtime.layout!r}: write NCHW or NHWC"
        assert exporter.suffix in runtime.suffixes, (
            f"the exporter writes {exporter.suffix}, the runtime loads {runtime.suffixes}"
        )
        odd = [suffix for suffix in runtime.suffixes if not suffix.startswith(".") or suffix != suffix.lower()]
        assert not odd, f"write these endings with a dot and in small letters: {odd}"
        taken = [name for name in base.runtimes.names() if name != self.name and exporter.suffix in base.of(name).suffixes]
        assert not taken, (
            f"{exporter.suffix} is the ending of {', '.join(taken)} already: `edgekd profile FILE` could not tell"
        )
        for one in (exporter, runtime):
            assert isinstance(one.packages, tuple), "packages is a tuple of distributions, whose versions decide the bytes"
        assert type(exporter).__doc__, "write a docstring for the exporter"
        assert type(runtime).__doc__, "write a docstring for the runtime"

    def test_lazy(self) -> None:
        """The modules import neither torch nor numpy nor the runtime: ``edgekd list formats`` is instant."""
        modules = {type(self.exporter()).__module__, type(self.runtime()).__module__}
        heavy = ["torch", "numpy", *(package.replace("-", "_") for package in self.runtime().packages)]
        own = {name.split(".")[0] for name in modules}
        script = f"import sys; {'; '.join(f'import {name}' for name in sorted(modules))}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        found = [name for name in heavy if name in done.stdout.split() and name not in own]
        assert not found, f"{' and '.join(sorted(modules))} import {', '.join(found)}: import them inside of functions"

    def test_precision(self, precision: Precision, tmp_path: Path) -> None:
        """A file of each precision is the network with the weights that it holds, or is refused with a way out."""
        exporter = self.exporter()
        assert precision in exporter.precisions, f"say Supported or Refused of {precision} in precisions"
        found = exporter.precisions[precision]
        if isinstance(found, Refused):
            assert found.why, f"say why there is no {precision}"
            assert found.instead, f"say what to use instead of {precision}"
            with refused(f"a refused precision, {precision},", ExportError):
                self.export(tmp_path, exports.network(), precision)
            return
        source = exports.quantized() if precision == "int8" else exports.network(precision)
        exported = self.export(tmp_path, source, precision)
        errors = np.abs(self.run(exported) - exports.expected(source, precision))
        error = errors.max()
        if precision == "int8":
            step = exported.output_scale
            assert step, "give `step` of each output, one int8 step of it: parity is counted in it"
            assert error <= (STEPS + 1e-3) * step, f"the file differs by {error / step:.2f} steps from the int8 graph"
            mean = errors.mean() / step
            assert mean <= MEAN_STEPS, f"outputs differ by {mean:.2f} steps in the mean: round to nearest, not down"
            return
        share = error / np.ptp(exports.expected(source, precision))
        assert share <= LOOSE.get(precision, 1e-5), (
            f"the file differs by {100 * share:.2g} % of the output's range from torch"
        )

    def test_ports(self, written: Exported) -> None:
        """The file's ports are called, shaped and typed as the exporter says, and as the runtime declares."""
        session = base.load(written.paths[0], self.name)
        told = [[port.name for port in ports] for ports in (written.inputs, written.outputs)]
        loaded = [[port.name for port in ports] for ports in (session.inputs, session.outputs)]
        assert told == loaded, f"the exporter says {told}, the session has {loaded}: give them one name"
        declared = self.runtime().declared(written.paths[0])
        assert list(declared) == loaded[0], f"declared() says {list(declared)}, the session has {loaded[0]}"
        assert session.inputs[0].dtype == "float32", f"the input of a float32 file is {session.inputs[0].dtype}"
        out = session.run({session.inputs[0].name: base.laid_out(exports.images()[:1].numpy(), self.runtime().layout)})
        assert list(out) == loaded[1], f"run returns {list(out)}, the session has outputs {loaded[1]}"
        assert next(iter(out.values())).dtype == np.float32, "run returns float32 arrays, also where the file has integers"

    def test_files(self, written: Exported) -> None:
        """All files of a model are named, exist, and are counted."""
        assert written.format == self.name, f"Exported.format is {written.format!r}: write {self.name!r}"
        found = self.runtime().files(written.paths[0])
        assert found == written.paths, f"the exporter wrote {written.paths}, files() names {found}: only these are shipped"
        size = sum(path.stat().st_size for path in written.paths)
        assert written.bytes == size, f"bytes is {written.bytes}, the files have {size}"
        assert self.runtime().check(written.paths[0]) == (), "check() finds something to say about a file of the exporter"

    def test_bytes(self, written: Exported, tmp_path: Path) -> None:
        """The same network gives the same bytes."""
        again = self.export(tmp_path)
        same = [a.read_bytes() == b.read_bytes() for a, b in zip(written.paths, again.paths, strict=True)]
        assert all(same), "two exports of one network differ: write no time, no random number and no order of a set"

    def test_samples(self, written: Exported) -> None:
        """Outputs are the caller's to keep: the next run changes none. A sample gives the same each time."""
        session = base.load(written.paths[0], self.name)
        rows = [base.laid_out(exports.images()[at : at + 1].numpy(), self.runtime().layout) for at in (0, 1, 0)]
        before, name = [row.copy() for row in rows], session.inputs[0].name
        outputs = [next(iter(session.run({name: row}).values())) for row in rows]
        np.testing.assert_array_equal(rows, before, "run changes its inputs")
        np.testing.assert_array_equal(outputs[0], outputs[2], "a sample gives another output after another: return a copy")
        assert not np.array_equal(outputs[0], outputs[1]), (
            "two samples give one output: return a copy of the runtime's array"
        )

    def test_threads(self, written: Exported) -> None:
        """Two threads give what one gives."""
        error = np.abs(self.run(written, threads=2) - self.run(written)).max()
        assert error <= 1e-5, f"two threads differ by {error:g} from one"

    def test_damaged(self, written: Exported, tmp_path: Path) -> None:
        """A damaged or foreign file is refused in words, before it is run."""
        path = tmp_path / written.paths[0].name
        for content in (b"", b"no model\n" * 50):
            path.write_bytes(content)
            with refused("a file that is no model", UsageError):
                self.runtime().check(path)
            with refused("a file that is no model", ExportError):
                base.load(path, self.name)

    def test_unquantized(self, tmp_path: Path) -> None:
        """An int8 file of a network that was not quantized is refused in words."""
        if isinstance(self.exporter().precisions["int8"], Refused):
            pytest.skip("it has no int8")
        with refused("int8 without a quantized graph", ExportError):
            self.export(tmp_path, precision="int8")
