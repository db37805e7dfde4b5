"""Make fashion-mnist-mini: 10,000 train and 2,000 test images of Fashion-MNIST, the same number from each class.

    apt-get install dataset-fashion-mnist
    python pipeline/edgekd/assets/make_fashion_mnist_mini.py

Takes the first images of each class in the published order, so there is nothing random in it; the same bytes come out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from edgekd.data.sources.fashion_mnist import CLASSES, read_idx

OUT = Path(__file__).parent / "fashion-mnist-mini" / "images.npz"


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices, in the published order, of the first ``count`` images of every class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in np.unique(labels)]))


def main(source: Path) -> None:
    """Write the archive beside this script."""
    arrays = {}
    for split, stem, count in (("train", "train", 1000), ("test", "t10k", 200)):
        images = read_idx(source / f"{stem}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{stem}-labels-idx1-ubyte.gz")
        keep = first_of_each_class(labels, count)
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images[keep], labels[keep]
    np.savez_compressed(OUT, classes=np.array(CLASSES), **arrays)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist"))
