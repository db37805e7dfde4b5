"""A model to a functional graph of aten operators."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._pytree import tree_leaves

from edgekd.errors import QuantizeError, cause_of
from edgekd.quantization.naming import describe_several
from edgekd.task.named import Inputs, call, count, in_order

aten = torch.ops.aten


def trace(model: nn.Module, example: Inputs, decompositions: Mapping[Any, Callable[..., Any]]) -> fx.GraphModule:
    """Trace ``model`` in evaluation mode, without in-place operators.

    Args:
        model: Any module that takes tensors of any rank and type; it is not changed.
        example: One sample or several, by the names of the inputs in the order of the arguments; the batch dimension of the
            graph is free whatever N is, all other sizes become fixed.
        decompositions: Operators that are written with others, and how; they keep the values.

    Returns:
        A graph module with parameters of its own, that takes the same tensors and returns what ``model`` returns.

    Raises:
        ModelError: The inputs are not of the same number of samples.
        QuantizeError: ``torch.export`` cannot trace the model, its graph only holds for one batch size, or the model gives
            other values for one sample than for several, for a sample beside others, or at each call.
    """
    given = in_order(model, example)
    several = count(given) > 1
    one = {name: value[:1] for name, value in given.items()}
    # With N = 1 torch.export takes the batch for a constant.
    batch = tuple(value if several else torch.cat([value, value]) for value in given.values())
    try:
        # Chosen by sizes, the order of an einsum's products would hold for one batch size.
        with warnings.catch_warnings(), _without_dumps(), torch.backends.opt_einsum.flags(enabled=False):
            # Raised by torch inside its own export and copy code.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            warnings.filterwarnings("ignore", message=".*_flat_weights.*were assigned during export")
            warnings.filterwarnings(
                "ignore", message="Using padding='same' with even kernel lengths"
            )  # no copy in the graph
            own = copy.deepcopy(model).eval()
            free = ({0: Dim("batch")},) * len(batch)
            program = torch.export.export(own, batch, dynamic_shapes=_as_taken(own, free), strict=False)
            # This also makes the graph functional: in-place activations are gone afterwards, aliases included.
            graph_module: fx.GraphModule = program.run_decompositions(dict(decompositions)).module(check_guards=False)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise _in_words(error) from error
    _refuse_changes(own, graph_module, one)
    _check_one(own, graph_module, one)
    _check_alone(own, graph_module, one)
    return graph_module


def _refuse_changes(model: nn.Module, graph_module: fx.GraphModule, one: Mapping[str, Tensor]) -> None:
    """See that the model computes the same for the same sample, as a file does, and leaves the sample as it is.

    Raises:
        QuantizeError: The network overwrites an input, changes a buffer that its output depends on, or draws random numbers
            in evaluation mode.
    """
    given = [{name: value.clone() for name, value in one.items()} for _ in range(2)]
    stored = {name: value.clone() for name, value in model.named_buffers()}
    with torch.no_grad():
        try:
            first, second = ([value.clone() for value in _tensors(call(model, copies))] for copies in given)
        except Exception:  # shapes that one sample does not go through
            return
    overwritten = [name for name, value in given[0].items() if not _unchanged(one[name], value)]
    if overwritten:
        named = f" {', '.join(overwritten)}" if len(one) > 1 else ""
        raise QuantizeError(
            f"the network overwrites its input{named}",
            "let forward() compute a new tensor, such as x = x * 2 in place of x.mul_(2), or begin with x = x.clone()",
        )
    if len(first) == len(second) and all(_unchanged(a, b) for a, b in zip(first, second, strict=True)):
        return
    again = "the network gives other values each time it is called, in evaluation mode too"
    changed = [name for name, value in model.named_buffers() if name not in stored or not _unchanged(stored[name], value)]
    if changed:
        several = "buffers" if len(changed) > 1 else "buffer"
        raise QuantizeError(
            f"{again}: its forward() changes the {several} {', '.join(changed)}",
            f"a file keeps no state between two samples: change the {several} only if self.training",
        )
    drawn = list(_random_operators(graph_module.graph))
    if drawn:
        hint = (
            "write F.dropout(x, p, training=self.training), or use nn.Dropout, and leave its mode to model.eval()"
            if any("dropout" in str(node.target) for node in drawn)  # native_, alpha_ and feature_dropout too
            else "draw random numbers only if self.training"
        )
        raise QuantizeError(f"{again}: {describe_several(drawn)}", hint)
    if len(first) != len(second) or not all(_alike(a, b) for a, b in zip(first, second, strict=True)):
        hint = "a file keeps no state between two samples: look for an attribute that forward() changes, or a random number"
        raise QuantizeError(again, hint)


def _unchanged(before: Tensor, after: Tensor) -> bool:
    """Return True if two tensors have the same values; NaN is the same as NaN."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    return bool(((before == after) | ((before != before) & (after != after))).all())


def _random_operators(graph: fx.Graph) -> Iterator[fx.Node]:
    """Yield what may draw random numbers; recurrent layers with dropout draw none in evaluation mode."""
    for node in graph.nodes:
        if node.op != "call_function" or torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
            continue
        training = node.args[2] if len(node.args) > 2 else node.kwargs.get("train", True)
        if node.target is not aten.dropout.default or training:
            yield node


def _in_words(error: Exception) -> QuantizeError:
    """Say why ``torch.export`` gave up, and at which line of the model's own code."""
    text, where = str(error), _place(error)
    if isinstance(error, GuardOnDataDependentSymNode):
        return QuantizeError(
            f"the network cannot be traced: its forward() decides by the values of a tensor{where}",
            "a file has one path for all samples: compute both and choose with torch.where, or decide outside of forward()",
        )
    if "Constraints violated" in text:
        return QuantizeError(
            f"the network cannot be traced: its graph holds for one batch size only{where}",
            "write x.flatten(1) or x.reshape(x.shape[0], ...); not len(x), int(x.shape[0]) or a number for the batch",
        )
    return QuantizeError(
        f"the network cannot be traced: {cause_of(error)}{where}",
        "write its forward() only with torch operations on tensors, without a fixed batch size",
    )


def _place(error: Exception) -> str:
    """Where in the user's code it was raised: the last frame that is neither a library's nor edgekd's."""
    own = Path(__file__).parents[1]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_absolute() and "site-packages" not in path.parts and not path.is_relative_to(own):
            return f" in {path.name}, line {frame.lineno}: {frame.line}"
    return ""


def _check_one(model: nn.Module, graph_module: fx.GraphModule, one: Inputs) -> None:
    """A file takes one sample; the graph was traced with several, and has kept the path that these took.

    Raises:
        QuantizeError: The model fails for one, or has another path for it.
    """
    with torch.no_grad():
        try:
            exact = _tensors(call(model, one))
        except Exception as error:  # the model's own code, which may raise anything
            raise QuantizeError(
                f"the network fails for one sample: {cause_of(error)}{_place(error)}",
                "a file takes one sample: let forward() run in evaluation mode with a first dimension of 1",
            ) from error
        try:
            same = all(_alike(a, b) for a, b in zip(exact, _tensors(call(graph_module, one)), strict=True))
        except Exception:  # shapes that one sample does not go through
            same = False
    if not same:
        raise QuantizeError(
            "the network gives other values for one sample than for several",
            "a file takes one sample: remove special cases of forward() for one sample, such as if x.shape[0] == 1",
        )


def _check_alone(model: nn.Module, graph_module: fx.GraphModule, one: Mapping[str, Tensor]) -> None:
    """See that a sample gets the same values alone, as in a file, and beside another one, as in a test.

    Raises:
        QuantizeError: The model takes values of the whole batch, such as its mean.
    """
    if not mixes(model, one):
        return
    norms = graph_module.graph.find_nodes(op="call_function", target=aten._native_batch_norm_legit.no_stats)
    named = f": {describe_several(norms)}" if norms else ""
    raise QuantizeError(
        f"the network's answer for a sample depends on the other samples of its batch{named}",
        "a file takes one sample: let BatchNorm keep running statistics (track_running_stats=True) and train it so, or use "
        "GroupNorm; no other operator may reach across the first dimension",
    )


@contextmanager
def _without_dumps() -> Iterator[None]:
    """Keep torch from printing the graph when it gives up; the error says what matters."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _as_taken(model: nn.Module, each: tuple[Any, ...]) -> tuple[Any, ...]:
    """Nest what is of each input as ``forward`` takes them: behind ``*`` they are one argument."""
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    plain = kinds.index(inspect.Parameter.VAR_POSITIONAL) if inspect.Parameter.VAR_POSITIONAL in kinds else len(each)
    return each if len(each) <= plain else (*each[:plain], each[plain:])


def _tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def mixes(model: nn.Module, one: Mapping[str, Tensor]) -> bool:
    """Tell whether an output of a sample depends on the samples beside it; ``one`` is a sample (N = 1)."""
    return not all(_alike(a, b) for a, b in _alone_and_beside(model, one))


def _alone_and_beside(model: nn.Module, one: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each output of two samples, as each gets it alone and beside the other one."""
    for other in _others(one):
        both = {name: torch.cat([value, other[name]]) for name, value in one.items()}
        try:
            with torch.no_grad():
                first, second, two = (_tensors(call(model, _copied(given))) for given in (one, other, both))
        except (IndexError, RuntimeError):  # ids that its tables lack; in another order they are its own
            continue
        for a, b, pair in zip(first, second, two, strict=True):
            if a.ndim and a.shape[0] == 1 and pair.shape == (2, *a.shape[1:]):
                yield from ((a, pair[:1]), (b, pair[1:]))


def _others(one: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield other samples: other in all that can be, and with other ids.

    Ids that are all the same, so that one sample has the greatest; the sample's own in another order, which the network
    takes whatever its tables are.
    """
    other = {name: _other(value) for name, value in one.items()}
    yield other
    ids = [name for name, value in one.items() if not value.is_floating_point() and value.dtype is not torch.bool]
    for same in (0, 1) if ids else ():
        yield {**other, **{name: torch.full_like(one[name], same) for name in ids}}
    if ids:
        yield {**other, **{name: one[name].flip(-1) for name in ids}}
    if any(value.dtype is torch.bool for value in one.values()):  # a network may fail with another mask
        yield {name: value if value.dtype is torch.bool else _zeros_or_other(value) for name, value in one.items()}


def _copied(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in inputs.items()}


def _other(value: Tensor) -> Tensor:
    """Another sample, other in every value; of a mask over positions the first counts, so that not all are hidden."""
    if value.is_floating_point():
        return torch.rand(value.shape, generator=torch.Generator().manual_seed(0)).to(value) - value
    other = (value == 0).to(value)
    if value.dtype is torch.bool and value.ndim > 1 and value.shape[-1] > 1:
        other[..., 0] = True
    return other


def _zeros_or_other(value: Tensor) -> Tensor:
    return _other(value) if value.is_floating_point() else torch.zeros_like(value)


def _alike(a: Tensor, b: Tensor) -> bool:
    if not a.numel():
        return a.shape == b.shape
    if not a.is_floating_point():
        return bool((a != b).float().mean() <= 1e-3)  # an argmax of values that are all but equal
    finite = torch.isfinite(a)
    if not finite.all():  # damaged weights, which calibration names, or a sample whose mask hides everything
        return torch.equal(finite, torch.isfinite(b))
    return torch.allclose(a, b, rtol=1e-2, atol=1e-3 * float(a.abs().max()))
