"""Networks that learn together, each the others' teacher (Deep Mutual Learning, Zhang et al. 2018, §3.1 to 3.3).

Every network minimises the recipe's terms with the others as its teachers. With `task` and `kd` at temperature 1 that is the
paper's loss of network k among K:

    L_k = CE(y, p_k) + 1 / (K - 1) · Σ_{l≠k} KL(p_l ‖ p_k)

What a network says is a constant to the others: each one's gradient is that of its own loss alone. All networks take their
step at once, from the same batch, each after what the others said before the step. The paper's algorithm 1 (from memory)
updates them in turn and asks those that are updated already once more; that costs a forward pass more of each network a
step, moves the statistics of its batch norms twice, and lets the result depend on the order of the networks. In one step a
network hardly changes what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from edgekd.distill.outputs import Facts
from edgekd.distill.teachers import Combination, Ensemble
from edgekd.distill.terms import Terms
from edgekd.errors import ModelError
from edgekd.recipe.loss import Loss
from edgekd.taps.taps import Tapped, whole_state

Outputs = tuple[Tensor, ...]
Module = TypeVar("Module", bound=nn.Module)


class Peer(nn.Module):
    """A network that learns beside the student.

    Args:
        name: What its curve is called.
        network: It.
        terms: Its loss; the others are an ensemble to it.
        seed: Of its random numbers in training, such as dropout's. They are a stream of its own: the student draws what it
            would draw alone.
    """

    def __init__(self, name: str, network: nn.Module, terms: Terms, seed: int) -> None:
        super().__init__()
        self.name = name
        self.network = Tapped(network, terms.student_paths)
        self.forward_arguments = self.network.forward_arguments
        self.terms = terms
        self._untapped = (network,)  # in a tuple, so that it is no second module
        self._seed = seed
        self._drawn: Tensor | None = None

    def forward(self, *inputs: Tensor) -> Outputs:
        """Return ``(logits, *features)``."""
        with self._own_draws(inputs[0].device):
            return cast(Outputs, self.network(*inputs))

    def snapshot(self, tapped: nn.Module) -> dict[str, Tensor]:
        """Return the weights of ``tapped``: of this network or of its average."""
        return whole_state(self._untapped[0], tapped)

    @contextmanager
    def _own_draws(self, device: torch.device) -> Iterator[None]:
        cuda = device.type == "cuda"
        source = torch.cuda.default_generators[device.index or 0] if cuda else torch.default_generator
        before = source.get_state()
        if self._drawn is None:
            source.manual_seed(self._seed)
        else:
            source.set_state(self._drawn)
        try:
            yield
        finally:
            self._drawn = source.get_state()
            source.set_state(before)


@dataclass(frozen=True)
class UntrainedPeer:
    """A network before mutual training: see :class:`Peer`."""

    network: nn.Module
    seed: int


def cohort(
    losses: Sequence[Loss], student: nn.Module, untrained: Mapping[str, UntrainedPeer],
    combine: Literal["losses", "probabilities"], example: Tensor | Mapping[str, Tensor], facts: Facts,
) -> tuple[Terms, tuple[Peer, ...]]:  # fmt: skip
    """Make the loss of the student and its peers, each with its own.

    Args:
        losses: The recipe's losses, on logits where they need a teacher.
        student: The student.
        untrained: The peers by their names.
        combine: ``losses``: a term is the mean of its values, one with each other network (DML, the equation above).
            ``probabilities``: it is its value with the mean of their probabilities (DML_e, §3.3). The gradient of `kd` at
            temperature 1 is the same either way, `p_k - mean(p_l)`; other losses differ.
        example: Input, 1×C×S×S.
        facts: What is known of the data.

    Raises:
        ModelError: A loss needs layers that a network does not have, or two networks begin alike.
    """
    networks = {"student": student, **{name: peer.network for name, peer in untrained.items()}}
    for one, other in combinations(networks, 2):
        if _alike(networks[one], networks[other]):
            raise ModelError(
                f"{other} starts from the same weights as {'the student' if one == 'student' else one}; both "
                "would stay identical",
                "give it a seed of its own, or another model",
            )

    def terms(name: str) -> Terms:
        others = {other.replace(".", "_"): network for other, network in networks.items() if other != name}
        return Terms(losses, networks[name], Ensemble(others, Combination(combine)), example, facts)

    peers = []
    for name, peer in untrained.items():
        own = seeded(peer.seed, partial(terms, name))
        peers.append(Peer(name, peer.network, own, peer.seed))
    return terms("student"), tuple(peers)


def seeded(seed: int, make: Callable[[], Module]) -> Module:
    """Make a network of random weights that no draw before decides, and that decides none after."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def _alike(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def outputs_of_others(outputs: Sequence[Outputs], learner: int) -> Outputs:
    """Return the logits of the other networks for the network ``learner``, N×others×classes, without a gradient."""
    return (torch.stack([own[0].detach() for index, own in enumerate(outputs) if index != learner], 1),)
