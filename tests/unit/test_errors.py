from __future__ import annotations

import inspect
import pickle

import pytest

from edgekd import errors
from edgekd.errors import EdgekdError, ExitCode, Problem, RecipeError

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
    assert errors.did_you_mean(word, ["kd", "fitnet", "attention_transfer"]) == text
