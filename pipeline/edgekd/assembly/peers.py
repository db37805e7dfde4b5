"""The networks that learn beside the student: what decides them, and how they are made and read again.

They have no stage of their own: the stage ``distill`` trains them with the student, and leaves ``NAME.safetensors``
of each beside the student's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.assembly import wiring
from edgekd.assembly.context import Context
from edgekd.recipe import Recipe
from edgekd.recipe.base import need
from edgekd.recipe.distill import Peer

if TYPE_CHECKING:
    from edgekd.distill.mutual import UntrainedPeer
    from edgekd.distill.teachers import Ensemble
    from edgekd.task.base import Purpose
    from edgekd.train.loop import Fitted


def sections(recipe: Recipe) -> Mapping[str, Peer]:
    """The student's peers by their names, such as ``peer.resnet18``, each with the seed it starts from."""
    named = recipe.distill.named_peers() if recipe.distill else {}
    return {
        name: peer.model_copy(update={"seed": recipe.seed + place if peer.seed is None else peer.seed})
        for place, (name, peer) in enumerate(named.items(), 1)
    }


def config(recipe: Recipe) -> dict[str, Any]:
    """Return the configuration of the student's peers: their first weights, and how several of them teach."""
    from edgekd.models.build import source_key
    from edgekd.models.checkpoints import locate

    found = sections(recipe)
    if not found:
        return {}
    made: list[dict[str, Any]] = [
        {"name": name, "model": source_key(peer.model), "args": peer.args, "seed": peer.seed}
        | ({"weights": locate(peer.weights).key()} if peer.weights else {})
        for name, peer in found.items()
    ]
    return {"peers": made, "combine": need(recipe.distill, "distill").combine}


def untrained(recipe: Recipe, purpose: Purpose, say: Callable[[str], None] | None = None) -> dict[str, UntrainedPeer]:
    """The peers as they begin, each drawn from its own seed; what is left out of given weights is told to ``say``."""
    from edgekd.distill.mutual import UntrainedPeer, seeded
    from edgekd.models import build, checkpoints

    made = {}
    for name, peer in sections(recipe).items():
        seed = need(peer.seed, f"seed for {name}")
        network = seeded(seed, partial(build.network, peer.model, peer.args, purpose))
        left_out = []
        if peer.weights:
            left_out = build.load_weights(network, checkpoints.locate(peer.weights), other_head=True, say=say)
        if left_out and say:
            say(f"  {name}: {', '.join(left_out)} left out, for another number of classes; starts at random")
        wiring.refuse_probabilities(network, purpose, name)
        made[name] = UntrainedPeer(network, seed)
    return made


def trained(recipe: Recipe, purpose: Purpose, folder: Path) -> Ensemble:
    """The peers as the stage ``distill`` has left them in ``folder``: together the teacher of what comes after it."""
    from edgekd.distill.teachers import Combination, Ensemble
    from edgekd.models import build

    members = {}
    for name, peer in sections(recipe).items():
        network = build.network(peer.model, peer.args, purpose)
        build.load_weights(network, folder / f"{name}.safetensors")
        members[name.removeprefix("peer.")] = network
    return Ensemble(members, Combination(need(recipe.distill, "distill").combine)).eval()


def save(context: Context, fitted: tuple[Fitted, ...]) -> None:
    """Write the best weights of each peer."""
    from edgekd.assembly import networks

    for peer in fitted:
        networks.save(peer.best, context.out / f"{peer.curve.model}.safetensors")
