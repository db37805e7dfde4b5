"""The sentences of findings: of those that a run recorded, and of those that follow from its other records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgekd.profiling import best
from edgekd.report import facts
from edgekd.report.metric import MetricWords, capitalized
from edgekd.report.words import count
from edgekd.results.findings import TEXT, Finding
from edgekd.results.mistakes import CopiedErrors
from edgekd.results.run import RunResult
from edgekd.results.tuning import TuningRecord, word, words


def sentences(result: RunResult) -> tuple[str, ...]:
    """Return all findings of a run, the best artifact of each device first."""
    tuned = [f"{capitalized(line)}." for line in (search(result.tuning) if result.tuning else ())]
    baseline = search(result.baseline_tuning) if result.baseline_tuning else ()
    tuned += [f"The baseline tuned_kd: {line}." for line in baseline]
    return (
        *best.sentences(result.profiles, result.models, result.gates, facts.label),
        *tuned,
        *mistakes(result.copied),
        *map(sentence, result.findings),
    )


def sentence(finding: Finding) -> str:
    """Write a finding; one that this report does not know by its code and figures."""
    write = _SENTENCES.get(finding.code)
    if write is not None:
        return write(finding.figures)
    listed = ", ".join(f"{name} {value}" for name, value in finding.figures.items())
    return f"{finding.code}: {listed}" if listed else finding.code


def search(record: TuningRecord) -> Iterator[str]:
    """Yield what a search has chosen, and how sure that is."""
    metric, chosen, first = MetricWords(record.metric), record.chosen, record.trials[0]
    gain = ""
    if first.score is not None and chosen.number != 1:
        gain = f", {metric.measured(metric.plain(first.score))} with the values as written"
    score = metric.measured(metric.plain(record.scores[chosen.number]))
    yield (
        f"tuned on {record.images:,} validation images: {words(chosen.values, record.labels)} "
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
    doubt = "" if distilled.p < 0.05 else ", which may be chance"
    beside = f"the student alone on {alone.copied:,} ({100 * alone.share:.1f} %)"
    yield f"{text}, {beside}: {verdict}{doubt} (p = {distilled.p:.2g})."


def _synthesized(figures: Mapping[str, Any]) -> str:
    real = "only the test images are real" if figures["test_is_real"] else "no real image was used, not even in evaluation"
    return (
        f"All {count(figures['images'])} images of training, validation and calibration were synthesized from "
        f"{figures['norms']} batch norms of the {figures['of']}, which finds the wanted class in "
        f"{100 * figures['recognized']:.1f} % of them; {real}."
    )


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    TEXT: lambda figures: str(figures["text"]),
    "synthesized": _synthesized,
    "rewritten": lambda figures: f"The student was rewritten for int8 before distillation: {'; '.join(figures['changes'])}.",
    "reused": lambda figures: f"The student ends in the teacher's classifier: {figures['what']}.",
    "rewrite_left": lambda figures: f"The rewrite left {figures['reason']}.",
    "copied_tensors": lambda figures: f"{figures['what']}.",
    "advice": lambda figures: f"Advice: {figures['text']}.",
}
