"""A report on several devices: each its section, EMULATED on every figure, nothing hidden."""

from __future__ import annotations

import io
import re
from dataclasses import replace

from rich.console import Console
from tests.unit.report import sample, sample_devices
from tests.unit.report.test_report_html import Outline
from tests.unit.report.test_report_view import column, table

from edgekd.report import view
from edgekd.report.layouts import card, html, markdown, terminal
from edgekd.report.page import Block, Chart, Fold, Page, Table
from edgekd.report.sections import device_figures, device_trust, operations
from edgekd.results.codec import from_json, to_json
from edgekd.results.findings import Finding, Missing, missing, said
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Attempt, Comparison, DeviceRecord, LoadTime, Operation, Trust
from edgekd.results.run import RunResult

EMULATED_TIMES = ("410", "433", "459", "435")


def pairs(page: Page, section: str) -> dict[str, str]:
    return dict(pair for block in page.section(section).blocks for pair in getattr(block, "pairs", ()))


def blocks(page: Page, section: str) -> list[Block]:
    found: list[Block] = []
    for block in page.section(section).blocks:
        found += block.blocks if isinstance(block, Fold) else [block]
    return found


def printed(result: RunResult) -> str:
    console = Console(file=io.StringIO(), width=120)
    terminal.show(result, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_every_device_has_a_section_also_one_that_did_not_answer() -> None:
    page = view.build(sample_devices.devices())
    titles = {section.id: section.title for section in page.sections if section.id.startswith("device")}
    assert titles == {
        "devices": "Devices", "device": "On host", "device1": "On pi4", "device2": "On pi5 (EMULATED)",
        "device3": "On phone", "device4": "On zero",
    }  # fmt: skip
    reason = "The device failed: zero does not answer: No route to host; edgekd doctor zero"
    assert page.section("device4").lead == "No figures: the reason stands with the verdict."
    assert page.section("device4").blocks == ()
    assert column(table(page, "devices"), "State")["zero"].text == "nothing measured"
    assert page.verdict.failures[0] == f"zero gave no figures: {reason}"
    assert page.verdict.sentence.endswith(" 1 device failed.")
    listed = [item for block in page.section("not-measured").blocks for item in getattr(block, "items", ())]
    assert not any("zero" in item for item in listed), "it stands with the verdict"


def test_every_figure_of_an_emulated_device_is_stamped() -> None:
    page = view.build(sample_devices.devices())
    of_device = ("device2",)
    for section in of_device:
        for block in blocks(page, section):
            if isinstance(block, Chart):
                assert block.told.startswith("EMULATED: ")
                assert "EMULATED</text>" in block.wide
                assert "EMULATED</text>" in block.narrow
            if isinstance(block, Table):
                figures = [
                    cell for row in block.rows for cell, head in zip(row, block.columns, strict=True)
                    if head.kind == "number" and not head.stays and re.search(r"\d", cell.text)
                ]  # fmt: skip
                assert all(cell.stamp == "EMULATED" for cell in figures), block.caption
    assert pairs(page, "device2")["Reference workload"].endswith(" EMULATED")
    assert not any(cell.stamp for row in table(page, "device1", "Times").rows for cell in row)


def test_the_stamp_is_in_every_layout() -> None:
    result = sample_devices.devices()
    for text in (markdown.render(result), card.render(result), printed(result)):
        for line in text.splitlines():
            for figure in EMULATED_TIMES:
                if re.search(rf"(?<![\d.,]){figure} ?(ms|\||$)", line):
                    assert "EMULATED" in line, line
    assert '433 <span class="stamp">EMULATED</span>' in html.render(result)


def test_emulated_times_stand_in_no_headline_chart_or_comparison() -> None:
    page = view.build(sample_devices.devices())
    (chart,) = (block for block in page.section("pareto").blocks if isinstance(block, Chart))
    assert "On pi4: " in chart.told
    assert "pi5" not in chart.told
    assert chart.caption.endswith("Left out, as emulated: pi5.")
    assert not [block for block in page.section("device2").blocks if "int8 makes" in str(getattr(block, "items", ""))]


def test_the_trust_block_hides_nothing() -> None:
    found = pairs(view.build(sample_devices.devices()), "device1")
    assert found["TFLite int8"] == "throttled in block 7"
    assert found["ONNX int8, attempt 1"] == (
        "not trusted: the last block was 18 % slower than the first; p50 39.8 ms; measured again after 2 min 0 s"
    )
    assert found["Temperature"] == "47 °C before, 48 to 54 °C after the blocks"
    assert found["Clock of the fastest core"] == "1,500 to 1,800 MHz"
    assert found["Throttling"] == "newly reported in block 7"
    assert found["Cores"] == "pinned to 0"
    assert found["Worked round"].startswith("CompiledModel of ai-edge-litert 2.3.0")


def test_settings_that_are_not_as_asked_are_marked() -> None:
    page = view.build(sample_devices.devices())
    evidence = table(page, "device1", "Why to believe")
    assert column(evidence, "Threads")["TFLite int8"].note == "1 asked for"
    assert column(evidence, "Threads")["ONNX int8"].note == ""
    assert column(evidence, "Precision")["OpenVINO int8"].note == "the file is int8 (7-bit weights)"


def test_outputs_of_the_device_name_the_layer_where_they_differ() -> None:
    found = table(view.build(sample_devices.devices()), "device1", "Outputs")
    last = dict(zip((head.label for head in found.columns), (cell.text for cell in found.rows[-1]), strict=True))
    assert (last["Artifact"], last["Verdict"], last["Where it begins"]) == (
        "OpenVINO int8",
        "differs",
        "features.3.conv.0.0",
    )
    assert {row[2].text for row in found.rows[:-1]} == {"same"}


def test_a_phone_that_only_times_says_what_it_does_not_measure() -> None:
    page = view.build(sample_devices.devices())
    assert pairs(page, "device3")["Outputs"] == "of all artifacts"
    times = table(page, "device3", "Times")
    assert [column(times, head)["TFLite int8"].text for head in ("p90", "p99", "Cold load")] == ["not measured"] * 3


def test_records_without_some_figures_are_read_back() -> None:
    result = sample_devices.devices()
    assert from_json(RunResult, to_json(result)) == result


def test_operations_are_reconciled_with_the_inference() -> None:
    page = view.build(sample_devices.devices())
    sums = table(page, "device1", "Operations on")
    assert column(sums, "Unattributed")["ONNX int8"].text == "14"
    assert column(sums, "Recording costs")["ONNX int8"].text == "+7.00"
    slowest = next(block for block in blocks(page, "device1") if getattr(block, "caption", "").startswith("Slowest"))
    assert isinstance(slowest, Table)
    assert slowest.rows[0][0].text == "/features.0/conv"


def test_many_devices_are_still_a_small_sound_file() -> None:
    base = sample_devices.devices()
    pi = [p for p in base.profiles if p.device == "pi4"]
    many = tuple(
        replace(op, name=f"{n}{op.name}") for n in range(12) for op in sample_devices.operations("int8", 1.0).operations
    )
    more = tuple(
        replace(p, device=f"board{n}", operations=replace(sample_devices.operations("int8", 1.0), operations=many))
        for n in range(3)
        for p in pi
    )
    text = html.render(replace(base, profiles=(*base.profiles, *more)))
    assert len(text.encode()) < 500_000
    assert "On board2" in text
    page = Outline(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_shares_of_operations_make_100_percent() -> None:
    """Times of operations are means, so they are shares of the mean: a few slow inferences leave the p50 far below it."""
    row = next(p for p in sample_devices.devices().profiles if p.device == "pi4" and p.operations)
    assert row.operations is not None
    found = replace(row.operations, p50=row.operations.p50 / 2)
    made, *_ = operations.tables("pi4", ["a"], [replace(row, operations=found)])
    assert isinstance(made, Table)
    kinds = [cell for head, cell in zip(made.columns, made.rows[0], strict=True) if head.unit == "ms"]
    rest = column(made, "Unattributed")["a"].text
    assert abs(sum(int(cell.note.removesuffix(" %")) for cell in kinds) + int(rest) - 100) <= 1


def test_the_host_that_stands_in_for_a_device_says_whose_its_outputs_are() -> None:
    row = replace(sample_devices.measured("onnx", "pi5", 3.0), emulated=True)
    device = sample_devices.board("pi5", True)
    for transport, whose in (("host", "this machine's"), ("ssh", "what the real device computes")):
        told = dict(device_trust.trust("pi5", ["a"], [row], replace(device, transport=transport)).pairs)
        assert whose in told["Emulated"]
        assert told["Throttling"] == "newly reported in block 7"
        assert told["Clock of the fastest core"].endswith("MHz EMULATED")


def test_a_reason_without_figures_is_said_once() -> None:
    base = sample_devices.devices()
    why = "phonebm can have none of the files: benchmark_model runs .tflite files only"
    silent = DeviceRecord("phonebm", "", "adb", False, False, problems=(why,))
    model = ModelRecord("net", "artifact", "onnx", None, path="net.onnx", bytes=1)
    result = replace(
        base, kind="profile", recipe={"profile": {"devices": ["phonebm"]}}, devices=(silent,), profiles=(), gates=(),
        stages=(), models=(model,), not_measured=(missing("", why, "", "phonebm"),), findings=(),
    )  # fmt: skip
    page = view.build(result)
    assert page.verdict.failures == (why,)
    assert page.verdict.sentence == "1 file on 1 device: 0 of 1 measurement made."
    assert page.section("not-measured").blocks == ()
    assert page.name == "net (ONNX)"
    assert printed(result).count("benchmark_model runs .tflite") == 1
    assert "did not answer" not in printed(result)


def test_the_host_misses_no_outputs_that_only_others_are_compared_by() -> None:
    row = replace(sample_devices.measured("onnx", "host", 3.0), outputs=(), energy=None)
    for here in (True, False):
        found = device_figures.missing(["a"], [row], here=here)
        assert found is not None
        assert ("Outputs" in dict(found.pairs)) == (not here)


def test_one_real_device_needs_no_overview() -> None:
    assert "devices" not in [section.id for section in view.build(sample.good()).sections]


def test_comparisons_say_their_interval_or_why_they_were_refused() -> None:
    rows = (
        Comparison("onnx", "onnx", "pi4", "one session", "no difference shown", 0.99, 0.97, 1.02),
        Comparison("tflite", "tflite", "host", "two sessions", "faster", 0.71, 0.64, 0.8, scaled=True),
        Comparison("onnx", "onnx", "pi5", "two sessions", "refused", reasons=(Finding("emulated_times"),)),
    )
    found = table(view.build(replace(sample_devices.devices(), comparisons=rows)), "comparison")
    assert [row[3].text for row in found.rows] == ["no difference shown", "faster", "refused"]
    assert [row[5].text for row in found.rows] == ["0.970 to 1.02", "0.640 to 0.800", "—"]
    assert found.rows[2][1].text == "pi5 (EMULATED)"
    remarks = blocks(view.build(replace(sample_devices.devices(), comparisons=rows)), "comparison")[1]
    (remark,) = getattr(remarks, "items", ())
    assert remark == "ONNX int8 on pi5 (EMULATED): the device is emulated: its times are not the hardware's"


def test_the_same_fact_of_several_files_and_devices_is_one_line() -> None:
    result = sample_devices.devices()
    what, files, places = "single operations", ("onnx", "tflite"), ("host", "pi4")
    facts = [missing(what, "none", model, device) for device in places for model in files]
    odd = [missing("", "gone", "", "nowhere"), Missing(Finding("no_power_meter")), missing(what, "refused", "onnx", "pi4")]
    (block,) = view.build(replace(result, not_measured=(*facts, *odd))).section("not-measured").blocks[:1]
    items = getattr(block, "items", ())
    assert items[:4] == (
        "single operations of onnx and tflite on host and pi4: none",
        "nowhere: gone",
        "energy: no power meter is read",
        "single operations of onnx on pi4: refused",
    )


def test_operations_whose_times_mean_nothing_say_so() -> None:
    result = sample_devices.devices()
    row = next(p for p in result.profiles if p.device == "pi4" and p.operations)
    assert row.operations is not None
    delegate = Operation("xnnpack", "TfLiteXNNPackDelegate", row.operations.p50)
    for share, overhead, word in ((1.2, 0.0, "not usable"), (0.9, 0.6, "not usable"), (1.004, 0.0, "")):
        found = replace(row.operations, operations=(delegate,), attributed=share, overhead=overhead)
        made, *_ = operations.tables("pi4", ["a"], [replace(row, operations=found)])
        assert isinstance(made, Table)
        cells = made.rows[0]
        assert cells[0].note.startswith(word)
        assert cells[0].mark == bool(word)
        assert made.columns[2].label == "in a delegate"
        assert not any(cell.text in ("-0", "−0") for cell in cells)


def test_a_load_that_was_not_cold_and_attempts_that_were_not_trusted_say_so() -> None:
    result = sample_devices.devices()
    doubt = Trust("untrusted", (said("load"),), 0.0, 0.1, 2.0, 2.0)
    row = replace(
        next(p for p in result.profiles if p.device == "pi4"), trust=doubt, attempts=(Attempt((said("load"),), 2.0),)
    )
    for cold, sign in ((False, "△"), (True, ""), (None, "")):
        made = device_figures.times("pi4", ["a"], [replace(row, load_ms=LoadTime(9.0, 3.0, cold))])
        assert made.rows[0][0].note == "2 attempts, none trusted"
        assert made.rows[0][7].sign == sign
        assert ("△: it was not" in made.note) == bool(sign)


def test_a_file_that_was_measured_again_with_others_says_whether_its_own_attempts_are_trusted() -> None:
    result = sample_devices.devices()
    row = next(p for p in result.profiles if p.device == "pi4" and p.trust.verdict == "trusted")
    doubt = Trust("untrusted", (said("load"),), 0.0, 0.1, 2.0, 2.0)
    for reasons, trust, told in (
        ((), row.trust, "2 attempts, all trusted"),
        ((), doubt, "2 attempts, not all trusted"),
        ((said("load"),), row.trust, "2 attempts, the last one trusted"),
    ):
        tried = replace(row, trust=trust, attempts=(Attempt(reasons, 2.0, 39.8),))
        assert device_figures.times("pi4", ["a"], [tried]).rows[0][0].note == told
    profiles = tuple(replace(one, attempts=(Attempt((), 2.0, 39.8),)) if one == row else one for one in result.profiles)
    found = pairs(view.build(replace(result, profiles=profiles)), "device1")
    assert "trusted; p50 39.8 ms; measured again with the files that were not after 2.00 s" in found.values()
