"""manifest.json: the files of a bundle with their hashes, and how their input is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekd.reads import file_sha256
from edgekd.results.codec import to_json
from edgekd.results.models import ModelRecord, TaskFacts
from edgekd.results.run import DataRecord
from edgekd.results.upgrade import SCHEMA


def copy(source: Path, target: Path) -> tuple[str, str, int]:
    """Copy a file into the bundle; returns (path relative to the run folder, sha256, bytes)."""
    shutil.copyfile(source, target)
    return f"{target.parent.name}/{target.name}", file_sha256(target), target.stat().st_size


def write(folder: Path, task: TaskFacts, data: DataRecord, models: Sequence[ModelRecord]) -> None:
    """Write ``manifest.json``: of all files that are in ``folder`` now, and of the models that were delivered."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    preprocessing = None if data.inputs is not None else {
        "order": "float32(image) / 255, minus mean, divided by std, per channel; grey images repeated to all channels",
        "mean": data.mean, "std": data.std, "channels": data.channels, 
        "image_size": data.image_size if data.image_width is None else data.size,
    }  # fmt: skip
    # In run.json a path starts at the run folder; here at this file, so that a copy of the folder is right.
    artifacts = [
        to_json(replace(model, path=Path(model.path).name))
        for model in models
        if model.role == "artifact" and model.path is not None
    ]
    value = {
        "schema": SCHEMA,
        "task": to_json(task),
        "classes": data.classes,
        "preprocessing": preprocessing,
        "artifacts": artifacts,
        "files": files,
    }
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
