"""Load and run each file once when it is written: a file that its runtime refuses is an error of the export.

Converters write operators that no runtime has (a sort in TensorFlow Lite), and some of these are only noticed when they run.
"""

from __future__ import annotations

from edgekd.export import runtimes
from edgekd.export.capture import captured
from edgekd.export.causes import explain
from edgekd.export.exporter import Exported, Options, Source


def run_once(exported: Exported, source: Source, options: Options) -> None:
    """Run a written file with the example of its source.

    Args:
        exported: The file.
        source: What it was written from; its graph says where an operator is.
        options: How it was written.

    Raises:
        ExportError: Its runtime cannot load or run it.
    """
    path = exported.paths[0]
    with captured(options.log, f"running {path.name}"):
        try:
            runtimes.load(path, exported.format).run(source.example.numpy())
        except Exception as error:  # runtimes raise their own kinds
            graph = source.graph(options.precision)
            raise explain(error, f"running {path.name}", exported.format, graph, options.log) from error
