"""The sentences of findings: of those that a run recorded, and of those that follow from its other records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgekd.errors import joined
from edgekd.report import advice, best, facts, speed, trust
from edgekd.report.difference import LEVEL, NOT_SHOWN
from edgekd.report.metric import MetricWords, capitalized
from edgekd.report.runtime import precision
from edgekd.report.words import count
from edgekd.results.findings import TEXT, Finding, listed
from edgekd.results.mistakes import CopiedErrors
from edgekd.results.models import MetricFacts
from edgekd.results.profile import Outputs, ProfileRecord
from edgekd.results.run import RunResult
from edgekd.results.tuning import TuningRecord, word, words
from edgekd.runtimes import base


def sentences(result: RunResult) -> tuple[str, ...]:
    """Return all findings of a run, the best artifact of each device first."""
    tuned = [f"{capitalized(line)}." for line in (search(result.tuning, facts.noun(result)) if result.tuning else ())]
    baseline = search(result.baseline_tuning, facts.noun(result)) if result.baseline_tuning else ()
    tuned += [f"The baseline tuned_kd: {line}." for line in baseline]
    return (
        *best.sentences(result.profiles, result.models, result.gates, facts.label),
        *tuned,
        *mistakes(result.copied),
        *(sentence(finding, result.task.metrics) for finding in result.findings),
        *(line for profile in result.profiles for line in outputs(profile)),
        *speed.sentences(result),
    )


def sentence(finding: Finding, metrics: Sequence[MetricFacts] = ()) -> str:
    """Write a finding; one that this report does not know by its code and figures.

    Args:
        finding: The finding.
        metrics: Of the run's task.
    """
    write = _SENTENCES.get(finding.code)
    if write is not None:
        return write(finding)
    return advice.sentence(finding, metrics) or listed(finding)


def search(record: TuningRecord, noun: str = "image") -> Iterator[str]:
    """Yield what a search has chosen, and how sure that is; ``noun`` is what one of the data is called."""
    metric, chosen, first = MetricWords(record.metric), record.chosen, record.trials[0]
    gain = ""
    if first.score is not None and chosen.number != 1:
        gain = f", {metric.measured(metric.plain(first.score))} with the values as written"
    score = metric.measured(metric.plain(record.scores[chosen.number]))
    yield (
        f"tuned on {record.images:,} validation {noun}s: {words(chosen.values, record.labels)} "
        f"({score} in trial {chosen.number} of {len(record.trials)}{gain})"
    )
    if record.near:
        near = "one other trial is" if len(record.near) == 1 else f"{len(record.near)} other trials are"
        yield (
            f"{near} within one standard error ({100 * record.error:.1f} points) of the best, with "
            f"{'; '.join(_spread(record, key) for key in record.labels)}: the choice between them is mostly chance"
        )
    failed = [trial.number for trial in record.trials if trial.score is None]
    if failed:
        yield f"{len(failed)} of {len(record.trials)} trials could not be trained: {', '.join(map(str, failed))}"


def _spread(record: TuningRecord, key: str) -> str:
    """From which to which value of a key the best trials reach."""
    found = [trial.values[key] for trial in (record.chosen, *record.near)]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in found):
        low, high = min(found), max(found)
        return f"{record.labels[key]} {word(low)}" + ("" if low == high else f" to {word(high)}")
    return f"{record.labels[key]} {' or '.join(sorted({word(value) for value in found}))}"


def mistakes(records: Sequence[CopiedErrors]) -> Iterator[str]:
    """Yield how many of the teacher's mistakes the distilled student copies, and how many are the teacher's doing."""
    by_name = {record.model: record for record in records}
    distilled, alone = by_name.get("distilled"), by_name.get("student_alone")
    if distilled is None or not distilled.mistakes:
        return
    text = (
        f"The teacher is wrong on {distilled.mistakes:,} of {distilled.images:,} test images; the distilled student gives "
        f"the same wrong class on {distilled.copied:,} of them ({100 * distilled.share:.1f} %, {distilled.chance:.1f} by "
        "chance)"
    )
    if alone is None or distilled.p is None:
        yield f"{text}."
        return
    points = 100 * (distilled.share - alone.share)
    verdict = f"{abs(points):.1f} points {'more' if points > 0 else 'fewer'} with the teacher"
    if distilled.p >= LEVEL:
        verdict = f"{NOT_SHOWN}, {points:+.1f} points".replace("-", "−")
    beside = f"the student alone on {alone.copied:,} ({100 * alone.share:.1f} %)"
    yield f"{text}, {beside}: {verdict} (p = {distilled.p:.2g})."


def outputs(profile: ProfileRecord) -> Iterator[str]:
    """Yield how the outputs of a file on a device differ from a reference's by more than two correct programs do."""
    for row in profile.outputs:
        if row.differs:
            begins = f" The difference begins in {row.worst_layer}." if row.worst_layer else ""
            yield (
                f"The outputs of {profile.model} on {profile.device} differ from {_of(row.reference)}: {differs(row)} "
                f"({_distance(row)}).{begins}"
            )


def differs(row: Outputs) -> str:
    """Write how outputs differ from a reference's; empty where they do not."""
    return "; ".join(_DIFFERS[found.code](found.figures) for found in row.differs)


def _distance(row: Outputs) -> str:
    parts = [f"largest difference {row.max_error:.2g}, cosine {row.cosine:.6f}"]
    if row.p99_lsb is not None:
        parts = [f"p99 {row.p99_lsb:.3g} LSB, at most {row.max_lsb:.3g} LSB"]
    if row.agreement is not None:
        parts.append(f"the same class for {round(row.agreement * row.n)} of {row.n} samples")
    return "; ".join(parts)


def _of(reference: str) -> str:
    return "those of the same file on the host" if reference == "host" else "those of torch"


def _settings(found: Finding) -> str:
    format = found.figures["format"]
    return f"In {base.label(format) if format else found.where} on {found.figures['device']} {found.where}"


def _not_as_described(found: Finding) -> str:
    changed = joined([*found.figures["files"]])
    return f"{found.where}: {changed} is not what manifest.json beside it describes; measured as any other file is."


def _measured_again(found: Finding) -> str:
    attempt, reasons = found.figures["attempt"], "; ".join(map(trust.sentence, found.figures["reasons"]))
    which = f"attempt {attempt} of {found.figures['of']}"
    return f"{found.where}: {which}: attempt {attempt - 1} was not trusted ({reasons})"


def _by_position(found: Finding) -> str:
    takes = ", ".join(found.figures["arguments"]) or "*args"
    return (
        f"warning: no argument of forward() of {found.where} ({takes}) has the name of an input, so "
        f"{', '.join(found.figures['inputs'])} are given in this order"
    )


def _synthesized(found: Finding) -> str:
    figures = found.figures
    real = "only the test images are real" if figures["test_is_real"] else "no real image was used, not even in evaluation"
    return (
        f"All {count(figures['images'])} images of training, validation and calibration were synthesized from "
        f"{figures['norms']} batch norms of the {figures['of']}, which finds the wanted class in "
        f"{100 * figures['recognized']:.1f} % of them; {real}."
    )


_SENTENCES: Mapping[str, Callable[[Finding], str]] = {
    TEXT: lambda found: str(found.figures["text"]),
    "chance": lambda found: str(found.figures["text"]),
    "rewrite_unchecked": lambda found: (
        f"{found.where} is rewritten, and may compute something else until it is trained; so the preprocessing of its "
        "weights was not checked"
    ),
    "synthesized": _synthesized,
    "inputs_by_position": _by_position,
    "rewritten": lambda found: (
        f"The student was rewritten for int8 before distillation: {'; '.join(found.figures['changes'])}."
    ),
    "reused": lambda found: f"The student ends in the teacher's classifier: {found.figures['what']}.",
    "rewrite_left": lambda found: f"The rewrite left {found.figures['reason']}.",
    "untrained_outputs": lambda found: (
        f"No loss of the distillation reads {joined(found.figures['outputs'])}: the layers that only give "
        f"{'it' if len(found.figures['outputs']) == 1 else 'them'} are as they were before it. Ship such an output only "
        "where a task of your own trains it."
    ),
    "copied_tensors": lambda found: f"{found.figures['what']}.",
    "not_as_described": _not_as_described,
    "measured_again": _measured_again,
    "not_comparable": lambda found: (
        f"The outputs of {found.where} on {found.figures['device']} cannot be compared with "
        f"{_of(found.figures['reference'])}: {found.figures['why']}."
    ),
    "other_threads": lambda found: (
        f"{_settings(found)} ran with {found.figures['used']} threads instead of {found.figures['asked']}."
    ),
    "other_precision": lambda found: (
        f"{_settings(found)} was computed in {precision(found.figures['used'])}, although the file is "
        f"{found.figures['file']}."
    ),
    "mostly_float": lambda found: (
        f"{_settings(found)} was computed mostly in float ({precision(found.figures['used'])}), although the file is "
        f"{found.figures['file']}."
    ),
    "no_xnnpack": lambda found: f"{_settings(found)} ran without XNNPACK: no delegate took any operation.",
}

_DIFFERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    TEXT: lambda figures: str(figures["text"]),
    "lsb": lambda figures: f"p99 is {figures['p99']:.4g} LSB, more than {figures['limit']:.0f}",
    "float_error": lambda figures: (
        f"{figures['output']} is off by {figures['share']:.1e} of its deviation, more than {figures['limit']:.0e}"
    ),
    "flips": lambda figures: f"{figures['flips']} of {figures['of']} samples have another class beyond a tie",
}
CODES = frozenset((*_SENTENCES, *_DIFFERS))
"""Codes of the facts that are written here."""
