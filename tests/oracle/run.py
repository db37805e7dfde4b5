"""The oracle: what edgekd says of thirty networks with five seeds each, against what is true of them.

    python tests/oracle/run.py [--networks cat,gem] [--seeds 2] [--formats onnx] [--processes 2] [--out DIR] [--no-truth]

Each network is trained, quantized and exported by ``edgekd run`` with the defaults of ``edgekd quantize``, with labels and
without. Then its int8 file and the float network see 5,000 images that edgekd has not: the true change of top-1. A network
that loses 5 points or more is destroyed, one that loses 1 at most is sound; in between, any verdict is right. Rows are kept
in results.json and made again where a file that they depend on has changed. Needs the Debian package dataset-fashion-mnist.

The exit code is 1 if a destroyed network passes or a sound one fails.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

import depends  # noqa: E402
import page  # noqa: E402

import soaks  # noqa: E402

if TYPE_CHECKING:
    from tests.e2e.warm import Server

SEEDS, LATER_SEEDS = (0, 1, 2, 3, 4), (2765, 3535, 4019, 4779, 4900)
"""Of the networks that limits were fitted on, and of the others: drawn when the limits stood."""
LOOKS = {"labels": "all", "no labels": "none"}
"""What edgekd sees of the test images, and ``data.labels`` for it."""
RECIPE = """\
edgekd: 1
data: {{source: fashion-mnist-mini, labels: {labels}, mean: {mean}, std: {std}}}
student: {{model: "{networks}:{network}", args: {{seed: {seed}}}, weights: weights.safetensors}}
quantize: {{method: ptq}}
export: [{formats}]
"""


@dataclass(frozen=True)
class Job:
    """A network with a seed, what it is exported to, and whether the unseen images are there."""

    network: str
    seed: int
    formats: tuple[str, ...]
    truth: bool = True


@dataclass(frozen=True)
class Row:
    """What edgekd said and what is true.

    Attributes:
        network: Its name.
        seed: Its seed.
        look: One of ``LOOKS``.
        formats: Files that were asked for.
        verdict: Of ``run.json``; ``none`` where there is no run folder.
        code: Exit code.
        gates: Each gate of each file as ``[name, file, limit, measured, verdict]``.
        float_top1: Of the unseen images, in float; of the test images with ``--no-truth``.
        drop: By how much top-1 of the worst file is less on them; None where no file was delivered.
        truth: ``destroyed``, ``sound``, ``between`` or, without a file or unseen images, ``unknown``.
        seconds: That the run took.
        said: Last line of standard error where no file was delivered.
    """

    network: str
    seed: int
    look: str
    formats: tuple[str, ...]
    verdict: str
    code: int
    gates: list[list[Any]]
    float_top1: float
    drop: float | None
    truth: str
    seconds: float
    said: str = ""


def jobs(networks: Sequence[str], seeds: int, formats: tuple[str, ...], truth: bool) -> Iterator[Job]:
    """Each network with its first ``seeds`` seeds; seed by seed, so that what is interrupted has seen all networks."""
    import networks as known

    for place in range(seeds):
        for name in networks or known.NETWORKS:
            yield Job(name, (LATER_SEEDS if name in known.LATER else SEEDS)[place], formats, truth)


def truth_of(drop: float | None) -> str:
    """Return what a change of top-1 on unseen images is called."""
    if drop is None:
        return "unknown"
    return "destroyed" if drop >= page.DESTROYED else "sound" if drop <= page.SOUND else "between"


def judged(job: Job, server: Server) -> list[Row]:
    """Train the network, run edgekd on it and find out the truth: a row for each of ``LOOKS``."""
    import networks
    import truth

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        network = truth.trained(networks.NETWORKS[job.network], job.seed, folder / "weights.safetensors")
        seen = truth.unseen() if job.truth else truth.samples("test")
        exact = truth.top1(truth.logits(network, seen.x), seen.y)
        rows = []
        for look in LOOKS:
            started = time.monotonic()
            code, words = ran(job, look, folder, server)
            seconds = round(time.monotonic() - started, 1)
            verdict, gates, files = found(folder / "reports" / look.replace(" ", "_") / "latest")
            int8 = [truth.top1(truth.file_logits(path, format, seen.x), seen.y) for format, path in files]
            drop = round(exact - min(int8), 4) if int8 else None
            known = truth_of(drop if job.truth else None)
            row = Row(job.network, job.seed, look, job.formats, verdict, code, gates, round(exact, 4), drop, known, seconds)
            rows.append(row if files else replace(row, said=words))
    return rows


def ran(job: Job, look: str, folder: Path, server: Server) -> tuple[int, str]:
    """Run edgekd in a folder with the weights; its exit code and the last line of standard error."""
    import truth

    name = look.replace(" ", "_")
    text = RECIPE.format(
        labels=LOOKS[look], mean=list(truth.SECTION.mean or ()), std=list(truth.SECTION.std or ()),
        networks=HERE / "networks.py", network=job.network, seed=job.seed, formats=", ".join(job.formats),
    )  # fmt: skip
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    environment = {**os.environ, "EDGEKD_CACHE": str(folder / "cache"), "COLUMNS": "120"}
    with tempfile.TemporaryDirectory() as output:
        command = ("run", f"{name}.yaml", "--threads", "1", "--out", "reports")
        code, _, error = server.run(command, folder, environment, Path(output))
    return code, soaks.last_line(error)


def found(folder: Path) -> tuple[str, list[list[Any]], list[tuple[str, Path]]]:
    """Read a run folder: the verdict, the gates as in ``Row``, and the format and path of each int8 file."""
    if not (folder / "run.json").is_file():
        return "none", [], []
    from edgekd.results.run import read_run

    result = read_run(folder)
    files = [
        (model.format, folder / model.path)
        for model in result.models
        if model.role == "artifact" and model.precision == "int8" and model.path
    ]
    return result.verdict, soaks.gates(result), files


_server: list[Server] = []


def _start() -> None:
    if _server:
        return
    import torch

    sys.path.append(str(HERE.parent / "e2e"))
    from warm import Server

    torch.set_num_threads(1)
    _server.append(Server())


def _work(job: Job) -> list[Row]:
    return judged(job, _server[0])


@contextmanager
def _working(processes: int) -> Iterator[Callable[[Sequence[Job]], Iterator[list[Row]]]]:
    """Do jobs in as many processes, as they are ready; alone, this process does them."""
    if processes == 1:
        _start()
        yield partial(map, _work)
        return
    with multiprocessing.get_context("spawn").Pool(processes, _start) as pool:
        yield partial(pool.imap_unordered, _work)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the rows that are missing, write both files, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="", help="names, with commas; all")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), choices=range(1, len(SEEDS) + 1))
    parser.add_argument("--formats", default="onnx", help="names, with commas")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--no-truth", action="store_true", help="do without the images that edgekd never sees")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and results.md")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    path, files = options.out / "results.json", depends.digests()
    rows = [Row(**row | {"formats": tuple(row["formats"])}) for row in depends.kept(path, files)]
    formats = tuple(options.formats.split(","))
    done = {(row.network, row.seed, row.formats) for row in rows}
    asked = [name for name in options.networks.split(",") if name]
    wanted = jobs(asked, options.seeds, formats, not options.no_truth)
    missing = [job for job in wanted if (job.network, job.seed, job.formats) not in done]
    with _working(options.processes) as work:
        for made in work(missing):
            rows += made
            for row in made:
                print(page.line(asdict(row)), flush=True)
            rows.sort(key=lambda row: (row.network, row.seed, row.look))
            value = {"machine": soaks.machine(), "files": files, "rows": [asdict(row) for row in rows]}
            soaks.write(path, value, page.page)
    print(page.table([asdict(row) for row in rows]))
    return 1 if page.wrong([asdict(row) for row in rows]) else 0


if __name__ == "__main__":
    sys.exit(main())
