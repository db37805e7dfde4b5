"""The shipped recipe ``mobilenet`` with students of other families: does each come out in int8, and does it pass?

    python tests/recipes/run.py [--students resnet18,regnet_y_400mf] [--train 1500] [--test 1000] [--processes 1] [--out DIR]

Rows are kept in results.json and made again where a file that they depend on has changed. The goal of a
row: the verdict is pass, no operation is float, and every file has learnt. The exit code is 1 if one is missed for another
reason than ``rows.KNOWN`` has.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from multiprocessing.pool import ThreadPool
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracle"), str(HERE.parent)]

import depends  # noqa: E402
import rows  # noqa: E402
import students  # noqa: E402

import soaks  # noqa: E402


def main() -> int:
    """Make the rows that are missing, write both files, and print the page."""
    known = students.STUDENTS | students.SMALL
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", default=",".join(students.STUDENTS), help=f"with commas, of: {', '.join(known)}")
    parser.add_argument("--train", type=int, default=1500, help="images to train on")
    parser.add_argument("--test", type=int, default=1000, help="images to test on")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and results.md")
    options = parser.parse_args()
    asked = options.students.split(",")
    if unknown := [name for name in asked if name not in known]:
        parser.error(f"no student is called {', '.join(unknown)}; there are {', '.join(known)}")
    path, files = options.out / "results.json", depends.digests(rows.PATTERNS)
    found = depends.kept(path, files)
    done = {(row["student"], row["train"], row["test"]) for row in found}
    missing = [name for name in asked if (name, options.train, options.test) not in done]
    with tempfile.TemporaryDirectory() as folder, ThreadPool(options.processes) as pool:
        jobs = [(name, options.train, options.test, Path(folder) / name) for name in missing]
        for row in pool.imap(lambda job: students.measured(*job), jobs):
            found.append(asdict(row))
            print(rows.line(found[-1]), flush=True)
            soaks.write(path, {"machine": soaks.machine(), "files": files, "rows": found}, rows.page)
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    return 1 if any(rows.unknown(row) for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
