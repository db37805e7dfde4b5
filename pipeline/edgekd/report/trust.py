"""Sentences of the reasons why times are not trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.results.findings import TEXT, Finding, listed
from edgekd.results.profile import Trust

PLACE = "\0"
"""Where a number goes in a phrase; no text of a report has it."""


@dataclass(frozen=True)
class Phrase:
    """A sentence with places for numbers, so that several that differ in their numbers alone become one."""

    text: str
    numbers: tuple[tuple[float, str], ...] = ()

    def __str__(self) -> str:
        return together([self])[0]


def reasons(trust: Trust) -> str:
    """Write every reason of a verdict; empty where it is trusted."""
    return "; ".join(map(sentence, trust.reasons))


def sentence(reason: Finding) -> str:
    """Write one reason."""
    return str(phrase(reason))


def summed(found: Iterable[Finding]) -> tuple[str, ...]:
    """Write reasons of several files: those that differ in their numbers alone as one, with the range of each number."""
    return together([phrase(reason) for reason in found])


def together(phrases: Sequence[Phrase]) -> tuple[str, ...]:
    """Write phrases, those of one text as one."""
    alike: dict[str, list[Phrase]] = {}
    for one in phrases:
        alike.setdefault(one.text, []).append(one)
    lines = []
    for text, same in alike.items():
        for values in zip(*(one.numbers for one in same), strict=True):
            low, high = min(values)[1], max(values)[1]
            text = text.replace(PLACE, low if low == high else f"{low} to {high}", 1)
        lines.append(text)
    return tuple(lines)


def phrase(reason: Finding) -> Phrase:
    """Return the phrase of a reason; one that this report does not know by its code and figures."""
    write = _PHRASES.get(reason.code)
    return write(reason.figures) if write else Phrase(listed(reason))


def _share(text: str, share: float) -> Phrase:
    return Phrase(text, ((share, f"{100 * share:.0f}"),))


def _drift(figures: Mapping[str, Any]) -> Phrase:
    change = figures["change"]
    return _share(f"the last block was {PLACE} % {'slower' if change > 0 else 'faster'} than the first", abs(change))


def _more_threads(figures: Mapping[str, Any]) -> Phrase:
    numbers = ((float(figures[name]), str(figures[name])) for name in ("worked", "asked"))
    return Phrase(f"{PLACE} threads worked, {PLACE} asked for", tuple(numbers))


def _other_cores(figures: Mapping[str, Any]) -> Phrase:
    asked, ran = (", ".join(map(str, sorted(figures[name]))) for name in ("asked", "ran"))
    return Phrase(f"cores: {asked} asked for, {f'it ran on {ran}' if ran else 'it could not be read where it ran'}")


def _throttled(figures: Mapping[str, Any]) -> Phrase:
    blocks: Sequence[int] = figures["blocks"]
    first, last = blocks[0], blocks[-1]
    where = f"blocks {', '.join(map(str, blocks[:-1]))} and {last}"
    if len(blocks) == 1:
        where = f"block {first}"
    elif len(blocks) > 2 and last - first + 1 == len(blocks):
        where = f"blocks {first} to {last}"
    return Phrase(f"{figures['cause']} in {where}")


def _hot(figures: Mapping[str, Any]) -> Phrase:
    text = f"{figures['what']} began at {PLACE} °C, above max_celsius {figures['limit']:g}, after {PLACE} s of waiting"
    return Phrase(text, tuple((figures[name], f"{figures[name]:.0f}") for name in ("celsius", "waited")))


_PHRASES: Mapping[str, Callable[[Mapping[str, Any]], Phrase]] = {
    TEXT: lambda figures: Phrase(str(figures["text"])),
    "drift": _drift,
    "spread": lambda figures: _share(f"the blocks differ by {PLACE} % (interquartile range over median)", figures["share"]),
    "waited": lambda figures: _share(f"the process had a CPU for only {PLACE} % of the time", figures["share"]),
    "more_threads": _more_threads,
    "other_cores": _other_cores,
    "emulated": lambda figures: Phrase("the device is emulated: its times are not the hardware's"),
    "throttled": _throttled,
    "no_temperature": lambda figures: Phrase("max_celsius is set, but the device reports no temperature"),
    "hot": _hot,
    "held_down": lambda figures: Phrase(f"the frequency governor {figures['governor']} holds the clock down"),
    "load_unknown": lambda figures: Phrase("the load of other processes on the device could not be read"),
    "other_processes": lambda figures: Phrase(
        f"other processes kept {PLACE} of {figures['cores']} cores busy", ((figures["busy"], f"{figures['busy']:.1f}"),)
    ),
    "other_machines": lambda figures: _share(
        f"the hypervisor took {PLACE} % of the CPU time for other machines", figures["share"]
    ),
}
CODES = frozenset(_PHRASES)
"""Codes of the reasons that are written here."""
