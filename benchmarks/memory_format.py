"""Is training in channels-last layout faster on this CPU? One step of each, in turns.

    python benchmarks/memory_format.py [--model mobilenet_v2] [--rounds 20] [--threads 2]

Prints the ratio of the medians, channels last over contiguous, for a float step as distillation takes it. Writes
benchmarks/results/memory_format.md.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from edgekd.models.torchvision import import_torchvision

RESULT = Path(__file__).parent / "results" / "memory_format.md"


def step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Seconds that one forward and backward pass takes."""
    began = time.perf_counter()
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]  # torch ships no type for it
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["mobilenet_v2", "resnet18"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = [
        "# Training step: channels last against contiguous",
        "",
        f"Made by `python benchmarks/memory_format.py`: batch 64 of 3×32×32, {args.rounds} steps of each in turns, "
        f"{args.threads} threads, torch {torch.__version__}, {platform.machine()}.",
        "",
        "| model | channels last / contiguous (ratio of medians) | quartiles of the pairs' ratios |",
        "|---|---|---|",
    ]
    for name in args.model:
        images, labels = torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))
        models = [import_torchvision().models.get_model(name, num_classes=10).to(memory_format=layout) for layout in LAYOUTS]
        batches = [images.contiguous(memory_format=layout) for layout in LAYOUTS]
        times: list[list[float]] = [[], []]
        for index in range(args.rounds + 3):
            for which in (0, 1) if index % 2 else (1, 0):
                seconds = step(models[which], batches[which], labels)
                if index >= 3:  # the first rounds warm up
                    times[which].append(seconds)
        ratio = statistics.median(times[0]) / statistics.median(times[1])
        low, _, high = statistics.quantiles([last / first for last, first in zip(*times, strict=True)], n=4)
        lines.append(f"| {name} | {ratio:.2f} | {low:.2f} to {high:.2f} |")
        print(lines[-1], flush=True)
    RESULT.write_text("\n".join(lines) + "\n")


LAYOUTS = (torch.channels_last, torch.contiguous_format)

if __name__ == "__main__":
    main()
