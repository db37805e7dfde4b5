"""What the report says of outputs and classes that int8 has lost: all of them at once, and what to type for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.report import sample

from edgekd.report import facts
from edgekd.report.verdict import causes
from edgekd.results.fidelity import Figure, WorstAgreement, WorstValue
from edgekd.results.gates import GateRecord, Limit
from edgekd.results.layers import LayerRecord
from edgekd.results.run import RunResult


def harmed(outputs: dict[str, float], *, values: bool = True) -> RunResult:
    """A run whose ONNX file has these least ratios or shares; heads give two outputs each, and their number one more."""
    result = sample.good()
    name = min(outputs, key=lambda output: outputs[output])
    figure = Figure(outputs[name], 10000, outputs[name] - 0.1, outputs[name] + 0.1)
    worst = {"worst": WorstValue(name, 1, figure, outputs)} if values else {
        "worst_agreement": WorstAgreement(name, None, figure, outputs)
    }  # fmt: skip
    models = tuple(
        replace(model, fidelity=replace(model.fidelity, **worst)) if model.name == "onnx" and model.fidelity else model
        for model in result.models
    )
    kind, limit = ("worst_sqnr_db", 5.0) if values else ("worst_agreement", 0.8)
    gate = GateRecord(
        kind, "onnx", Limit(">=", limit), outputs[name], "fail", value=f"{name}[1]" if values else name,
        low=figure.low, high=figure.high, n=10000, reference="distilled", blocks=True,
    )  # fmt: skip
    layers = tuple(
        LayerRecord(f"linear_{at}", f"head{at}", "linear", 30.0, 30.0, 30.0, "output", gives=(output, "all"))
        for at, output in enumerate(outputs)
    )
    return replace(result, models=models, gates=(*result.gates, gate), layers=layers, repair=None)


def test_every_lost_output_is_named_with_what_to_type_for_all() -> None:
    (said,) = causes(harmed({"a": 2.0, "b": -3.0, "c": 40.0}))
    assert said.startswith(
        "b[1] is lost in int8: its changes are smaller than the steps of b. So is a value of a. What to do:"
    )
    assert "keep what gives them in float with --set 'quantize.keep_float=[head1, head0]'" in said
    (alone,) = causes(harmed({"a": 2.0, "b": 30.0}))
    assert "So " not in alone
    assert "keep what gives it in float with --set 'quantize.keep_float=[head0]'" in alone


def test_no_more_than_some_are_named_and_all_are_typed() -> None:
    (said,) = causes(harmed({f"o{at}": float(at - 9) for at in range(8)}))
    assert "So are values of o1, o2, o3, o4, o5 and 2 more." in said
    assert all(f"head{at}" in said for at in range(8))


@pytest.mark.parametrize("share", [0.2, 0.79])
def test_integers_are_named_as_floats_are(share: float) -> None:
    (said,) = causes(harmed({"ids": 0.1, "flag": share, "mask": 0.81}, values=False))
    assert said.startswith(
        "ids is another value in int8 than in float: int8 loses the differences that decide it. So is a value"
    )
    assert "[head0, head1]" in said


def test_floats_and_integers_have_one_thing_to_type() -> None:
    floats, integers = harmed({"box": -3.0, "kept": 30.0}), harmed({"ids": 0.1, "same": 0.9}, values=False)
    near = integers.model("onnx")
    models = tuple(
        replace(model, fidelity=replace(model.fidelity, worst_agreement=near.fidelity.worst_agreement))
        if near and near.fidelity and model.name == "onnx" and model.fidelity else model
        for model in floats.models
    )  # fmt: skip
    layers = (floats.layers[0], replace(integers.layers[0], name="other", path="other"))
    said = [*causes(replace(floats, models=models, gates=(*floats.gates, integers.gates[-1]), layers=layers))]
    assert [line.partition(" ")[0] for line in said] == ["box[1]", "ids"]
    assert all("keep what gives them in float with --set 'quantize.keep_float=[head0, other]'" in line for line in said)


def test_lost_classes_are_counted_in_whole_numbers() -> None:
    result = sample.good()
    gate = GateRecord("lost_classes", "onnx", Limit("<=", 0.0), 2.0, "fail", value="1 4", blocks=True)
    assert facts.gate_measured(gate, result.task) == "2"
    assert facts.gate_of_value(gate, result) == ", Trouser, Coat"
