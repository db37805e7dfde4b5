"""Networks from the user's own file, and the key of its content."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.models.given import DATA, text_of

from edgekd.errors import ModelError
from edgekd.models import build
from edgekd.task.image_classification import purpose

OWN = """
from torch import nn
from my_blocks import block

def net(num_classes, width=4):
    return nn.Sequential(block(3, width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = net(num_classes)
    def forward(self, x):
        return self.body(x)

def number(num_classes): return num_classes
def pair(num_classes):
    class Pair(Net):
        def forward(self, x): return super().forward(x), super().forward(x)
    return Pair(num_classes)
def broken(num_classes): return [][num_classes]
def zero(num_classes): return 1 / 0
answer = 42
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "my_blocks.py").write_text(
        "from torch import nn\ndef block(a, b): return nn.Sequential(nn.Conv2d(a, b, 3), nn.ReLU(inplace=True))\n"
    )
    path = tmp_path / "my_net.py"
    path.write_text(OWN)
    return path


def test_own_file_with_a_neighbour(own: Path) -> None:
    assert build.network(f"{own}:net", {"width": 6}, purpose(DATA, 5))(build.one_input(purpose(DATA).signature)).shape == (
        1,
        5,
    )
    assert type(build.network(f"{own}:Net", {}, purpose(DATA, 5))).__name__ == "Net"
    assert str(own.parent) not in __import__("sys").path


def test_own_file_that_does_not_do(own: Path) -> None:
    def text(name: str) -> str:
        return text_of(ModelError, lambda: build.network(f"{own}:{name}", {}, purpose(DATA, 5)))

    assert text("nte") == f"{own} has no callable 'nte'\n  → did you mean net?"
    assert text("answer").startswith(f"{own} has no callable 'answer'\n")
    assert text("number") == f"{own}:number returned int, not a torch.nn.Module\n  → return the network"
    assert text("pair").startswith(f"{own}:pair has 2 outputs: 0 (1×5), 1 (1×5); several of them are (N, 5)")
    assert text("broken") == (f"{own}:broken cannot be built: list index out of range\n  → correct its args or the file")
    assert text("zero") == f"{own}:zero cannot be built: division by zero\n  → correct its args or the file"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def net(:", "SyntaxError: invalid syntax"),
        ("raise ValueError('mine')", "ValueError: mine"),
        ("import sys\nsys.exit('give a config')", "SystemExit: give a config"),
    ],
)
def test_own_file_that_raises(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "bad_net.py"
    path.write_text(content)
    text = text_of(ModelError, lambda: build.network(f"{path}:net", {}, purpose(DATA, 5)))
    assert text.startswith(f"{path} cannot be imported: {told}")


def test_own_file_missing(tmp_path: Path) -> None:
    expected = f"{tmp_path}/no.py does not exist\n  → correct the path; a relative one starts at the recipe's folder"
    assert text_of(ModelError, lambda: build.network(f"{tmp_path}/no.py:net", {}, purpose(DATA, 5))) == expected
    assert text_of(ModelError, lambda: build.source_key(f"{tmp_path}/no.py:net")) == expected


def test_source_key_is_of_the_content(own: Path, tmp_path: Path) -> None:
    key = build.source_key(f"{own}:net")
    (tmp_path / "else").mkdir()
    moved = own.rename(tmp_path / "else" / "other.py")
    (tmp_path / "my_blocks.py").rename(tmp_path / "else" / "my_blocks.py")
    assert build.source_key(f"{moved}:net") == key
    assert build.source_key(f"{moved}:Net") != key
    moved.write_text(OWN + "#")
    assert build.source_key(f"{moved}:net") != key
    assert build.source_key("torchvision:resnet18") == "torchvision:resnet18"


def test_source_key_is_of_what_the_file_imports_from_its_folder(tmp_path: Path) -> None:
    """Whatever way it is imported, and what that imports in turn; not what only lies beside it."""
    files = {
        "net.py": "import os, helper\nfrom parts.blocks import Block\ndef net(): import late\n",
        "helper.py": "from parts import sizes\n", "late.py": "", "other.py": "", "parts/__init__.py": "",
        "parts/blocks.py": "from .norms import Norm\nfrom ..outside import x\nfrom ... import y\n",
        "parts/norms.py": "import net\n", "parts/sizes.py": "", "parts/unused.py": "not python",
    }  # fmt: skip
    (tmp_path / "parts").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    source = f"{tmp_path}/net.py:net"
    before = build.source_key(source)
    assert build.source_key(source) == before
    decides = []
    for name, text in files.items():
        (tmp_path / name).write_text(text + "# changed\n")
        decides += [name] * (build.source_key(source) != before)
        (tmp_path / name).write_text(text)
    assert decides == [
        "net.py", "helper.py", "late.py", "parts/__init__.py", "parts/blocks.py", "parts/norms.py", "parts/sizes.py",
    ]  # fmt: skip


def test_source_key_has_timms_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.environment, "versions", lambda names: dict.fromkeys(names, "1.2.3"))
    assert build.source_key("timm:resnet18") == "timm:resnet18 (timm 1.2.3)"


def test_a_builder_that_does_not_take_the_number_of_classes(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def fixed():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))\n"
        "def free(**more):\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, more['num_classes']))\n"
    )
    assert build.network(f"{tmp_path}/net.py:fixed", {}, purpose(DATA, 4))(
        build.one_input(purpose(DATA).signature)
    ).shape == (1, 4)
    assert build.network(f"{tmp_path}/net.py:free", {}, purpose(DATA, 6))(
        build.one_input(purpose(DATA).signature)
    ).shape == (1, 6)
    text = text_of(ModelError, lambda: build.network(f"{tmp_path}/net.py:fixed", {}, purpose(DATA, 5)))
    assert "gives (1, 4) for one image; the data has 5 classes" in text
