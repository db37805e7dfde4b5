"""The table of docs/losses.md: what each loss compares and needs, and what it did in benchmarks/results/distill_quality.md.

python benchmarks/losses_page.py        # writes it; trains nothing
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "losses.md"
ROWS = ROOT / "benchmarks" / "results" / "distill_quality.jsonl"
PAIRS = {"resnet32x4-resnet8x4": "resnet8x4", "resnet32x4-shufflenet_v2": "shufflenet_v2"}
SEEDS = 3
READS = {
    "logits": "logits",
    "stages": "every stage",
    "last_stage": "the last stage",
    "preactivations": "every stage, before its activation",
    "embedding": "the classifier's input",
    "attention": "self-attention",
    "own_stages": "the student's own stages",
    "last_map": "the last map",
}


def table(rows: Path = ROWS) -> str:
    """One line a loss, in the order of what they compare."""
    from edgekd.registry import losses

    gains = measured(rows)
    lines = [
        f"| loss | of | compares | needs beside it | {' | '.join(f'gain: {name}' for name in PAIRS.values())} |",
        f"|---|---|---|---|{'---|' * len(PAIRS)}",
    ]
    kinds: dict[str, Any] = {name: losses.get(name) for name in losses.names() if name != "task"}
    for name, kind in sorted(kinds.items(), key=lambda item: (list(READS).index(item[1].reads), item[0])):
        cells = [f"`{name}`", source(kind), READS[kind.reads], ", ".join(needs(kind)) or "—"]
        cells += [gains.get((pair, name), "—") for pair in PAIRS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def source(kind: type) -> str:
    """Authors and year, as the first line of its docstring has them."""
    found = re.search(r"[A-Z][^\s(,]*(?: (?:&|and) [A-Z]\w+| et al\.)? (?:19|20)\d\d", (kind.__doc__ or "").splitlines()[0])
    assert found is not None, f"{kind.__name__} does not say whose it is"
    return found.group()


def needs(kind: Any) -> list[str]:
    """What a user may not have or may not want."""
    found = []
    if not kind.needs_teacher:
        found.append("no teacher")
    if kind.reads_labels:
        found.append("labels")
    if hasattr(kind, "adapter") and kind.reads != "attention":
        found.append("layers to train")
    if kind.reuses_teacher:
        found.append("the teacher's classifier, which it takes over")
    if kind.reads == "attention":
        found.append("transformers with as many tokens")
    return found


def measured(rows: Path) -> dict[tuple[str, str], str]:
    """Mean and standard deviation over the seeds of the gain over the student alone, in points, by pair and loss."""
    from edgekd.registry import losses
    from edgekd.statistics import paired

    found: dict[tuple[str, str, str], dict[int, Mapping[str, Any]]] = {}
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.setdefault((row["pair"], row["library"], row["kind"]), {})[row["seed"]] = row
    gains = {}
    for (pair, library, kind), mine in found.items():
        alone = found.get((pair, "", "alone"), {})
        # not what was measured before a default changed
        if (
            library != "edgekd"
            or kind not in losses.names()
            or not all(shipped(kind, row["options"]) for row in mine.values())
        ):
            continue
        seeds = sorted(seed for seed in mine.keys() & alone.keys() if "failed" not in mine[seed])
        if len(seeds) >= SEEDS:
            of, without = ([100 * one[seed]["test_last"] for seed in seeds] for one in (mine, alone))
            gain = paired(of, without).gain
            gains[pair, kind] = f"{gain.mean:+.1f} ± {gain.sd:.1f}"
    return gains


def shipped(kind: str, options: Mapping[str, Any]) -> bool:
    """Whether these are the options that the loss ships with."""
    from edgekd.registry import losses

    loss = losses.get(kind)()
    return all(getattr(loss, name) == value for name, value in options.items())


def main() -> None:
    before, rest = PAGE.read_text(encoding="utf-8").split("<!-- losses -->\n", 1)
    after = rest.split("<!-- /losses -->", 1)[1]
    PAGE.write_text(f"{before}<!-- losses -->\n{table()}\n<!-- /losses -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
