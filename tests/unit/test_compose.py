"""What is typed becomes a recipe that can be kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from PIL import Image

from edgekd import compose
from edgekd.errors import RecipeError, UsageError

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
        ("photos", "--data photos does not exist\n  → give a folder of images, an .npz file, or one of fashion-mnist-mini"),
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


def test_what_was_set_is_in_the_recipe() -> None:
    loaded, text = compose.load(
        given(data="labelled", size=32, overrides=["student.args={width: 2}", "seed=3", "gates.parity_top1=off"])
    )
    value = yaml.safe_load(text)
    assert (value["student"]["args"], value["seed"]) == ({"width": 2}, 3)
    again = compose.load_text(text, loaded.path, "again").recipe
    assert again == loaded.recipe


def test_a_mistake_is_shown_in_the_recipe() -> None:
    with pytest.raises(RecipeError) as caught:
        compose.load(given(model="resnet18", data="labelled", size=32, sections={"export": ["onx"]}))
    assert "edgekd quantize:6:10: student.model: 'resnet18' does not say where the model is from" in str(caught.value)
    assert "→ write torchvision:resnet18 or timm:resnet18" in str(caught.value)
    assert "did you mean onnx?" in str(caught.value)


def test_weights_that_are_not_there() -> None:
    with pytest.raises(UsageError) as caught:
        compose.load(given(weights=Path("bst.pt")))
    assert str(caught.value) == "--weights bst.pt does not exist\n  → did you mean best.pt?"
