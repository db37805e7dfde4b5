"""How often comparisons are right: a file against itself, and against one that is really 10 % slower.

    python tests/protocol/run.py [--sessions 100] [--out DIR]

Each session measures both in turns and compares them with 99 % intervals. Rows are kept in results.json and made again where
a file that they depend on has changed. The exit code is 1 if a file against itself is called a difference in more than 5 of
100 sessions, or the slower one is called slower in fewer than 80.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "oracle"), str(HERE.parent)]

import depends  # noqa: E402
import study  # noqa: E402
import summary  # noqa: E402

import soaks  # noqa: E402


def main() -> int:
    """Make the rows that are missing, write both files, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and results.md")
    options = parser.parse_args()
    path, files = options.out / "results.json", depends.digests(summary.PATTERNS)
    rows = depends.kept(path, files)
    more = study.multiplications(study.LAYERS + 1) / study.multiplications(study.LAYERS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths, before = study.write_networks(folder), None
        for number in range(len(rows), options.sessions):
            began = time.monotonic()
            now = study.session(paths, folder / str(number))
            rows.append(asdict(study.row(number, now, before, time.monotonic() - began)))
            before = now
            print(number, *rows[-1]["same"], *rows[-1]["slower"], f"({rows[-1]['seconds']} s)", flush=True)
            value = {"machine": soaks.machine(), "files": files, "multiplications": round(more, 4), "rows": rows}
            soaks.write(path, value, summary.page)
    print(summary.page(json.loads(path.read_text(encoding="utf-8"))))
    return 1 if summary.missed(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
