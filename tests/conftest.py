from __future__ import annotations

import fcntl
import gc
import itertools
import multiprocessing.context
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests import processes
from tests.e2e import warm
from tests.hurried import hurry

from edgekd import registry
from edgekd.exporting import idle_work

# Tests share the cores: one thread each, and threads that wait sleep. Read while torch is loaded.
for _name, _value in (("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE"), ("KMP_BLOCKTIME", "0")):
    os.environ.setdefault(_name, _value)


def pytest_collection_finish() -> None:
    """Keep the collector off what was imported: tracing makes many objects, and each collection would walk over it."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def _no_idle_work() -> Iterator[None]:
    """Tracing, too, goes without: tests trace some thousand small networks."""
    with idle_work.left_out() if "torch" in sys.modules else nullcontext():
        yield


@pytest.fixture(scope="session", autouse=True)
def _warm_processes() -> Iterator[None]:
    """Processes of training import torch once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(multiprocessing.context._concrete_contexts, "spawn", processes.Warm())  # type: ignore[attr-defined]
        yield


@pytest.fixture(scope="session", autouse=True)
def _end_server() -> Iterator[None]:
    yield
    warm.close()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Take back the threads that a run in this process has set: small networks take several times longer with two."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _hurried() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        hurry(patch.setattr)
        yield


_caches = itertools.count()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or fills the user's cache."""
    folder = tmp_path_factory.getbasetemp() / "caches" / str(next(_caches))  # mktemp would look through all before it
    folder.mkdir(parents=True)
    monkeypatch.setenv("EDGEKD_CACHE", str(folder))


def make_arrays(train: int = 80, test: int = 16, classes: int = 4, size: int = 16, channels: int = 0) -> dict[str, Any]:
    """uint8 noise with a bright bar where the class says: small, and it can be learnt. channels 0: N×H×W."""
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", train), ("test", test)):
        y = np.arange(count) % classes
        x = random.integers(0, 60, (count, size, size) + ((channels,) if channels else ()), np.uint8)
        step = size // classes
        for image, label in zip(x, y, strict=True):
            image[label * step : (label + 1) * step] += 150
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    return arrays


@pytest.fixture
def arrays() -> Callable[..., dict[str, Any]]:
    return make_arrays


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., str]:
    """Write an archive and return its recipe source; ``changes`` replace arrays, None leaves one out."""

    def write(name: str = "data.npz", changes: dict[str, Any] | None = None, **sizes: int) -> str:
        content = make_arrays(**sizes) | (changes or {})
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{key: value for key, value in content.items() if value is not None})
        return f"npz:{path}"

    return write


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes; the colour of an image tells its class and number."""
    for split, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("ant", "bee")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (20, 12), (100 * label, 10 * index, 7)).save(folder / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with float.onnx, int8.onnx, float.xml, float.tflite and cut.tflite: made once for all workers."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "nets"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            script = Path(__file__).parent / "unit" / "profiling" / "make_models.py"
            done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture
def over_ssh(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], None]:
    """Let boards behind ssh be reached in another way: the transport that is made for a device."""

    def reached(make: Callable[[Any], Any]) -> None:
        ssh: Any = registry.transports.get("ssh")
        lent = type("Lent", (ssh,), {"__new__": lambda cls, device: make(device)})  # with the keys of ssh
        monkeypatch.setitem(registry.transports._entries, "ssh", lent)

    return reached
