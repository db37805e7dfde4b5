from __future__ import annotations

import inspect
import json
import pickle

import pytest

from edgekd import errors
from edgekd.errors import EdgekdError, ExitCode, Problem, RecipeError
from edgekd.results.codec import from_json, to_json

TREE = {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls) and issubclass(cls, EdgekdError)}


def test_each_error_has_its_exit_code() -> None:
    codes = {name: int(cls.exit_code) for name, cls in TREE.items()}
    assert codes == {
        "EdgekdError": 3,
        "RecipeError": 2,
        "UsageError": 2,
        "StageError": 3,
        "DataError": 3,
        "ModelError": 3,
        "LayerError": 3,
        "CheckpointError": 3,
        "TrainingError": 3,
        "QuantizeError": 3,
        "ExportError": 3,
        "FilesError": 3,
        "StorageError": 3,
        "DeviceError": 4,
        "LostError": 4,
    }
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 130]


def test_the_documented_tree_is_the_real_one() -> None:
    assert errors.__doc__ is not None
    for name in TREE:
        assert f" {name} " in errors.__doc__
    stages = {name for name, cls in TREE.items() if errors.StageError in cls.__mro__[1:]}
    assert stages == {name for name, code in ((n, TREE[n].exit_code) for n in TREE) if code == 3} - {
        "EdgekdError", "StageError",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(TREE) - {"RecipeError"}))
def test_errors_travel_between_processes(name: str) -> None:
    error = pickle.loads(pickle.dumps(TREE[name]("what is wrong", "what to do")))
    assert type(error).__name__ == name
    assert str(error) == "what is wrong\n  → what to do"
    assert error.hint == "what to do"


def test_an_error_without_a_hint() -> None:
    assert str(EdgekdError("what is wrong")) == "what is wrong"


def test_a_recipe_error_tells_all_its_problems() -> None:
    problems = [
        Problem("a.yaml:3:5", "distill.epochs", "must be at least 1", "write epochs: 8", "  3 | epochs: 0\n    |         ^"),
        Problem("a.yaml:1:1", "", "the file is empty"),
    ]
    error = RecipeError(problems)
    assert str(error) == (
        "a.yaml:3:5: distill.epochs: must be at least 1\n  3 | epochs: 0\n    |         ^\n  → write epochs: 8\n"
        "a.yaml:1:1: the file is empty"
    )
    assert pickle.loads(pickle.dumps(error)).problems == tuple(problems)


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("fitnt", "did you mean fitnet?"),
        ("xyz", "allowed: attention_transfer, fitnet, kd"),
        ("", "allowed: attention_transfer, fitnet, kd"),
        ("attention", "did you mean attention_transfer?"),
    ],
)
def test_did_you_mean(word: str, text: str) -> None:
    assert errors.did_you_mean(word, ["kd", "", "fitnet", "attention_transfer", "kd"]) == text


class Elsewhere(errors.DeviceError):
    """An error of another package, with a constructor and an exit code of its own."""

    exit_code = ExitCode.USAGE

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"{reason} {number}", "what to do")


PROBLEM = Problem("a.yaml:3:5", "distill.epochs", "must be at least 1", "write epochs: 8")
ANY = [TREE[name]("what is wrong", "what to do") for name in sorted(set(TREE) - {"RecipeError"})]
ANY += [
    RecipeError([PROBLEM]),
    errors.FilesError("both", "hint", {"export.onnx": errors.ExportError("one", "its hint")}),
    Elsewhere(3, "what is wrong"),
]


@pytest.mark.parametrize("error", ANY, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_to_its_reader_after_a_record(error: EdgekdError) -> None:
    record = from_json(errors.ErrorRecord, json.loads(json.dumps(to_json(errors.ErrorRecord.of(error)))))
    again = record.error()
    assert (str(again), again.message, again.hint, again.exit_code) == (
        str(error),
        error.message,
        error.hint,
        error.exit_code,
    )
    assert type(again) is (errors.DeviceError if isinstance(error, Elsewhere) else type(error))
    assert getattr(again, "problems", ()) == getattr(error, "problems", ())
    assert {name: str(one) for name, one in getattr(again, "failures", {}).items()} == {
        name: str(one) for name, one in getattr(error, "failures", {}).items()
    }


@pytest.mark.parametrize("error", ANY, ids=lambda error: type(error).__name__)
def test_another_message_changes_nothing_else(error: EdgekdError) -> None:
    other = error.saying("the stage: it is wrong")
    assert (type(other), other.hint, other.exit_code) == (type(error), error.hint, error.exit_code)
    assert (other.message, other.args) == ("the stage: it is wrong", ("the stage: it is wrong",))
    assert error.message != other.message
