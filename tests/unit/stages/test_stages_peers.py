"""Networks that learn beside the student, through the stages: what decides them, what they leave, who teaches in int8."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from edgekd import loading
from edgekd.assembly import networks, peers
from edgekd.assembly.context import Context
from edgekd.assembly.stage import perform
from edgekd.cli import cli
from edgekd.engine import plan, runner
from edgekd.engine.runner import Options
from edgekd.errors import ModelError, RecipeError
from edgekd.progress import Lines, Silent
from edgekd.recipe import Recipe
from edgekd.stages import distill
from edgekd.stages.distill import DistillStage
from edgekd.stages.quantize import QuantizeStage
from edgekd.task.image_classification import purpose

RECIPE = """\
edgekd: 1
data: {{source: 'npz:{data}', image_size: 16}}
student: {{model: 'edgekd:resnet10', args: {{width: 2}}}}
distill:
  epochs: 2
  batch_size: 16
  losses: [{{kind: task}}, {{kind: kd, temperature: 1}}]
  peers:
    - {{name: wide, model: 'edgekd:resnet10', args: {{width: 4}}}}
    - {{model: 'edgekd:resnet18', args: {{width: 2}}}}
"""


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    """Stages make the whole process deterministic; other tests need not be."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def path(npz: Callable[..., str], tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(data=npz().partition(":")[2]))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Run a stage into a folder of its own."""

    def call(stage: Any, recipe: Recipe, name: str, processes: int = 1, progress: Any = None, **inputs: Path) -> Path:
        out = tmp_path / name
        out.mkdir()
        perform(stage, Context(recipe, name, out, inputs, tmp_path / "log", progress or Silent(), processes=processes))
        return out

    return call


def test_the_report_has_a_row_and_a_curve_of_each_peer(path: Path, tmp_path: Path) -> None:
    outcome = runner.run(loading.load(path), Options(tmp_path / "out", Silent()))
    result = outcome.result
    assert [(model.name, model.role) for model in result.models] == [
        ("student_alone", "baseline"), ("peer.wide", "peer"), ("peer.resnet18", "peer"), ("distilled", "student"),
    ]  # fmt: skip
    assert {curve.model for curve in result.curves} == {"student_alone", "distilled", "peer.wide", "peer.resnet18"}
    for peer in result.models[1:3]:
        curve = next(curve for curve in result.curves if curve.model == peer.name)
        assert peer.figure("top1", split="val").value == curve.val["top1"][curve.best_epoch]
        assert peer.measured() is not None
        assert peer.path == f"artifacts/{peer.name}.safetensors"
        assert load_file(outcome.folder / peer.path)["head.weight"].shape == (4, 32 if peer.name == "peer.wide" else 16)
    report = (outcome.folder / "report.md").read_text("utf-8")
    assert "Peer wide" in report
    assert (
        "trained together with edgekd:resnet10 (width 4) and edgekd:resnet18 (width 2), each the others' teacher" in report
    )
    card = (outcome.folder / "artifacts" / "MODEL_CARD.md").read_text("utf-8")
    assert "knowledge-distillation" in card
    again = plan.make(loading.load(path))
    assert {step.name for step in again if step.status == "cached"} == {"student_alone", "distill", "evaluate"}


def test_the_same_bytes_twice_and_others_from_another_seed(path: Path, run: Callable[..., Path]) -> None:
    recipe = loading.load(path).recipe
    first, second = (run(DistillStage(), recipe, name) for name in ("first", "second"))
    files = ["weights.safetensors", "last.safetensors", "peer.wide.safetensors", "peer.resnet18.safetensors"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    other = run(DistillStage(), loading.load(path, ("distill.peers[0].seed=9",)).recipe, "other")
    assert all((first / name).read_bytes() != (other / name).read_bytes() for name in files)


def test_several_processes(path: Path, run: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    """Two CPU processes: one wrapper holds all networks, and a batch norm's statistics and clipping work in each."""
    recipe = loading.load(path, ("distill.epochs=1", "distill.clip_grad_norm=1")).recipe
    out = run(DistillStage(), recipe, "two", processes=2, progress=Lines())
    assert capfd.readouterr().err.count("  distilled: started") == 1
    assert {"peer.wide.safetensors", "peer.resnet18.safetensors"} <= {file.name for file in out.iterdir()}
    curve = json.loads((out / "output.json").read_text())["peers"]["peer.wide"]
    assert curve["terms"]["kd"][0] > 0


def test_trained_peers_teach_in_int8(path: Path, run: Callable[..., Path]) -> None:
    recipe = loading.load(path, ("quantize={method: qat, epochs: 1}",)).recipe
    taught = run(DistillStage(), recipe, "distill")
    before = (taught / "peer.wide.safetensors").read_bytes()
    out = run(QuantizeStage(), recipe, "quantize", distill=taught)
    curve = json.loads((out / "output.json").read_text())["curve"]
    assert list(curve["terms"]) == ["task", "kd"]
    assert curve["terms"]["kd"][0] > 0
    assert (taught / "peer.wide.safetensors").read_bytes() == before
    # other peers, another int8 student
    state = load_file(taught / "peer.wide.safetensors")
    save_file({name: value.flip(0) for name, value in state.items()}, taught / "peer.wide.safetensors")
    other = run(QuantizeStage(), recipe, "again", distill=taught)
    assert json.loads((other / "output.json").read_text())["curve"]["terms"]["kd"] != curve["terms"]["kd"]


def test_what_decides_the_student(path: Path) -> None:
    def config(*settings: str) -> dict[str, Any]:
        return distill.config(loading.load(path, settings).recipe)

    same, plain = config(), config("distill.peers=[]", "distill.losses=[{kind: task}]")
    assert [peer["seed"] for peer in same["peers"]] == [1, 2]
    assert [peer["seed"] for peer in config("seed=5")["peers"]] == [6, 7]
    assert config("distill.peers[0].seed=1") == same
    for change in ("distill.peers[0].seed=4", "distill.combine=probabilities", "distill.peers[1].args={width: 3}"):
        assert config(change) != same
    assert not {"peers", "combine"} & {*plain, *plain["distill"]}  # the key of a recipe without peers is what it was


def test_the_student_alone_has_no_peers(path: Path) -> None:
    alone = distill.alone(loading.load(path, ("distill.combine=probabilities",)).recipe).distill
    assert alone is not None
    assert (alone.peers, alone.combine) == ((), "losses")
    assert [loss.kind for loss in alone.losses] == ["task"]


def test_peers_that_begin_alike_are_refused_before_training(path: Path, tmp_path: Path) -> None:
    twin = "distill.peers[1]={model: 'edgekd:resnet10', args: {width: 4}, seed: 1}"
    with pytest.raises(ModelError, match=r"peer\.resnet10 starts from the same weights as peer\.wide"):
        runner.run(loading.load(path, (twin,)), Options(tmp_path / "out", Silent()))
    assert not (tmp_path / "out" / "r" / "latest").exists()


@pytest.mark.parametrize("settings", [("distill.peers[0].seed=0",), ("distill.peers[0].seed=4", "seed=2", "seeds=3")])
def test_a_peer_that_begins_as_the_student_of_any_seed_is_refused(path: Path, settings: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match=r"distill\.peers\[0\]\.seed: the student has the same network and seed"):
        loading.load(path, ("distill.peers[0].args={width: 2}", *settings))
    loading.load(path, settings)  # another width is another network


def test_given_weights(path: Path, tmp_path: Path) -> None:
    recipe = loading.load(path).recipe
    network = peers.untrained(recipe, purpose(recipe.data, 10))["peer.wide"].network
    save_file({name: value + 1 for name, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    given = loading.load(path, (f"distill.peers[0].weights={tmp_path / 'w.safetensors'}",)).recipe
    said: list[str] = []
    begun = peers.untrained(given, purpose(given.data, 4), said.append)["peer.wide"].network.state_dict()
    assert said == ["  peer.wide: head.bias, head.weight left out, for another number of classes; starts at random"]
    assert torch.equal(begun["stem.0.weight"], network.state_dict()["stem.0.weight"] + 1)
    assert "weights" in distill.config(given)["peers"][0]


def test_paths_start_at_the_recipe(path: Path) -> None:
    text = path.read_text().replace("name: wide, model: 'edgekd:resnet10'", "model: net.py:Net, weights: w.pt")
    path.write_text(text.replace(", args: {width: 4}", ""))
    found = loading.load(path).recipe.distill
    assert found is not None
    assert found.peers[0].model == f"{path.parent / 'net.py'}:Net"
    assert found.peers[0].weights == str(path.parent / "w.pt")
    assert list(found.named_peers()) == ["peer.Net", "peer.resnet18"]


def test_losses_on_layers_are_refused(path: Path) -> None:
    for kind in ("fitnet", "simkd", "crd"):
        with pytest.raises(RecipeError, match=f"{kind} compares layers, and peers exchange only logits"):
            loading.load(path, (f"distill.losses[1]={{kind: {kind}}}",))
    loading.load(path, ("distill.losses[0]={kind: byot}",))


def test_plan_shows_the_layers_of_a_loss_on_its_own_stages(path: Path) -> None:
    found = CliRunner().invoke(cli, ["plan", str(path), "--layers"], standalone_mode=False)
    assert found.stdout.splitlines()[-1] == "no loss compares layers"
    text = path.read_text().replace("{kind: task}", "{kind: task}, {kind: byot}")
    path.write_text(text)
    found = CliRunner().invoke(cli, ["plan", str(path), "--layers"], standalone_mode=False)
    assert found.exception is None
    assert "byot: layer1 (2 ch) ← layer4 (16 ch)" in found.stdout


def test_in_float_they_have_the_student_s_initial_draws(path: Path, run: Callable[..., Path]) -> None:
    """Peers whose word has no weight leave the student as it is alone, through the stage as well."""
    recipe = loading.load(path).recipe
    assert recipe.distill is not None
    silent = recipe.distill.losses[1].model_copy(update={"weight": 0.0})
    deaf = recipe.model_copy(
        update={"distill": recipe.distill.model_copy(update={"losses": (recipe.distill.losses[0], silent)})}
    )
    beside, alone = run(DistillStage(), deaf, "beside"), run(DistillStage(), distill.alone(recipe), "alone")
    for name in ("weights.safetensors", "last.safetensors"):
        assert (beside / name).read_bytes() == (alone / name).read_bytes()
    assert networks.taught(recipe)


def test_peers_need_labels(path: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        loading.load(path, (f"data={{source: 'images:{tmp_path}', classes: 4}}", "baselines=[]"))
    told = "distill.peers: peers need labels, and these images have none"
    assert str(refused.value).count(told) == 1
