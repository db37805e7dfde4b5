"""What is typed becomes a recipe that can be kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from edgekd.cli import cli
from edgekd.engine import compose
from edgekd.errors import CheckpointError, ModelError, RecipeError, UsageError
from edgekd.models import build, checkpoints

WEIGHTS = Path("best.pt")


def given(**more: object) -> compose.Given:
    return compose.Given(**{"command": "edgekd quantize", "model": "net.py:Net", "weights": WEIGHTS} | more)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("labelled/ant", "flat"):
        Path(name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path(name) / "0.png")
    Path("arrays.npz").write_bytes(b"")
    WEIGHTS.write_bytes(b"")


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (None, "random"),
        ("labelled", "imagefolder:labelled"),
        ("flat/", "images:flat"),
        ("arrays.npz", "npz:arrays.npz"),
        ("fashion-mnist-mini", "fashion-mnist-mini"),
        ("torchvision:CIFAR10", "torchvision:CIFAR10"),
    ],
)
def test_what_data_means(data: str | None, source: str) -> None:
    assert compose.data_source(data) == source


def test_what_edgekd_writes_beside_the_images_is_no_class() -> None:
    Path("flat/build/net").mkdir(parents=True)
    Path("flat/build/net/report.html").write_text("")
    assert compose.data_source("flat") == "images:flat"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            "photos",
            "--data photos does not exist\n  → give a folder of images, an .npz file, or one of fashion-mnist, fashion",
        ),
        ("fashion-mnist-mni", "did you mean fashion-mnist-mini?"),
        ("arrays.npz/..", "--data arrays.npz/.. does not exist"),
    ],
)
def test_data_that_is_not_there(data: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        compose.data_source(data)
    assert text in str(caught.value)


def test_normalization() -> None:
    assert compose.normalization("imagenet")[0] == [0.485, 0.456, 0.406]
    assert compose.normalization("0.5,0.4,0.3/0.1,0.2,0.3") == ([0.5, 0.4, 0.3], [0.1, 0.2, 0.3])
    for wrong in ("imagnet", "0.5", "1/2/3", "a/b"):
        with pytest.raises(UsageError, match="is not understood"):
            compose.normalization(wrong)


def test_the_recipe_is_the_one_that_runs() -> None:
    sections = {"quantize": {"method": "ptq"}, "export": ["onnx"]}
    loaded, text = compose.load(
        given(data="labelled", size=32, normalize="imagenet", sections=sections, overrides=("seed=3",))
    )
    assert loaded.name == "Net"
    assert loaded.recipe.student is not None
    assert loaded.recipe.student.weights == str(Path.cwd() / "best.pt")
    assert (loaded.recipe.data.image_size, loaded.recipe.data.mean) == (32, (0.485, 0.456, 0.406))
    assert loaded.recipe.seed == 3
    assert yaml.safe_load(text)["data"]["source"] == "imagefolder:labelled"
    assert loaded.recipe.distill is None


def test_the_size_of_photographs_is_not_taken_for_small_images() -> None:
    """All are 8×8; one that is not leaves the usual size, to which photographs are resized."""
    with pytest.raises(UsageError, match=r"--size is not given, and all images in labelled are 8×8, not 224×224") as caught:
        compose.load(given(data="labelled"))
    assert caught.value.hint == "add the size that the network was trained on: --size 8 or --size 224"
    Image.new("RGB", (9, 8)).save("labelled/ant/other.png")
    assert compose.load(given(data="labelled"))[0].recipe.data.image_size == 224
    Image.new("RGB", (9, 8)).save("labelled/ant/0.png")
    with pytest.raises(UsageError, match=r"all images in labelled are 8×9 \(height × width\), not 224×224") as caught:
        compose.load(given(data="labelled"))
    assert caught.value.hint.endswith("--size 8x9 or --size 224")
    options = {"data": "labelled", "overrides": ["data.image_size=[8, 9]"]}
    assert compose.load(given(**options))[0].recipe.data.size == (8, 9), "given by --set"


def test_python_is_told_of_its_arguments() -> None:
    what = given(data="labelled", command="edgekd.quantize")
    with pytest.raises(UsageError) as caught, compose.in_options(what):
        compose.load(what)
    assert caught.value.message == "size is not given, and all images in labelled are 8×8, not 224×224"
    assert caught.value.hint.endswith(": size=8 or size=224")
    hint = "write data: {mean: [0.5], std: [0.25]} (--normalize 0.5/0.25), the best, or --normalize 0.1,0.2/0.3,0.4 if"
    with pytest.raises(ModelError) as wrong, compose.in_options(what):
        raise ModelError("the network is wrong", hint)
    assert wrong.value.hint == 'add normalize="0.5/0.25", the best, or normalize="0.1,0.2/0.3,0.4" if'


def test_images_that_are_not_square() -> None:
    loaded, text = compose.load(given(data="labelled", size=(8, 9), normalize="half"))
    assert loaded.recipe.data.size == (8, 9)
    assert compose.load_text(text, loaded.path, "again").recipe == loaded.recipe


def test_without_labels_the_normalization_is_asked_for() -> None:
    with pytest.raises(UsageError, match="--normalize is not given, and without labels nothing shows what") as caught:
        compose.load(given(data="flat", size=8))
    for how in ("imagenet", "half", "none", "0.5/0.25", "data"):
        assert how in caught.value.hint or how == "0.5/0.25"
        mean = compose.load(given(data="flat", size=8, normalize=how, classes=2))[0].recipe.data.mean
        assert (mean is None) == (how == "data")
    assert compose.load(given(data="labelled", size=8))[0].recipe.data.mean is None  # the labels will show it


def test_what_was_set_is_in_the_recipe() -> None:
    loaded, text = compose.load(
        given(data="labelled", size=32, overrides=["student.args={width: 2}", "seed=3", "gates.parity_top1=off"])
    )
    value = yaml.safe_load(text)
    assert (value["student"]["args"], value["seed"]) == ({"width": 2}, 3)
    again = compose.load_text(text, loaded.path, "again").recipe
    assert again == loaded.recipe


def test_a_mistake_is_told_by_its_option() -> None:
    """Nobody wrote the recipe: no line of it is shown."""
    what = given(model="resnet18", data="labelled", size=32, sections={"export": ["onx"]})
    with pytest.raises(RecipeError) as caught, compose.in_options(what):
        compose.load(what)
    assert [(problem.where, problem.key, problem.snippet) for problem in caught.value.problems] == [
        ("edgekd quantize", "MODEL", ""), ("edgekd quantize", "--format", ""),
    ]  # fmt: skip
    assert str(caught.value).startswith(
        "edgekd quantize: MODEL: 'resnet18' does not say where the model is from\n  → write torchvision:resnet18 or"
    )
    assert "did you mean onnx?" in str(caught.value)


def test_classes_are_for_images_without_labels() -> None:
    what = given(data="labelled", size=32, classes=8, sections={"export": ["onnx"]})
    with pytest.raises(RecipeError) as caught, compose.in_options(what):
        compose.load(what)
    assert str(caught.value) == (
        "edgekd quantize: --classes: the labels of imagefolder already give the number of classes\n"
        "  → remove --classes, which is for images without labels"
    )


def test_what_was_set_is_told_where_it_was_typed() -> None:
    what = given(data="labelled", size=32, sections={"export": ["onnx"]}, overrides=["export=[onx]"])
    with (
        pytest.raises(RecipeError, match=r"^--set export=\[onx\]: export\[0\]: unknown format 'onx'"),
        compose.in_options(what),
    ):
        compose.load(what)


HINTS = [
    ("choose one: weights: {file}#ema, a moving average, or {file}#plain",
     "choose one: --weights runs/best.pt#ema, a moving average, or runs/best.pt#plain"),
    ("correct data.image_size, data.channels or the model", "correct --size, --channels or the model"),
    ("write data: {{channels: 1}}, or correct the model", "add --channels 1, or correct the model"),
    ("write data: {{image_size: 32}} (--size 32)", "add --size 32"),
    ("write data: {{mean: [0.5], std: [0.25]}} (--normalize 0.5/0.25), or those that it was trained with",
     "add --normalize 0.5/0.25, or those that it was trained with"),
    ("write data: {{mean: [0.5], class_order: ['1', b c]}} (--normalize half --set 'data.class_order=[\"1\", b c]')",
     "add --normalize half --set 'data.class_order=[\"1\", b c]'"),
    ("use another checkpoint", "use another checkpoint"),
    ("write teacher.data: {{image_size: 32}}", "write teacher.data: {{image_size: 32}}"),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "told"), HINTS)
def test_hints_are_in_the_words_of_the_command(hint: str, told: str) -> None:
    hint = hint.format(file=Path.cwd() / "runs" / "best.pt")
    with pytest.raises(ModelError) as caught, compose.in_options(given(weights=Path("runs/best.pt"))):
        raise ModelError("it is wrong", hint)
    assert str(caught.value) == f"it is wrong\n  → {told.format()}"


def test_a_set_is_chosen_as_the_hint_says(tmp_path: Path) -> None:
    """A hint of the command works when it is typed behind the command."""
    net = nn.Linear(2, 2)
    torch.save({"model": net.state_dict(), "ema": nn.Linear(2, 2).state_dict()}, "best.pt")
    with pytest.raises(CheckpointError) as caught, compose.in_options(given()):
        build.load_weights(net, checkpoints.locate(tmp_path / "best.pt"))
    assert caught.value.hint.startswith("choose one: --weights best.pt#ema, a moving average")
    build.load_weights(net, checkpoints.locate("best.pt#ema"))


def test_weights_that_are_not_there() -> None:
    with pytest.raises(UsageError) as caught:
        compose.load(given(weights=Path("bst.pt")))
    assert str(caught.value) == "--weights bst.pt does not exist\n  → did you mean best.pt?"
    WEIGHTS.write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        compose.load(given(weights=Path("bst.pt#ema")))
    assert str(caught.value) == "--weights bst.pt does not exist\n  → did you mean best.pt?"


@pytest.mark.parametrize(("command", "done"), [("quantize", "quantized"), ("export", "exported")])
def test_a_finished_file_is_refused_before_anything_else_is_asked(command: str, done: str) -> None:
    with pytest.raises(RecipeError, match=rf"net.onnx can be profiled \(edgekd profile net.onnx\), not {done}"):
        cli.main([command, "net.onnx"], standalone_mode=False)
    with pytest.raises(RecipeError, match="MODEL: 'resnet18' does not say where the model is from"):
        cli.main([command, "resnet18"], standalone_mode=False)
