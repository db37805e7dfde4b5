"""Conflicts of peers with other keys."""

from __future__ import annotations

from edgekd.loading.conflicts.found import Found
from edgekd.recipe import Recipe
from edgekd.recipe.distill import Distill
from edgekd.recipe.student import Rewrite
from edgekd.recipe.teacher import Teacher


def conflicts(distill: Distill, teacher: Teacher | None, prefix: str) -> Found:
    """Yield (key, message, hint) for each mistake in the peers of ``distill``; ``prefix`` leads to it and to ``teacher``."""
    key = f"{prefix}distill"
    if len(distill.peers) < 2 and distill.combine != "losses":
        said = "there are no peers" if not distill.peers else "there is one peer"
        yield f"{key}.combine", f"{said}, and nothing to combine", "remove combine, or add a peer"
    if not distill.peers:
        return
    if prefix:
        yield f"{key}.peers", "only the student has peers", "move them to distill, or remove them"
        return
    if teacher is not None:
        yield f"{key}.peers", "a teacher and peers exclude each other", "remove teacher, or peers"
    names = [peer.name for peer in distill.peers if peer.name]
    for index, peer in enumerate(distill.peers):
        if peer.name and names.count(peer.name) > 1:
            count = names.count(peer.name)
            yield f"{key}.peers[{index}].name", f"there are {count} peers called {peer.name}", "give each a name of its own"
    for index, loss in enumerate(distill.losses):
        place = f"{key}.losses[{index}]"
        if loss.needs_teacher and loss.reads != "logits":
            yield (
                f"{place}.kind",
                f"{loss.kind} compares layers, and peers exchange only logits",
                "use kd, dkd, dist or mse_logits, or a teacher instead of peers",
            )
        if loss.teacher is not None:
            yield f"{place}.teacher", "peers all teach each other", "remove teacher here"
    if not any(loss.needs_teacher and loss.weight for loss in distill.losses):
        yield (
            f"{key}.losses",
            "there are peers but no loss uses their logits",
            f"add {{kind: kd, temperature: 1}} to the losses, or remove {key}.peers",
        )
    if distill.teacher_cache:
        yield (
            f"{key}.teacher_cache",
            "the peers' outputs change in every step, so they cannot be cached",
            "remove teacher_cache",
        )


def alike(recipe: Recipe) -> Found:
    """Yield a peer that begins as the student does: both would stay the same network."""
    student = recipe.student
    if student is None or recipe.distill is None:
        return
    if student.rewrite != Rewrite():
        return
    own = range(recipe.seed, recipe.seed + recipe.seeds)
    for index, peer in enumerate(recipe.distill.peers):
        if peer.seed in own and (peer.model, peer.args, peer.weights) == (student.model, student.args, student.weights):
            yield (
                f"distill.peers[{index}].seed",
                "the student has the same network and seed, so both would be identical",
                f"give another, such as {own.stop}, or remove seed",
            )
