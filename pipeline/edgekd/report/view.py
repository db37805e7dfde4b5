"""RunResult → page model: the verdict, the four numbers, and the sections in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.errors import joined
from edgekd.profiling import verdicts
from edgekd.report import facts, measured
from edgekd.report.difference import NOT_SHOWN, between
from edgekd.report.metric import MetricWords
from edgekd.report.page import Number, Page, Section, Tone
from edgekd.report.sections import comparison, device, evidence, layers, quality, seeds, tuning
from edgekd.report.verdict import verdict
from edgekd.report.words import count, duration, local, mib, one_line, plural, sig
from edgekd.results.models import ModelRecord
from edgekd.results.profile import ProfileRecord
from edgekd.results.run import RunResult

LEAST_MEMORY = 0.01
"""Share by which peak memory must be less to be marked as a gain; below that it is noise."""


def build(result: RunResult) -> Page:
    """Make the page of a run.

    Example:
        >>> from edgekd.results.run import read_run
        >>> page = build(read_run(Path("reports/mobilenet/latest")))  # doctest: +SKIP
    """
    if result.kind == "profile":
        return measured.page(result)
    found = verdict(result)
    quiet = "Nothing needs an explanation." if result.verdict == "pass" else "Nothing besides the verdict."
    possible = (
        quality.models(result),
        *evidence.pictures(result),
        seeds.section(result),
        quality.tradeoff(result),
        quality.accuracy(result),
        *device.overview(result),
        *device.sections(result),
        *comparison.sections(result),
        evidence.findings(result, quiet),
        quality.parity(result),
        layers.section(result),
        tuning.section(result),
        evidence.training(result),
        evidence.files(result),
        evidence.provenance(result),
    )
    sections = tuple(section for section in possible if _asked_for(result, section))
    return Page(
        name=one_line(result.name),
        story=story(result),
        meta=_meta(result),
        verdict=found,
        subject=_subject(result),
        numbers=_numbers(result),
        sections=(*sections, evidence.omissions(result, sections, found.failures)),
    )


def _asked_for(result: RunResult, section: Section) -> bool:
    """Return whether a section without data is worth a line: what the recipe does not ask for is not missing."""
    wanted = {
        "pareto": facts.profiled(result) and facts.judge(result) is not None,
        "accuracy": facts.judge(result) is not None,
        "training": facts.trained(result),
        "tuning": bool(facts.section_of(result, "tune")),
        "seeds": bool(result.seeds),
        "layers": bool(facts.quantization(result)),
    }
    if section.id.startswith("device"):
        return facts.profiled(result)
    return not section.missing or wanted.get(section.id, True)


def story(result: RunResult) -> str:
    """Say in one sentence which network was made from which."""
    student, data = (facts.section_of(result, name) for name in ("student", "data"))
    teacher = _teacher(facts.section_of(result, "teacher"))
    source = local(one_line(str(data.get("source", result.data.source))))
    if not student:
        return f"{teacher or 'a model'} trained on {source}."
    peers = facts.section_of(result, "distill").get("peers") or ()
    own = [loss["kind"] for loss in facts.section_of(result, "distill").get("losses", ()) if loss["weight"]]
    trained = _without_teacher(own) if own else "as given, measured"
    how = f"distilled from {teacher}" if teacher else trained
    if peers:
        how = f"trained together with {joined([_network(peer) for peer in peers])}, each the others' teacher,"
    method = facts.quantization(result)
    bits = f", int8 by {method}" if method else ""
    return f"{_network(student)} {how} on {source}{bits}."


def _without_teacher(kinds: Sequence[str]) -> str:
    """How a student was trained that nobody taught, such as by ``byot``."""
    others = [kind for kind in dict.fromkeys(kinds) if kind != "task"]
    return f"trained with hard labels and {joined(others)}" if others else "trained with hard labels only"


def _teacher(part: Mapping[str, Any]) -> str:
    if not part:
        return ""
    if part.get("ensemble"):
        return f"an ensemble of {joined([_teacher(member) for member in part['ensemble']])}"
    behind = _teacher(part.get("teacher") or {})
    return f"{_network(part)}, itself distilled from {behind}" if behind else _network(part)


def _network(part: Mapping[str, object]) -> str:
    name = local(one_line(str(part.get("model", "a model"))))
    args = part.get("args")
    inside = ", ".join(f"{key} {value}" for key, value in args.items()) if isinstance(args, Mapping) else ""
    return f"{name} ({one_line(inside)})" if inside else name


def _meta(result: RunResult) -> tuple[tuple[str, str], ...]:
    work = sum(stage.seconds for stage in result.stages if stage.status == "ran")
    seed = result.recipe.get("seed")
    return (
        ("Run", one_line(result.run)),
        ("Made", one_line(result.created)),
        ("Sum of all stages", duration(work)),
        *((("Seed", str(seed)),) if seed is not None else ()),
        ("edgekd", one_line(result.edgekd)),
    )


def _subject(result: RunResult) -> str:
    model, base = facts.headline(result), facts.baseline(result)
    if model is None:
        return "No model was made."
    where = facts.main_device(result)
    name = facts.label(model)
    if facts.profile_of(result, model.name, where):
        kind = "int8 artifact" if facts.is_int8(model) else "artifact"
        name = f"{name}, the fastest {kind} on {one_line(str(where))}{_why(result, model, str(where))}"
    against = f"; changes are against {facts.label(base)}" if base and base.name != model.name else ""
    return f"{name}{against}."


def _why(result: RunResult, model: ModelRecord, where: str) -> str:
    """Say why a faster artifact is not in the headline: it does not pass the gates, or its time is untrusted."""
    own = facts.profile_of(result, model.name, where)
    if not facts.passes(result, model.name, where):
        return "; no artifact passes the gates"
    if own is not None and own.trust.verdict != "trusted":
        return "; no time of an artifact that passes the gates is trusted"
    reasons = []
    for rival in result.profiles:
        if rival.device == where and _beats(result, rival, model, where):
            passes = facts.passes(result, rival.model, where)
            why = "has an untrusted time" if passes else "does not pass the gates"
            reasons.append(f"{facts.label_of(result, rival.model)} is faster and {why}")
    good = " that passes the gates with a trusted time" if reasons else ""
    return f"{good}{f' ({joined(reasons)})' if reasons else ''}"


def _beats(result: RunResult, other: ProfileRecord, model: ModelRecord, where: str | None) -> bool:
    rival, own = result.model(other.model), facts.profile_of(result, model.name, where)
    faster = own is not None and other.latency_ms.p50 < own.latency_ms.p50
    return faster and rival is not None and facts.is_int8(rival)


def _numbers(result: RunResult) -> tuple[Number, ...]:
    model, base, where = facts.headline(result), facts.baseline(result), facts.main_device(result)
    base = None if base and model and base.name == model.name else base
    own = facts.profile_of(result, model.name, where) if model else None
    other = facts.profile_of(result, base.name, where) if base else None
    metric = facts.metric(result) if facts.judge(result) else None
    if model and base and model.format != base.format:
        other = None  # another runtime's time and memory say nothing about int8
    accuracy = (_quality(result, model, base, metric),) if metric else ()
    on_device = (_latency(own, other), _memory(own, other)) if facts.profiled(result) else ()
    return *accuracy, *on_device, _size(model, base)


def _missing(label: str, why: str) -> Number:
    return Number(label, "", "not measured", "", "muted", why)


def _quality(result: RunResult, model: ModelRecord | None, base: ModelRecord | None, metric: MetricWords) -> Number:
    found = model.figure(metric.facts.name, metric.of) if model else None
    if model is None or found is None:
        return _missing(metric.title, "not evaluated on the test split")
    detail = f"{count(found.n)} test {facts.noun(result)}s"
    if found.low is not None and found.high is not None:
        detail += f"; 95 % interval {metric.value(found.low)} to {metric.value(found.high)}"
    change = between(result, model, base, metric) if base else None
    delta = ""
    if change is not None:
        delta = f"{change.size} {'higher' if change.change > 0 else 'lower'}" if change.shown else change.open
    tone: Tone = "good" if change is not None and change.gain > 0 else ""
    return Number(metric.title, metric.unit, metric.value(found.value), delta, tone, detail)


def _latency(own: ProfileRecord | None, other: ProfileRecord | None) -> Number:
    if own is None:
        return _missing("Latency p50", "not profiled on a real device")
    found, threads = own.latency_ms, plural(own.effective.threads, "thread")
    detail = f"{one_line(own.device)}, {threads}; 95 % interval {sig(found.ci[0])} to {sig(found.ci[1])}"
    delta: str = ""
    tone: Tone = ""
    if other is not None and verdicts.doubted(own, other):
        delta = "no claim"
    elif other is not None and verdicts.shown(own, other) is None:
        delta = NOT_SHOWN
    elif other is not None:
        delta, tone = _times(other.latency_ms.p50, found.p50, "faster", "slower")
    flag = "times are untrusted" if delta == "no claim" else "untrusted" if own.trust.verdict == "untrusted" else ""
    return Number("Latency p50", "ms", sig(found.p50), delta, tone, detail, flag)


def _memory(own: ProfileRecord | None, other: ProfileRecord | None) -> Number:
    peak = own.memory.peak if own else None
    if own is None or peak is None:
        return _missing("Peak memory", "the device does not report it" if own else "not profiled on a real device")
    detail = "whole process (VmHWM)" if own.agent == "python" else "whole process"
    detail += f"; the model added {sig(own.memory.model)}" if own.memory.model is not None else ""
    delta: str = ""
    tone: Tone = ""
    if other is not None and other.memory.peak:
        change = peak / other.memory.peak - 1
        delta = "same" if change == 0 else f"{sig(abs(change) * 100)} % {'less' if change < 0 else 'more'}"
        tone = "good" if change < -LEAST_MEMORY else ""
    return Number("Peak memory", "MiB", sig(peak), delta, tone, detail)


def _size(model: ModelRecord | None, base: ModelRecord | None) -> Number:
    if model is None or model.bytes is None:
        return _missing("Size", "no file was written")
    delta, tone = _times(base.bytes, model.bytes, "smaller", "larger") if base and base.bytes else ("", "")
    return Number("Size", "MiB", mib(model.bytes), delta, tone, f"{count(model.bytes)} bytes on disk")


def _times(before: float, after: float, less: str, more: str) -> tuple[str, Tone]:
    # Only a gained number is coloured: red is kept for gates, which decide whether a loss matters.
    if after == before or min(before, after) <= 0:
        return "same", ""
    return (f"{sig(before / after)}× {less}", "good") if after < before else (f"{sig(after / before)}× {more}", "")
