"""Whether two checkouts of edgekd write the same model files, byte for byte.

    python benchmarks/same_bytes.py OLD NEW [--only mobilenet byot] [--because NAME=REASON ...]

Runs in each checkout, from empty caches: recipes/mobilenet.yaml as it is, `edgekd quantize` of a ResNet-18, and every recipe
of recipes/regimes/ with one epoch a training on a tenth of the images. Both read the recipes of OLD: they are a contract. A
row is a model file with both SHA-256. Hashes are written to benchmarks/results/same_bytes.json at once, by commit, and
those of OLD's commit and of NEW's are not made again; the table goes to same_bytes.md. OLD may be given twice, which makes
its own hashes ahead. The exit code is 1 where files differ and no --because says why. Hashes hold on one machine: another
processor gives other bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from edgekd import environment
from edgekd.models.torchvision import import_torchvision

ROWS = Path(__file__).parent / "results" / "same_bytes.json"
PAGE = ROWS.with_suffix(".md")
WHOLE, QUANTIZED = "mobilenet", "resnet18"
FIRST = "black-box-teacher"  # whose file black-box learns from
SHARE = 10


@dataclass(frozen=True)
class Checkout:
    """A folder with edgekd's sources, and its commit."""

    folder: Path
    commit: str

    @classmethod
    def at(cls, folder: Path) -> Checkout:
        """Read the commit; a checkout with changes has none.

        Raises:
            SystemExit: Files that git tracks are changed.
        """
        if _git(folder, "status", "--porcelain", "--untracked-files=no"):
            raise SystemExit(f"{folder} has changes that are not committed")
        return cls(folder.resolve(), _git(folder, "rev-parse", "--short=12", "HEAD"))


def names(old: Checkout) -> list[str]:
    """What is run; a regime that another needs comes before it."""
    regimes = sorted(path.stem for path in (old.folder / "recipes" / "regimes").glob("*.yaml"))
    return [WHOLE, QUANTIZED, *sorted(regimes, key=lambda name: name != FIRST)]


def tenth(old: Checkout, path: Path) -> None:
    """Write the first tenth of the images of each split."""
    assets = old.folder / "pipeline" / "edgekd" / "assets"
    with np.load(assets / "fashion-mnist-mini" / "images.npz", allow_pickle=False) as stored:
        cut = {name: stored[name] for name in stored.files}
    np.savez(
        path, **{name: value[: len(value) // SHARE] if name[:2] in ("x_", "y_") else value for name, value in cut.items()}
    )


def weights(path: Path) -> None:
    """Write those of a ResNet-18 that nobody has trained."""
    torch.manual_seed(0)
    torch.save(import_torchvision().models.resnet18(num_classes=10).state_dict(), path)


def shortened(value: Any, images: Path) -> Any:
    """A recipe with one epoch a training, on these images."""
    if isinstance(value, list):
        return [shortened(inner, images) for inner in value]
    if not isinstance(value, dict):
        return value
    short = {"epochs": 1, "source": f"npz:{images}"}
    return {key: short[key] if key in short else shortened(inner, images) for key, inner in value.items()}


def asked(name: str, old: Checkout, work: Path) -> list[str]:
    """What is typed after ``edgekd``."""
    if name == WHOLE:
        return ["run", str(old.folder / "recipes" / f"{WHOLE}.yaml")]
    images = work / "images.npz"
    if name == QUANTIZED:
        return [
            "quantize", "torchvision:resnet18", "--weights", "resnet18.pt", "--data", f"npz:{images}", "--size", "64",
            "--normalize", "imagenet",
        ]  # fmt: skip
    recipe = yaml.safe_load((old.folder / "recipes" / "regimes" / f"{name}.yaml").read_text(encoding="utf-8"))
    path = work / "recipes" / "regimes" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(shortened(recipe, images), sort_keys=False), encoding="utf-8")
    return ["run", str(path)]


def hashes(name: str, checkout: Checkout, old: Checkout, work: Path) -> dict[str, str]:
    """Run in a checkout, from an empty cache, and return the hash of each model file by its model's name."""
    known = {
        **os.environ,
        "PYTHONPATH": str(checkout.folder / "pipeline"),
        "EDGEKD_CACHE": str(work / "caches" / name),
    }
    command = [sys.executable, "-m", "edgekd", *asked(name, old, work), "--out", "reports", "--threads", "2"]
    done = subprocess.run(command, cwd=work, env=known, check=False)
    if done.returncode not in (0, 1):  # a gate that fails is no matter here
        raise SystemExit(f"{name} in {checkout.folder}: exit code {done.returncode}")
    (result,) = (
        path for path in (work / "reports").glob("*/*/run.json") if path.parts[-3] == name and not path.parent.is_symlink()
    )
    models = json.loads(result.read_text(encoding="utf-8"))["models"]
    found = {model["name"]: model["sha256"] for model in models if model.get("sha256")}
    for model in models:
        beside = model.get("beside") or [model[key] for key in ("bin_sha256",) if model.get(key)]  # older checkouts' word
        found |= {f"{model['name']}.{number}": value for number, value in enumerate(beside, 1)}
    return found


def page(value: dict[str, Any]) -> str:
    """The rows as Markdown."""
    rows = _rows(value)
    same = sum(before == after for _, _, before, after in rows)
    lines = [
        "# The same bytes", "",
        f"Made by benchmarks/same_bytes.py: the model files of two checkouts, {' and '.join(value['commits'])}, from empty "
        f"caches on one machine ({value['machine']}). {same} of {len(rows)} files are the same.", "",
        "| run | file | before | after | |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, key, before, after in rows:
        why = "same" if before == after else value["because"].get(name, "")
        lines.append(f"| {name} | {key} | {before[:16]} | {after[:16]} | {why} |")
    return "\n".join([*lines, ""])


def _rows(value: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Run, file, and both hashes; a dash for a file that one of them did not write."""
    before, after = (value["hashes"].get(commit, {}) for commit in value["commits"])
    return [
        (name, key, before[name].get(key, "–"), after[name].get(key, "–"))
        for name in before
        if name in after
        for key in sorted({*before[name], *after[name]})
    ]


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the rows that are missing, write both files, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--because", nargs="+", default=[], metavar="NAME=REASON", help="why the files of a run differ")
    options = parser.parse_args(arguments)
    old, new = Checkout.at(options.old), Checkout.at(options.new)
    reasons = dict(text.split("=", 1) for text in options.because)
    about = environment.describe()
    machine = f"{about['cpu']}, {about['cores']} cores"
    stored = json.loads(ROWS.read_text(encoding="utf-8")) if ROWS.exists() else {}
    known = stored.get("hashes", {}) if stored.get("machine") == machine else {}
    value: dict[str, Any] = {
        "commits": [old.commit, new.commit],
        "machine": machine,
        "because": reasons,
        "hashes": {commit: known.get(commit, {}) for commit in (old.commit, new.commit)},
    }
    with tempfile.TemporaryDirectory() as temporary:
        works = [Path(temporary) / side for side in ("old", "new")]
        for work in works:
            work.mkdir()
            tenth(old, work / "images.npz")
            weights(work / "resnet18.pt")
        for name in options.only or names(old):
            for side, work in zip((old, new), works, strict=True):
                rows = value["hashes"][side.commit]
                # The first teaches the other: its file has to lie there, whoever knows its hash.
                if name not in rows or name == FIRST:
                    rows[name] = hashes(name, side, old, work)
                    ROWS.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
                    PAGE.write_text(page(value), encoding="utf-8")
    print(page(value))
    return int(any(before != after and name not in reasons for name, _, before, after in _rows(value)))


if __name__ == "__main__":
    sys.exit(main())
