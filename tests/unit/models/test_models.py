from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.errors import CheckpointError, EdgekdError, ModelError
from edgekd.models import build, checkpoints
from edgekd.models.checkpoints import Checkpoint
from edgekd.recipe.data import Data
from edgekd.task.image_classification import purpose

DATA = Data(source="fashion-mnist-mini", image_size=32)


def text_of(kind: type[EdgekdError], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.hint
    return str(caught.value)


# --- build ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "args"),
    [
        ("torchvision:mobilenet_v2", {"width_mult": 0.35}),
        ("edgekd:resnet10", {"width": 8, "stem_stride": 2}),
        ("edgekd:resnet18", {"width": 8}),
    ],
)
def test_build_fits_the_data(source: str, args: dict[str, Any]) -> None:
    model = build.network(source, args, purpose(DATA, 7))
    assert model(build.one_input(purpose(DATA).signature, 2)).shape == (2, 7)
    assert model.training


def test_build_timm() -> None:
    pytest.importorskip("timm")
    assert build.network("timm:mobilenetv3_small_050", {}, purpose(DATA, 5))(
        build.one_input(purpose(DATA).signature, 2)
    ).shape == (2, 5)


def test_timm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)  # Python's own way to say: cannot be imported
    assert text_of(ModelError, lambda: build.network("timm:x", {}, purpose(DATA, 5))) == (
        "timm is not installed\n  → pip install 'edgekd[timm]'"
    )


def test_build_is_random_as_seeded() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build.network("edgekd:resnet10", {"width": 8}, purpose(DATA, 5)).get_parameter("stem.0.weight")

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_no_activation_works_in_place() -> None:
    """A tapped feature would be overwritten by the activation after it."""
    model = build.network("torchvision:mobilenet_v2", {"width_mult": 0.35}, purpose(DATA, 5))
    assert any(isinstance(module, nn.ReLU6) for module in model.modules())
    assert not any(getattr(module, "inplace", False) for module in model.modules())


def test_unknown_models() -> None:
    assert text_of(ModelError, lambda: build.network("torchvision:mobilnet_v2", {}, purpose(DATA, 5))) == (
        "there is no model torchvision:mobilnet_v2\n  → did you mean mobilenet_v2?"
    )
    assert text_of(ModelError, lambda: build.network("edgekd:resnet10x", {}, purpose(DATA, 5))) == (
        "there is no model edgekd:resnet10x\n  → did you mean resnet10?"
    )


def test_detection_models_are_not_offered() -> None:
    names = build.names("torchvision")
    assert "mobilenet_v2" in names
    assert not any("rcnn" in name or "raft" in name for name in names)


def test_wrong_args() -> None:
    text = text_of(ModelError, lambda: build.network("edgekd:resnet10", {"widht": 8}, purpose(DATA, 5)))
    assert text.startswith("edgekd:resnet10 cannot be built with {'num_classes': 5, 'widht': 8}: ")
    assert "unexpected keyword argument 'widht'" in text


def test_class_count_that_does_not_fit() -> None:
    assert text_of(
        ModelError, lambda: build.network("edgekd:resnet10", {"num_classes": 3, "width": 8}, purpose(DATA, 5))
    ) == (
        "edgekd:resnet10 gives (1, 3) for one image; the data has 5 classes, so (1, 5) is needed\n"
        "  → set num_classes in args, or correct the data; images:DIR takes a folder's images without its labels"
    )


def test_images_that_do_not_fit() -> None:
    grey = Data(source="fashion-mnist-mini", image_size=32, channels=1)
    text = text_of(ModelError, lambda: build.network("torchvision:resnet18", {}, purpose(grey, 5)))
    assert text.startswith("torchvision:resnet18 cannot run on 1×32×32 images: ")
    assert text.endswith("\n  → write data: {channels: 3}, or correct the model")
    large = Data(source="fashion-mnist-mini", image_size=8)
    text = text_of(ModelError, lambda: build.network("torchvision:densenet121", {}, purpose(large, 5)))
    assert text.endswith("\n  → correct data.image_size, data.channels or the model")


# --- the user's own file ----------------------------------------------------------------------------------------------

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


# --- weights ----------------------------------------------------------------------------------------------------------


def small(classes: int = 5, width: int = 4) -> nn.Module:
    torch.manual_seed(classes)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, classes))


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)


WRAPPED: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "data parallel": lambda state: {f"module.{name}": value for name, value in state.items()},
}


@pytest.mark.parametrize("form", WRAPPED)
def test_weights_from_torch_files(tmp_path: Path, form: str) -> None:
    source, target = small(), small(5)
    with torch.no_grad():
        source[0].weight.add_(1)
    torch.save(WRAPPED[form](source.state_dict()), tmp_path / "w.pt")
    assert build.load_weights(target, tmp_path / "w.pt") == []
    assert same(source, target)


def test_weights_from_safetensors_in_half(tmp_path: Path) -> None:
    source, target = small(), small()
    with torch.no_grad():
        source[3].weight.add_(1)
    halves = {name: v.half() if v.is_floating_point() else v for name, v in source.state_dict().items()}
    save_file(halves, tmp_path / "w.safetensors")
    build.load_weights(target, tmp_path / "w.safetensors")
    assert target[3].weight.dtype == torch.float32
    assert torch.equal(target[3].weight, source[3].weight.half().float())


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": small().state_dict(), "config": Trap()}, tmp_path / "w.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("w.pt", "plain.pt"):
        assert text_of(CheckpointError, lambda name=name: checkpoints.read(tmp_path / name)) == (
            f"{tmp_path}/{name} holds Python objects, not only tensors; loading it could run code, so edgekd does not\n"
            "  → save only the weights: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        )
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "w.pt")
    assert "holds Python objects" in text_of(CheckpointError, lambda: checkpoints.read(tmp_path / "w.pt"))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("how", ["truncated", "empty", "text"])
def test_damaged_checkpoint(tmp_path: Path, suffix: str, how: str) -> None:
    path = tmp_path / f"w.{suffix}"
    state = small().state_dict()
    if suffix == "pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "text": b"<html>not found</html>"}[how])
    assert text_of(CheckpointError, lambda: checkpoints.read(path)).startswith(f"{path} ")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3, "w": torch.zeros(1)}, torch.zeros(2)])
def test_what_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert text_of(CheckpointError, lambda: checkpoints.read(tmp_path / "w.pt")) == (
        f"{tmp_path}/w.pt is not a state_dict\n  → save model.state_dict()"
    )


def stored(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(state, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_weights_of_another_model(tmp_path: Path) -> None:
    state = small().state_dict()
    del state["0.bias"], state["3.bias"]
    path = stored(tmp_path, state | {"4.weight": torch.zeros(1)})
    assert text_of(CheckpointError, lambda: build.load_weights(small(), path)) == (
        f"{path} does not fit the model: 2 weights of the model are not in it (first: 0.bias); "
        "1 are not in the model (first: 4.weight)\n"
        "  → is it of another architecture, or with other args? correct model, args or weights"
    )


def test_weights_of_before_num_batches_tracked(tmp_path: Path) -> None:
    """Checkpoints of torch 0.4 lack the counter; nothing depends on it."""
    source, target = small(), small()
    state = source.state_dict()
    del state["1.num_batches_tracked"]
    assert build.load_weights(target, stored(tmp_path, state)) == []


def test_weights_of_another_shape(tmp_path: Path) -> None:
    path = stored(tmp_path, small(7).state_dict())
    target = small(5)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    assert text_of(CheckpointError, lambda: build.load_weights(target, path)) == (
        f"{path} does not fit the model: 3.weight is (7, 4) in the file and (5, 4) in the model\n"
        "  → is it for the same number of classes? correct model, args or weights"
    )
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_a_student_may_have_another_head(tmp_path: Path) -> None:
    source, target = small(7), small(5)
    head = target[3].weight.clone()
    path = stored(tmp_path, source.state_dict())
    assert build.load_weights(target, path, other_head=True) == ["3.weight", "3.bias"]
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[3].weight, head)


def test_another_head_is_not_another_network(tmp_path: Path) -> None:
    """Weights of another width must not be dropped one and all: the student would start from nothing, unsaid."""
    path = stored(tmp_path, small(5, width=8).state_dict())
    text = text_of(CheckpointError, lambda: build.load_weights(small(5, width=4), path, other_head=True))
    assert text.startswith(f"{path} does not fit the model: 0.weight is (8, 3, 3, 3) in the file and (4, 3, 3, 3) in")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = small().state_dict()
    state["3.bias"][2] = value
    path = stored(tmp_path, state)
    target = small()
    with torch.no_grad():
        target[0].weight.zero_()
    assert text_of(CheckpointError, lambda: build.load_weights(target, path)) == (
        f"{path}: 3.bias holds NaN or infinity\n  → use another checkpoint"
    )
    assert not target[0].weight.any()


# --- parameters, MACs ------------------------------------------------------------------------------------------------


def test_macs_and_parameters_by_hand() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # 32·32·8·3·9
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),  # 16·16·8·9
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),  # 40
    )
    net.train()
    assert build.macs(net, purpose(DATA).signature) == 32 * 32 * 8 * 27 + 16 * 16 * 8 * 9 + 40
    assert build.parameters(net) == 216 + 80 + 45
    assert net.training


def test_example_is_always_the_same() -> None:
    assert torch.equal(build.one_input(purpose(DATA).signature, 2), build.one_input(purpose(DATA).signature, 2))
    assert build.one_input(purpose(Data(source="fashion-mnist-mini", image_size=20, channels=1)).signature).shape == (
        1,
        1,
        20,
        20,
    )


# --- trained models of the user's ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "net.backbone."])
def test_weights_with_a_prefix(tmp_path: Path, prefix: str) -> None:
    """Lightning, torch.compile and DataParallel put something before every name."""
    state = small().state_dict()
    path = stored(tmp_path, {f"{prefix}{name}": value for name, value in state.items()})
    model = small()
    assert build.load_weights(model, path) == []
    assert torch.equal(model.state_dict()["0.weight"], state["0.weight"])


def test_the_number_of_classes_is_read_from_the_head(tmp_path: Path) -> None:
    seven = build.network("torchvision:resnet18", {}, purpose(DATA, 7))
    path = stored(tmp_path, seven.state_dict())
    assert build.classes_of("torchvision:resnet18", {}, Checkpoint(path), purpose(DATA)) == 7
    assert build.classes_of("torchvision:resnet18", {"num_classes": 7}, Checkpoint(path), purpose(DATA)) == 7


def test_one_output_cannot_be_compared(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef one():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 1))\n"
    )
    path = stored(tmp_path, {"1.weight": torch.zeros(1, 3072), "1.bias": torch.zeros(1)})
    assert "has one output" in text_of(
        ModelError, lambda: build.classes_of(f"{tmp_path}/net.py:one", {}, Checkpoint(path), purpose(DATA))
    )


# --- MACs -------------------------------------------------------------------------------------------------------------


class Query(nn.Module):
    """Attention pooling with a learned query that is expanded to the batch, as in SigLIP, CaiT and DETR."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.query, self.q = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.randn(1, 1, 8)), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).flatten(2).transpose(1, 2)
        scores = self.q(self.query.expand(len(y), -1, -1)) @ y.transpose(1, 2)
        return (scores.softmax(-1) @ y)[:, 0]


class Sequence(nn.Module):
    """A layer of sequences on 16 tokens of 8."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.conv, self.layer = nn.Conv2d(3, 8, 8, 8), layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).flatten(2).transpose(1, 2)
        out = self.layer(y, y, y) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(y)
        return out[0] if isinstance(out, tuple) else out


CONV = 16 * 8 * 3 * 64


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Query(), CONV + 8 * 8 + 2 * 16 * 8),
        (Sequence(nn.MultiheadAttention(8, 2, batch_first=True)), CONV + 16 * 8 * 32 + 2 * 16 * 16 * 8),
        (Sequence(nn.TransformerEncoderLayer(8, 2, 24, batch_first=True)), CONV + 16 * 8 * (32 + 48) + 2 * 16 * 16 * 8),
        (Sequence(nn.LSTM(8, 8, batch_first=True)), CONV + 16 * 4 * 8 * 16),
        (Sequence(nn.GRU(8, 8, batch_first=True)), CONV + 16 * 3 * 8 * 16),
    ],
    ids=["learned query", "attention", "transformer", "lstm", "gru"],
)
def test_macs_of_fused_kernels_and_of_expanded_parameters(network: nn.Module, expected: int) -> None:
    assert build.macs(network, purpose(DATA).signature) == expected
    assert all(parameter.requires_grad for parameter in network.parameters())
