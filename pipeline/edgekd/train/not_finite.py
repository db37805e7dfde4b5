"""The cause of a loss that is NaN or infinite: the samples, the teacher, the network, its weights, or a term of the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from edgekd.errors import TrainingError
from edgekd.task.finite import FORWARD_HINT, NotFinite, first_module, not_finite


@dataclass(frozen=True)
class Batch:
    """Samples that a step is computed from.

    Attributes:
        inputs: What the network takes, by name.
        target: Labels or values.
        teacher: The teacher's ``(logits, *features)``; None without.
    """

    inputs: Mapping[str, Tensor]
    target: Tensor
    teacher: Sequence[Tensor] | None


@dataclass(frozen=True)
class Step:
    """One step of a training, as far as it was computed.

    Attributes:
        batch: What it is computed from.
        outputs: The network's primary output.
        terms: The value of each term of the loss, by name.
        place: The step in words, such as ``step 1 of epoch 1``.
        updated: Whether the weights were changed before.
        lr: Learning rate of the recipe.
        half: Whether the network computes in float16, whose largest number is 65,504.
    """

    batch: Batch
    outputs: Tensor
    terms: Mapping[str, Tensor]
    place: str
    updated: bool
    lr: float
    half: bool


def error(name: str, network: nn.Module, step: Step, again: Callable[[], object]) -> TrainingError:
    """Return the error that names what is not finite, and what to do about that.

    Args:
        name: Of the network.
        network: The network in training.
        step: Its step, whose loss is not finite.
        again: Calls the network with the inputs of the step.
    """
    values = ", ".join(f"{term} {float(value):g}" for term, value in step.terms.items())
    cause, hint = _cause(network, step, again)
    loss = float(sum(step.terms.values()))
    return TrainingError(f"{name}: the loss is {loss:g} at {step.place} ({values}): {cause}", hint)


def check_gradient(name: str, network: nn.Module, place: str, *, updated: bool) -> None:
    """See that the gradient of a finite loss is finite.

    Args:
        name: Of the network.
        network: The network, with its gradients.
        place: The step in words.
        updated: Whether the weights were changed before.

    Raises:
        TrainingError: It is not.
    """
    for parameter, value in network.named_parameters():
        if value.grad is not None and not bool(value.grad.isfinite().all()):
            root = "look in its forward() for a square root or a norm of exactly 0, whose gradient is infinite"
            raise TrainingError(
                f"{name}: the gradient of {parameter.removeprefix('network.')} is NaN or infinite at {place}, though the "
                "loss is finite",
                f"{root}, or lower the learning rate" if updated else root,
            )


def _cause(network: nn.Module, step: Step, again: Callable[[], object]) -> tuple[str, str]:
    batch = step.batch
    for port, value in batch.inputs.items():
        if found := _damaged(value):
            where = f"the input {port} is {found.kind} for {_share(found)}"
            return where, "correct the samples, and the mean and standard deviation that they are normalized with"
    if found := _damaged(batch.target):
        return f"the target is {found.kind} for {_share(found)}", "correct the targets"
    for at, value in enumerate(batch.teacher or ()):
        if found := _damaged(value):
            what = "a feature" if at else "the output"
            return f"{what} of the teacher is {found.kind} for {_share(found)}", f"as to the teacher: {FORWARD_HINT}"
    slower = f"lower the learning rate (now {step.lr:g}) or set clip_grad_norm"
    half = "; float16 ends at 65504: precision: bf16-mixed or 32-true has larger numbers" if step.half else ""
    weights = next((name for name, value in network.named_parameters() if not bool(value.isfinite().all())), None)
    if weights is not None:
        cause = f"its weight {weights.removeprefix('network.')} is NaN or infinite"
        if step.updated:
            other = "; a square root or a norm of exactly 0 in forward() has an infinite gradient at any rate"
            return f"{cause} after the steps before", slower + half + other
        return f"{cause} before the first step", "give it values in __init__() of the network, or give other weights"
    if found := _damaged(step.outputs):
        cause = f"its output is {found.kind} for {_share(found)}"
        if step.updated:
            return f"{cause}, though all weights are finite", f"{slower}{half}, or {FORWARD_HINT}"
        first = "" if _traced(network) else first_module(network, again, nan=found.nan)
        begins = f"; {first} is the first to give such values" if first else ""
        return f"{cause} before the first update of the weights{begins}", FORWARD_HINT + half
    terms = [term for term, value in step.terms.items() if not bool(value.isfinite().all())] or [*step.terms]
    cause = f"the samples, the targets and its output are finite, but not the loss {', '.join(terms)}"
    look = (
        "look at the options of this loss, at the layers that it compares and, of the loss task, at criterion() of the task"
    )
    return cause, f"{slower}{half}, or {look}" if step.updated else look + half


def _damaged(value: Tensor) -> NotFinite | None:
    return not_finite(value.detach().float().cpu().numpy()) if value.is_floating_point() else None


def _share(found: NotFinite) -> str:
    return f"{found.rows} of {found.of} samples of the batch"


def _traced(network: nn.Module) -> bool:
    """Return whether its operators are nodes of a graph, so that its modules do not tell where a value is from."""
    return any(isinstance(module, fx.GraphModule) for module in network.modules())
