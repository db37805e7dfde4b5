from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.unit.report import sample

from edgekd.devices.isa import Isa
from edgekd.profiling import verdicts
from edgekd.report import facts, view
from edgekd.report.layouts import card
from edgekd.report.page import Cell, Page, Table
from edgekd.results.fidelity import Figure
from edgekd.results.findings import Finding, said
from edgekd.results.gates import GateRecord, Limit
from edgekd.results.layers import Difference
from edgekd.results.models import ModelRecord
from edgekd.results.profile import Trust
from edgekd.results.run import RunResult
from edgekd.results.runtime import FloatWeights

ORDER = (
    "models",
    "pareto",
    "accuracy",
    "device",
    "findings",
    "parity",
    "layers",
    "training",
    "artifacts",
    "provenance",
    "not-measured",
)


def table(page: Page, section: str, caption: str = "") -> Table:
    tables = [block for block in page.section(section).blocks if isinstance(block, Table)]
    return next(one for one in tables if caption in one.caption)


def column(found: Table, label: str) -> dict[str, Cell]:
    index = next(i for i, head in enumerate(found.columns) if head.label.startswith(label))
    return {row[0].text: row[index] for row in found.rows}


def without_profiles(result: RunResult) -> RunResult:
    return replace(result, profiles=())


def test_sections_come_in_the_promised_order() -> None:
    for result in (sample.good(), sample.empty()):
        assert tuple(section.id for section in view.build(result).sections) == ORDER


def test_the_headline_is_the_fastest_int8_file_against_float_onnx() -> None:
    page = view.build(sample.good())
    assert page.subject == "OpenVINO int8, the fastest int8 artifact on host; changes are against ONNX float32."
    assert [(n.value, n.unit, n.delta) for n in page.numbers] == [
        ("91.2", "%", "no difference shown, −0.24 points [−0.58, 0.10]"),
        ("0.373", "ms", ""),  # no float file was measured in OpenVINO, and another runtime's time is no float time
        ("118", "MiB", ""),
        ("0.561", "MiB", "2.90× smaller"),
    ]


def test_a_file_that_fails_its_gates_is_not_the_headline_while_another_passes() -> None:
    result = sample.good()
    gates = (*result.gates, GateRecord("top1", "openvino", Limit(">=", 0.95), 0.912, "fail", blocks=True))
    page = view.build(replace(result, gates=gates, verdict="fail"))
    assert page.subject.startswith("ONNX int8, the fastest int8 artifact on host that passes the gates")


def test_overlapping_intervals_show_no_difference() -> None:
    result = replace(sample.good(), models=tuple(m for m in sample.good().models if m.format in ("torch", "onnx")))
    base, own = (next(p for p in result.profiles if p.model == name) for name in ("onnx_float", "onnx"))
    latency = replace(own.latency_ms, p50=own.latency_ms.p50 * 1.001)
    close = tuple(replace(p, latency_ms=latency) if p is base else p for p in result.profiles)
    assert view.build(replace(result, profiles=close)).numbers[1].delta == "no difference shown"


def test_a_headline_claims_what_the_findings_claim() -> None:
    """Against the float file of the same runtime, and nothing where the times are untrusted."""
    result = sample.good()
    kept = tuple(model for model in result.models if model.format in ("torch", "onnx"))
    onnx = replace(result, models=kept)
    assert view.build(onnx).subject.endswith("changes are against ONNX float32.")
    assert view.build(onnx).numbers[1].delta.endswith("faster")
    for name in ("onnx", "onnx_float"):
        doubt = Trust("untrusted", (said("load"),), 0.0, 0.1, 2.0, 2.0)
        profiles = tuple(replace(p, trust=doubt) if p.model == name else p for p in result.profiles)
        number = view.build(replace(onnx, profiles=profiles)).numbers[1]
        assert (number.delta, number.flag, number.tone) == ("no claim", "times are untrusted", "")
        own, base = (next(p for p in profiles if p.model == model) for model in ("onnx", "onnx_float"))
        model = next(model for model in kept if model.name == "onnx")
        assert verdicts.compare(own, base, Isa("x86_64", frozenset()), model).verdict == "untrusted"


def test_the_headline_is_the_best_that_is_trusted_and_says_why() -> None:
    """OpenVINO is the fastest; untrusted, it gives way to ONNX, and the line says it."""
    result, doubt = sample.good(), Trust("untrusted", (said("load"),), 0.0, 0.1, 2.0, 2.0)

    def subject(*names: str) -> str:
        profiles = (replace(p, trust=doubt) if p.model in names else p for p in result.profiles)
        return view.build(replace(result, profiles=tuple(profiles))).subject

    assert subject("openvino").startswith(
        "ONNX int8, the fastest int8 artifact on host that passes the gates with a trusted time "
        "(OpenVINO int8 is faster and has an untrusted time)"
    )
    everywhere = subject("openvino", "onnx", "tflite")
    assert "no time of an artifact that passes the gates is trusted" in everywhere


def test_gates_that_end_the_run_stand_out_from_those_that_warn() -> None:
    def late(model: str, measured: float, blocks: bool) -> GateRecord:
        return GateRecord("latency_p50_ms", model, Limit("<=", 1), measured, "untrusted", "host", blocks=blocks)

    two = (late("onnx", 1.8, True), late("openvino", 0.3, False))
    page = view.build(replace(sample.good(), gates=two, verdict="untrusted"))
    assert page.verdict.gates is not None
    cells = [(cell.sign, cell.note) for cell in page.verdict.gates.rows[0][3:]]
    assert cells == [("✕", "beyond its limit, untrusted"), ("△", "within its limit, untrusted")]
    assert [line.split("): ")[1] for line in page.verdict.failures] == ["beyond its limit, untrusted; exit code 1"]
    assert [line.split("): ")[1] for line in page.verdict.cautions] == ["within its limit, untrusted"]
    assert "Exit code 1 because of 1 of them." in page.verdict.sentence


def test_untrusted_figures_say_so_wherever_they_stand() -> None:
    page = view.build(sample.bad())
    assert page.numbers[1].flag == "times are untrusted"
    assert column(table(page, "models"), "p50")["ONNX int8"].note == "△ untrusted"
    assert column(table(page, "device", "Why to believe"), "Verdict")["ONNX int8"].text == "untrusted"
    assert any(
        "spread 9.1 % over 5 %" in value for b in page.section("device").blocks for _, value in getattr(b, "pairs", ())
    )


def test_emulated_times_never_reach_the_headline_or_the_pareto() -> None:
    result = sample.bad()
    recipe = {**result.recipe, "profile": {**result.recipe["profile"], "devices": ["pi4"]}}
    page = view.build(replace(result, recipe=recipe, profiles=tuple(p for p in result.profiles if p.emulated)))
    assert page.numbers[1].value == "not measured"
    assert "only emulated devices" in page.section("pareto").missing
    assert "pi4 (EMULATED): not to be quoted" in [getattr(block, "title", "") for block in page.section("device").blocks]


def test_what_was_not_measured_is_never_zero() -> None:
    page = view.build(without_profiles(sample.good()))
    assert [n.value for n in page.numbers[1:3]] == ["not measured", "not measured"]
    assert column(table(page, "models"), "p50")["ONNX int8"].text == "not measured"
    assert column(table(page, "models"), "p50")["Teacher"].text == "—"
    listed = [item for block in page.section("not-measured").blocks for item in getattr(block, "items", ())]
    assert "On host: No artifact was profiled on host." in listed


def test_every_section_without_data_is_listed() -> None:
    page = view.build(sample.empty())
    silent = [section.title for section in page.sections if section.missing]
    listed = [item for block in page.section("not-measured").blocks for item in getattr(block, "items", ())]
    assert len(silent) == 7
    assert all(any(item.startswith(title) for item in listed) for title in silent)


def test_what_the_recipe_does_not_ask_for_is_not_missing() -> None:
    """A trained student exported alone, on images without labels, is not profiled, evaluated or trained."""
    result = sample.empty()
    recipe = {"edgekd": 1, "data": {"source": "random", "classes": 3}, "student": {"model": "net.py:Net", "weights": "w.pt"}}
    model = ModelRecord("onnx_float", "artifact", "onnx", "float32", path="artifacts/a.onnx", bytes=2**20)
    page = view.build(replace(result, recipe=recipe, models=(model,)))
    assert not {"pareto", "accuracy", "device", "training"} & {section.id for section in page.sections}
    assert [number.label for number in page.numbers] == ["Size"]
    assert [head.label for head in table(page, "models").columns] == ["Model", "Size", "Parameters", "MACs", "Gates"]
    assert page.story == "net.py:Net as given, measured on random."


def test_artifacts_that_were_not_written_keep_their_rows() -> None:
    page = view.build(sample.bad())
    models = table(page, "models")
    assert column(models, "Gates")["TFLite int8"].text == "failed"
    assert column(models, "Model")["TFLite int8"].note.startswith("not delivered: no kernel for ")
    assert column(models, "Gates")["OpenVINO int8"].text == "failed"
    assert any(line.startswith("TFLite int8 was not delivered: no kernel for ") for line in page.verdict.failures)
    assert "OpenVINO int8 was not delivered" in page.verdict.failures


def test_the_verdict_counts_gates_and_tells_each_failure() -> None:
    verdict = view.build(sample.bad()).verdict
    assert (verdict.word, verdict.tone) == ("Fail", "bad")
    assert verdict.sentence == "Of 5 gates, 2 failed, 1 not measured and 1 could not be trusted."
    assert verdict.failures[2] == "ONNX int8: Accuracy drop is 2.70 points (limit ≤ 1 points)"
    assert verdict.failures[3] == "ONNX int8: Top-1 agreement is 96.12000 % (limit ≥ 96.12004 %)"
    assert view.build(sample.good()).verdict.sentence == "All 15 gates passed."
    assert view.build(sample.empty()).verdict.gates is None


def test_gates_with_the_same_name_and_other_limits_are_other_rows() -> None:
    gates = tuple(GateRecord("latency_p50_ms", "onnx", Limit("<=", n), 1.0, "pass", f"pi{n}") for n in (4, 5))
    found = view.build(replace(sample.good(), gates=gates)).verdict.gates
    assert found is not None
    assert [row[0].text for row in found.rows] == ["Latency p50 on pi4", "Latency p50 on pi5"]


def test_where_accuracy_went_names_what_each_step_is_compared_with() -> None:
    section = view.build(sample.good()).section("accuracy")
    told = getattr(section.blocks[0], "told", "")
    assert "Student alone 90.1 % (−3.16 points [−3.93, −2.40] against Teacher)" in told
    assert "TFLite int8 91.2 % (no difference shown, −0.02 points [−0.81, 0.77] against QAT int8 (torch))" in told
    assert section.lead == (
        "Distillation gained 1.33 points [0.53, 2.13]; int8 training: no difference shown, −0.23 points [−1.01, 0.55]; "
        "the int8 files differ from it by 0.02 at most."
    )


def test_float_operations_are_listed_with_their_reasons() -> None:
    section = view.build(sample.bad()).section("parity")
    items = [item for block in section.blocks for item in getattr(block, "items", ())]
    assert items[0] == "ONNX int8: features.1.conv hardswish (%hardswish_1): no int8 kernel in XNNPACK"


def test_a_float_only_recipe_has_a_headline_too() -> None:
    model = ModelRecord("onnx", "artifact", "onnx", "float32", path="artifacts/a.onnx", bytes=2**20,
                        metrics=(sample.measured(100, top1=0.9),))  # fmt: skip
    recipe = {**sample.RECIPE, "quantize": None, "export": [{"format": "onnx"}]}
    result = replace(sample.good(), recipe=recipe, models=(model,), profiles=(), gates=())
    assert facts.not_written(result) == ()
    page = view.build(result)
    assert page.subject == "ONNX float32."
    assert [n.delta for n in page.numbers] == ["", "", "", ""]
    assert page.numbers[3].value == "1.00"


def test_a_chain_of_teachers_is_told_in_order() -> None:
    result = sample.good()
    large = {"model": "torchvision:resnet50", "weights": "large.pt"}
    assistant = {"model": "torchvision:resnet18", "distill": {"losses": [{"kind": "rkd", "weight": 2}]}, "teacher": large}
    root = replace(result.models[0], name="teacher.teacher", metrics=(sample.measured(10000, top1=0.95),))
    result = replace(result, recipe=result.recipe | {"teacher": assistant}, models=(root, *result.models))
    page = view.build(result)
    assert "distilled from torchvision:resnet18, itself distilled from torchvision:resnet50 on" in page.story
    assert [row[0].text for row in table(page, "models").rows][:3] == ["Teacher's teacher", "Teacher", "Student alone"]
    chart = page.section("accuracy").blocks[0]
    assert "Teacher's teacher" in getattr(chart, "told", "")
    assert "Loss of teacher: rkd (weight 2)" in card.render(result)


def test_several_teachers_are_told() -> None:
    result = sample.good()
    members = [{"model": "torchvision:resnet50"}, {"model": "timm:vit_tiny", "distill": {"losses": [{"kind": "kd"}]}}]
    own = replace(result.models[0], name="teacher.resnet50", metrics=(sample.measured(10000, top1=0.95),))
    result = replace(result, recipe=result.recipe | {"teacher": {"ensemble": members}}, models=(own, *result.models))
    assert "distilled from an ensemble of torchvision:resnet50 and timm:vit_tiny on" in view.build(result).story
    assert table(view.build(result), "models").rows[0][0].text == "Teacher resnet50"
    assert "Loss of teacher.ensemble[1]: kd (weight 1)" in card.render(result).replace("\\", "")


def destroyed(file_drop: float, torch_drop: float, sqnr: float = 1.0) -> RunResult:
    """The good run, quantized by calibration: a file loses accuracy, and the int8 network in torch another share of it."""
    base = sample.good()
    recipe = {**base.recipe, "quantize": {"method": "ptq", "observer": "minmax"}}
    close = sample.fidelity(0.9144 - torch_drop)
    torch = replace(base.model("qat"), name="ptq", fidelity=replace(close, sqnr_db=Figure(sqnr, 10000, sqnr, sqnr)))
    models = tuple(torch if model.name == "qat" else model for model in base.models)
    gate = replace(sample.gate("accuracy_drop", "onnx", Limit("<=", 0.01), file_drop), verdict="fail", blocks=True)
    return replace(base, recipe=recipe, models=models, gates=(gate,), verdict="fail", repair=None)


def test_a_fail_names_the_layers_and_what_to_type() -> None:
    lines = view.build(destroyed(0.3, 0.3, sqnr=31.9)).verdict.failures
    assert lines[1].startswith("Where int8 loses it, by each layer's share of the noise at the logits: features.3.conv.0.0")
    assert "explain" not in lines[1], "one layer makes the noise of all"
    assert lines[2].startswith("What to do: --set quantize.keep_float=auto")
    assert "--set quantize.observer=mse" in lines[2]
    assert "--set quantize.equalize=true" in lines[2], "a named layer loses by its weight"


def test_layers_that_do_not_explain_the_noise_are_said_not_to() -> None:
    """A concatenation or a sum is to blame only where the graph has one."""
    base = destroyed(0.3, 0.3, sqnr=1.0)
    text = "each alone in int8, the layers explain 1 % of the noise: "
    assert f"{text}the errors of several layers add up" in view.build(base).verdict.failures[1]
    first, *rest = base.layers
    sums = replace(base, layers=(replace(first, op="add"), *rest))
    assert f"{text}look for a concatenation" in view.build(sums).verdict.failures[1]
    models = tuple(replace(model, name="qat") if model.name == "ptq" else model for model in base.models)
    assert f"{text}training in int8 changed the weights" in view.build(replace(base, models=models)).verdict.failures[1]


def test_a_file_that_loses_what_torch_does_not_is_no_fault_of_int8() -> None:
    lines = view.build(destroyed(0.3, 0.002)).verdict.failures
    assert lines[1].startswith(
        "ONNX int8 loses it in the file: the int8 network in torch is within the limit; see its parity below"
    )
    assert not [line for line in lines if "keep_float" in line]


def test_an_undecided_figure_within_the_limit_needs_more_images_and_no_other_int8() -> None:
    base = destroyed(0.015, 0.015, sqnr=31.9)
    (gate,) = base.gates
    undecided = replace(gate, limit=Limit("<=", 0.02), low=0.002, high=0.028, verdict="undecided", blocks=False)
    (line,) = view.build(replace(base, gates=(undecided,), verdict="undecided")).verdict.cautions
    # 0.005 of room where the interval reaches 0.013: 2.6² times as many.
    n = gate.n or 0
    assert f"test on more images to decide (about {math.ceil(n * 2.6**2 / 1000) * 1000:,}, if the figure stays)" in line, n
    for measured in (0.02, 0.0199):  # on its limit: no number decides it
        near = replace(undecided, measured=measured)
        (line,) = view.build(replace(base, gates=(near,), verdict="undecided")).verdict.cautions
        assert line.endswith("test on more images to decide")


def apart(share: float, steps: float) -> tuple[str, ...]:
    """What is said of a TFLite file that is 3 steps off, and of whose first layer so many values differ from torch's."""
    base = sample.good()
    first, *rest = (replace(layer, differences={"tflite": Difference(0.0, 0.0)}) for layer in base.layers)
    layers = (replace(first, differences={"tflite": Difference(share, steps)}), *rest)
    gate = replace(sample.gate("parity_lsb_p99", "tflite", Limit("<=", 2), 3.0), verdict="fail", blocks=True)
    return view.build(replace(base, layers=layers, gates=(gate,), verdict="fail")).verdict.failures


@pytest.mark.parametrize(("share", "steps"), [(0.0113, 1.0), (0.0001, 3.0)])
def test_a_layer_that_a_runtime_computes_otherwise_is_named(share: float, steps: float) -> None:
    (_, line) = apart(share, steps)
    layer = sample.good().layers[0]
    assert line.startswith(f"TFLite int8 computes {layer.label} ({layer.op}) differently from torch, with the same input:")
    assert f"--set 'quantize.keep_float=[{layer.path}]'" in line


def test_roundings_that_add_up_are_no_layers_fault() -> None:
    (_, line) = apart(0.0001, 1.0)
    assert line.startswith("TFLite int8 computes its layers as torch does")
    assert "at most 0.010 % of a layer's values differ, by one step" in line
    assert "--set 'gates.parity_lsb_p99={max: 3}'" in line


def test_a_caution_is_no_failure() -> None:
    caution = replace(sample.gate("parity_error", "onnx_float", Limit("<=", 0.01), 0.14), verdict="fail", level="warn")
    result = replace(sample.good(), gates=(*sample.good().gates, caution))
    verdict = view.build(result).verdict
    assert (verdict.word, verdict.tone, verdict.failures) == ("Pass", "good", ())
    assert verdict.cautions == ("ONNX float32: Output error, RMS is 14.0 % (limit ≤ 1 %)",)
    assert verdict.sentence.endswith("1 caution.")


def test_a_file_that_a_gate_did_not_hold_has_no_pass() -> None:
    """A float file beside int8 ones is held by parity alone, as a warning, and by no limit of a device."""
    parity = replace(sample.gate("parity_error", "onnx_float", Limit("<=", 0.01), 0.0), verdict="pass", level="warn")
    result = replace(sample.good(), gates=(*sample.good().gates, parity))
    gates = column(table(view.build(result), "models"), "Gates")
    assert (gates["ONNX float32"].text, gates["ONNX int8"].text) == ("—", "pass")
    assert "it has only the parity gate" in table(view.build(result), "models").note
    off = replace(parity, verdict="fail")
    failed = view.build(replace(result, gates=(*sample.good().gates, off)))
    assert column(table(failed, "models"), "Gates")["ONNX float32"].text == "fail, only warns"


def test_a_loss_of_accuracy_comes_before_untrusted_times() -> None:
    base = sample.good()
    drop = replace(sample.gate("accuracy_drop", "onnx", Limit("<=", 0.02), 0.06), verdict="undecided", blocks=True)
    late = GateRecord("latency_p50_ms", "onnx", Limit("<=", 1), 1.8, "untrusted", "host", blocks=True)
    page = view.build(replace(base, gates=(late, drop), verdict="untrusted"))
    assert page.verdict.word == "Undecided"
    assert page.verdict.sentence == "Of 2 gates, 1 undecided and 1 could not be trusted."
    assert page.verdict.failures[0].startswith("ONNX int8: Accuracy drop")
    cell = column(table(page, "models"), "Gates")["ONNX int8"]
    assert (cell.sign, cell.text) == ("✕", "undecided")


def test_a_student_that_distillation_made_worse_is_a_caution() -> None:
    base = sample.good()
    models = tuple(
        replace(model, metrics=(sample.measured(10000, top1=0.95),))
        if model.name == "student_alone" else model
        for model in base.models
    )  # fmt: skip
    verdict = view.build(replace(base, models=models)).verdict
    (line,) = verdict.cautions
    assert line.startswith("distillation lost 3.56 points against the student alone: 91.4 % against 95.0 %")
    assert "1 caution" in verdict.sentence
    assert view.build(base).verdict.cautions == ()


def test_untrusted_times_say_why_once_a_device() -> None:
    base = sample.good()
    trusts = [
        Trust("untrusted", (Finding("waited", figures={"share": n / 100}), said("busy")), 0, 0.1, 2, 2) for n in (60, 75)
    ]
    profiles = tuple(replace(p, trust=trusts[i]) if i < 2 else p for i, p in enumerate(base.profiles))
    page = view.build(replace(base, profiles=profiles, findings=(), gates=()))
    (why,) = (block for block in page.section("models").blocks if getattr(block, "title", "") == "Why times are untrusted")
    assert getattr(why, "items", ()) == (
        f"host: times of 2 of {len(profiles)} files untrusted: the process had a CPU for only 60 to 75 % of the time; busy",
    )
    assert page.section("findings").lead == "Nothing but the untrusted times."
    assert view.build(replace(base, findings=(), gates=())).section("findings").lead.startswith("Nothing needs")


def test_folders_of_this_machine_are_left_out() -> None:
    base = sample.good()
    recipe = {**base.recipe, "student": {"model": "/home/me/net.py:Net"}, "data": {"source": "imagefolder:/home/me/photos"}}
    data = replace(base.data, source="imagefolder:/home/me/photos")
    text = card.render(replace(base, recipe=recipe, data=data))
    assert "/home/me" not in text
    assert "net.py:Net distilled from" in text
    assert "on imagefolder:photos" in text
    assert "| `model.onnx` |" in text  # the card lies beside the files


def test_weights_that_stay_float_are_said_under_the_verdict() -> None:
    def cautions(int8: int, float32: int, kept: int) -> tuple[str, ...]:
        weights = FloatWeights(int8, float32, kept, (("rnn lstm", float32),))
        verdict = view.build(replace(sample.good(), float_weights=weights)).verdict
        assert ("1 caution" in verdict.sentence) == bool(verdict.cautions)
        return verdict.cautions

    assert cautions(900, 100, 0) == ()
    (line,) = cautions(1024, 3072, 0)
    share = "75 % of the weights' bytes in the int8 files are float32"
    assert line.startswith(f"{share}, because there is no int8 rule: rnn lstm (3.00 KiB). What to do: ")
    assert "--set 'export=[{format: tflite, precision: dynamic}]'" in line
    assert cautions(1024, 3072, 3072) == (f"{share}, as keep_float has it: rnn lstm (3.00 KiB)",)


def test_what_was_not_delivered_comes_first_and_once() -> None:
    missing = GateRecord("accuracy_drop", "openvino", Limit("<=", 0.01), blocks=True)
    result = sample.bad()
    lines = view.build(replace(result, gates=(*result.gates, missing))).verdict.failures
    assert lines[1] == "OpenVINO int8 was not delivered"
    assert sum("OpenVINO" in line for line in lines) == 1


def test_files_that_no_sample_was_given_for_are_a_caution() -> None:
    result = sample.good()
    noise = replace(result, data=replace(result.data, source="random"))
    (caution,) = view.build(noise).verdict.cautions
    assert caution.startswith(
        "no gate says how close ONNX int8, TFLite int8 and OpenVINO int8 are to the float network on samples"
    )
    float32 = replace(noise, models=tuple(model for model in result.models if model.precision != "int8"))
    assert not view.build(float32).verdict.cautions


def test_what_is_doubtful_of_given_weights_is_a_caution() -> None:
    """A pass says it beside the word, and once."""
    result = sample.good()
    doubt = "student has top-1 77.0 % on 576 training images, and 90.2 % at 32×32; write data: {image_size: 32}"
    verdict = view.build(replace(result, doubts=(said(doubt),))).verdict
    assert verdict.cautions == (doubt,)
    assert "1 caution" in verdict.sentence
    assert "caution" not in view.build(result).verdict.sentence.lower()
    (teacher,) = (model for model in result.models if model.name == "teacher")
    metrics = (sample.measured(10000, top1=0.1),)
    guesses = replace(result, models=(replace(teacher, metrics=metrics), *result.models[1:]))
    (chance,) = view.build(guesses).verdict.cautions
    assert chance.startswith("teacher is no better than chance: top-1 10.0 %")
    assert chance.endswith("the training's curve shows whether it has learnt anything"), "this run has trained it"
    first = next(gate for gate in guesses.gates if gate.name == "accuracy_drop")
    open_ = replace(first, verdict="undecided", level="warn", blocks=False)
    cautions = view.build(replace(guesses, gates=(open_, *guesses.gates[1:]))).verdict.cautions
    assert len(cautions) == 2
    assert cautions[0] == chance, "before gates that are in doubt: no other figure means much"
    (chance,) = view.build(replace(guesses, curves=())).verdict.cautions
    assert chance.endswith("the weights are those of its training")
    text = "teacher is no better than chance: top-1 9.0 % on 256 training images"
    told = replace(guesses, doubts=(Finding("chance", "warning", "teacher", {"text": text}),))
    assert view.build(told).verdict.cautions == (text,)
