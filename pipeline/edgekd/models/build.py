"""Models: built by name or from the user's own file, and their weights."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd import environment, reads
from edgekd.errors import CheckpointError, EdgekdError, ModelError, did_you_mean, joined
from edgekd.models import checkpoints, in_training, tied, user_file
from edgekd.models.checkpoints import Checkpoint
from edgekd.models.torchvision import import_torchvision
from edgekd.recipe.student import Shipped
from edgekd.task import primary
from edgekd.task.base import BATCH, Port, Purpose, Signature
from edgekd.task.image_classification import KIND
from edgekd.task.named import ALONE, call

if TYPE_CHECKING:
    from torch import Tensor, nn

OPEN = 16
"""Size of an open dimension in an example, such as the length of a text."""


def names(source: str) -> list[str]:
    """Names that ``source`` (``torchvision``, ``timm`` or ``edgekd``) offers."""
    if source == "torchvision":
        models = import_torchvision().models
        return sorted(models.list_models(module=models))
    if source == "timm":
        return sorted(_timm().list_models())
    from edgekd.models import zoo

    return sorted(zoo.BUILDERS)


def network(source: str, args: Mapping[str, Any], purpose: Purpose, outputs: Shipped = "primary") -> nn.Module:
    """Build a network with random weights that takes and gives what its purpose says.

    Args:
        source: ``torchvision:NAME``, ``timm:NAME``, ``edgekd:NAME`` or ``FILE.py:CALLABLE``.
        args: Keyword arguments of the builder.
        purpose: The task, and what is known of the samples. What the task tells a builder, such as ``num_classes``, is
            passed unless ``args`` has it, or the builder is the user's own and does not take it.
        outputs: Which of several outputs it returns; others are dropped.

    Raises:
        ModelError: It is not known, cannot be built, its output does not fit the task, or it lacks one of ``outputs``.
        DataError: The samples are not of the task.
    """
    import torch

    kind, _, name = source.rpartition(":")
    told = purpose.builder_args
    keywords = {**told, **args}
    try:
        if kind == "torchvision":
            _known(name, names("torchvision"), source)
            model = import_torchvision().models.get_model(name, weights=None, **keywords)
        elif kind == "timm":
            timm = _timm()
            _known(name, timm.list_models(), source)
            model = timm.create_model(name, pretrained=False, **keywords)
        elif kind == "edgekd":
            from edgekd.models import zoo

            _known(name, zoo.BUILDERS, source)
            model = zoo.BUILDERS[name](**keywords)
        else:
            builder = user_file.load(_existing_file(Path(kind)), name)
            keywords = {name: value for name, value in told.items() if _takes(builder, name)} | dict(args)
            model = builder(**keywords)
    except TypeError as error:
        raise ModelError(f"{source} cannot be built with {keywords}: {error}", "correct its args") from error
    except EdgekdError:
        raise
    except Exception as error:  # whatever the builder raises, the user's own among them
        raise ModelError(f"{source} cannot be built: {error}", "correct its args or the file") from error
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"{source} returned {type(model).__name__}, not a torch.nn.Module", "return the network")
    for module in model.modules():
        if hasattr(module, "inplace"):  # an in-place activation would overwrite a tapped feature
            setattr(module, "inplace", False)  # noqa: B010  # nn.Module declares no such attribute
    _check_output(model, source, purpose, outputs, [name for name in told if name in args])
    return model


def classes_of(source: str, args: Mapping[str, Any], weights: Checkpoint, purpose: Purpose) -> int:
    """Return the number of classes of a trained network: the size of the head in its checkpoint.

    Args:
        source: As in :func:`network`.
        args: Keyword arguments of the builder.
        weights: Its checkpoint.
        purpose: A task with classes, on samples that do not tell how many there are.

    Raises:
        ModelError: It cannot be built, or its output is not (1, classes) with two classes at least.
        CheckpointError: The weights cannot be read.
    """
    import torch

    model = network(source, args, purpose).eval()
    own = _tensors(model)
    found = checkpoints.fitting(weights, own)
    state = checkpoints.converted(weights.path, found.state, own) if found.fits else found.state
    # What the builder would make of another number of classes, it makes in its head alone.
    heads = [value for name, value in state.items() if name in own and value.ndim and value.shape != own[name].shape]
    sizes = {value.shape[0] for value in heads}
    with torch.no_grad():
        count = sizes.pop() if len(sizes) == 1 else call(model, example(purpose.signature)).shape[1]
    if count < 2:
        raise ModelError(f"{source} has one output; edgekd compares models by the greatest of several", "give it two")
    return int(count)


def example(signature: Signature, batch: int = 1) -> dict[str, Tensor]:
    """Return deterministic inputs by name, in the order of the network's arguments, for tracing and export.

    Floats are normally distributed, whole numbers are 1, which any vocabulary and mask has; an open size is ``OPEN``.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    found = {}
    for port in signature.inputs:
        shape = port.shape(batch, **{dim: OPEN for dim in port.dims if isinstance(dim, str) and dim != BATCH})
        dtype = getattr(torch, port.dtype)
        whole = not dtype.is_floating_point
        found[port.name] = torch.ones(shape, dtype=dtype) if whole else torch.randn(shape, generator=generator).to(dtype)
    return found


def one_input(signature: Signature, batch: int = 1) -> Tensor:
    """Return the example of a network of one input.

    Raises:
        ModelError: It has several.
    """
    found = example(signature, batch)
    if len(found) != 1:
        raise ModelError(f"this is not possible with several inputs: {', '.join(found)}", "give a network of one input")
    return next(iter(found.values()))


def source_key(source: str) -> str:
    """Return the identity of a model source for a cache key.

    The name, with timm's version; or the callable and the hash of the user's file, with what it imports from its folder.
    """
    kind, _, name = source.rpartition(":")
    if kind == "timm":
        return f"{source} (timm {environment.versions(['timm'])['timm']})"
    if kind in {"torchvision", "edgekd"}:
        return source
    path = _existing_file(Path(kind))
    key = reads.file_sha256(path)
    beside = sorted(user_file.imported(path))
    if beside:
        files = [(str(file.relative_to(path.parent.resolve())), reads.file_sha256(file)) for file in beside]
        key = hashlib.sha256(json.dumps([key, files]).encode()).hexdigest()
    return f"{key}:{name}"


def load_weights(
    model: nn.Module, checkpoint: Checkpoint | Path, *, other_head: bool = False, say: Callable[[str], None] | None = None
) -> list[str]:
    """Load weights into a model, exactly; types are converted to the model's.

    Args:
        model: The network to fill.
        checkpoint: The file, and which weights in it.
        other_head: Leave out the one module whose tensors have another shape (a head for other classes).
        say: Called with what of the file was not read.

    Returns:
        Names left out.

    Raises:
        CheckpointError: Keys or shapes do not fit.
    """
    path = checkpoint if isinstance(checkpoint, Path) else checkpoint.path
    own = _tensors(model)
    found = checkpoints.fitting(Checkpoint(path) if isinstance(checkpoint, Path) else checkpoint, own)
    if not found.fits:
        raise checkpoints.mismatch(path, found, own)
    state = checkpoints.converted(path, found.state, own)
    _check_ties(state, own, path)
    other = [name for name, value in state.items() if value.shape != own[name].shape]
    heads = {name.rpartition(".")[0] for name in other}
    if other and not (other_head and len(heads) == 1):  # more than one module is another network, not another head
        name = other[0]
        # Another number of classes changes how many rows a head has; another width changes what the next layer reads.
        heads_alone = all(state[key].shape[1:] == own[key].shape[1:] for key in other)
        what = "for the same number of classes" if heads_alone else "of another architecture, or with other args"
        raise CheckpointError(
            f"{path} does not fit the model: {name} is {tuple(state[name].shape)} in the file and "
            f"{tuple(own[name].shape)} in the model",
            f"is it {what}? correct model, args or weights",
        )
    bad = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        if found.state[bad[0]].isfinite().all():
            beyond = f"{path}: {bad[0]} is {found.state[bad[0]].dtype} and holds values beyond {state[bad[0]].dtype}"
            raise CheckpointError(beyond.replace("torch.", ""), "scale the weights, or use another checkpoint")
        raise CheckpointError(f"{path}: {bad[0]} holds NaN or infinity", "use another checkpoint")
    if say:
        for note in _notes(found, path):
            say(f"  {path.name}: {note}")
    model.load_state_dict({name: value for name, value in state.items() if name not in other}, strict=False)
    return other


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """A network's state_dict without extra state, which may be anything."""
    return {name: value for name, value in model.state_dict().items() if not name.endswith("_extra_state")}


def _notes(found: checkpoints.Fitting, path: Path) -> Iterator[str]:
    """What of a file is not read, or not read as it is."""
    for passed in found.others:
        yield f"reads {found}; not read: {passed}"
    if found.beside:
        tensors = "1 tensor" if len(found.beside) == 1 else f"{len(found.beside)} tensors"
        yield f"not read: {tensors} of something else, such as {found.beside[0]}"
    if found.values:
        more = f" and {len(found.values) - 3} more" if len(found.values) > 3 else ""
        yield f"not read: {', '.join(found.values[:3])}{more}, beside the tensors"
    small = sorted({str(value.dtype) for value in found.state.values() if value.is_floating_point() and value.itemsize < 2})
    if small:
        yield f"converts {', '.join(small)}; scales, if there are any, are not applied"


def _check_ties(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Check that the file has one tensor where the model has one of several names.

    Raises:
        CheckpointError: It has two different ones.
    """
    for name, first in tied.aliases(own).items():
        if state[name].shape == state[first].shape and not state[name].equal(state[first]):
            raise CheckpointError(
                f"{path} does not fit the model: {first} and {name} are one tensor in the model and differ in the file",
                f"load it into the network that it was saved from, or untie {first} and {name} in the model",
            )


def dropped(model: nn.Module, outputs: Shipped = "primary") -> tuple[str, ...]:
    """Return the outputs of a built network that are in no file, each with its shape.

    Args:
        model: The network.
        outputs: Those that are shipped beside the primary one.
    """
    found = other_outputs(model)
    shipped = {"primary": (), "all": tuple(found)}[outputs] if isinstance(outputs, str) else outputs
    return tuple(primary.shown(name, shape) for name, shape in found.items() if name not in shipped)


def other_outputs(model: nn.Module) -> Mapping[str, tuple[int, ...]]:
    """Return the outputs of a built network beside its primary one, for one sample."""
    found: Mapping[str, tuple[int, ...]] = getattr(model, "other_outputs", {})
    return found


def parameters(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, *signatures: Signature) -> int:
    """Multiply-accumulates of convolutions and matrix products for one sample; of several networks, for what each sees."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # The counter hooks what requires a gradient, and fails at a view of a parameter, which has no gradient function here.
    model = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad(), _plain_kernels(), FlopCounterMode(display=False) as counter:
        if len(signatures) == 1:
            call(model, example(signatures[0]))
        else:
            model(tuple(one_input(seen) for seen in signatures))
    return int(counter.get_total_flops()) // 2


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Run attention and recurrent layers as matrix products, which the counter knows; it counts fused kernels as 0."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.filterwarnings("ignore", message="TF32 acceleration")  # of a flag that is set again with the others
            with torch.backends.mkldnn.flags(enabled=False):
                yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _existing_file(path: Path) -> Path:
    if reason := reads.unreadable(path):
        hint = "correct the path; a relative one starts at the recipe's folder"
        raise ModelError(f"{path} {reason}", hint if reason == "does not exist" else "correct the path, or its permissions")
    return path


def _takes(builder: Any, keyword: str) -> bool:
    """Return whether a callable takes a keyword argument; one that does not say is taken to."""
    try:
        parameters = inspect.signature(builder).parameters
    except (TypeError, ValueError):
        return True
    return keyword in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _known(name: str, allowed: Any, source: str) -> None:
    if name not in allowed:
        raise ModelError(f"there is no model {source}", did_you_mean(name, allowed))


def _timm() -> Any:
    import_torchvision()  # timm imports torchvision itself
    try:
        import timm
    except ImportError as error:
        raise ModelError("timm is not installed", "pip install 'edgekd[timm]'") from error
    return timm


def _about_images(error: Exception, image: Port) -> str:
    """What to change where a network cannot run on the images."""
    channels = re.search(r"to have (\d+) channels, but got (\d+) channels", str(error))  # a convolution of torch says it
    if channels and channels[1] in ("1", "3") and int(channels[2]) == image.dims[1]:
        return f"write data: {{channels: {channels[1]}}}, or correct the model"
    return "correct data.image_size, data.channels or the model"


def _check_output(model: nn.Module, source: str, purpose: Purpose, outputs: Shipped, own: Sequence[str]) -> None:
    """See that a network takes and gives what its purpose says; ``own``: arguments that the task would tell the builder."""
    import torch

    signature = purpose.signature
    training, port = model.training, signature.output
    sample = "image" if signature.inputs[0].kind == "image" else "sample"
    try:
        with torch.no_grad():
            output: object = call(model.eval(), example(signature))
    except ModelError:
        raise
    except Exception as error:  # any failure of the user's forward
        if sample == "image":
            what, hint = "×".join(map(str, signature.inputs[0].dims[1:])), _about_images(error, signature.inputs[0])
            raise ModelError(f"{source} cannot run on {what} images: {error}", hint) from error
        what = ", ".join(map(str, signature.inputs))
        raise ModelError(f"{source} cannot run on {what}: {error}", "correct the data or the model") from error
    several = not isinstance(output, torch.Tensor)
    if not isinstance(output, torch.Tensor):
        found = [(name, tuple(value.shape)) for name, value in primary.tensors(output) if isinstance(value, torch.Tensor)]
        chosen = primary.choose(found, port, source)
        output = primary.of(output, chosen.name, source, port)
        others = _others(found, chosen.name, outputs, source)
        _check_shipped(model, source, purpose, (chosen.name, *others))
        primary.keep(model, chosen.name, port, others)
        beside = {name: shape for name, shape in found if name != chosen.name}
        model.other_outputs = beside  # type: ignore[assignment]  # a plain attribute, for `dropped`
    elif not isinstance(outputs, str):
        _others([(port.name, tuple(output.shape))], port.name, outputs, source)
    if not isinstance(output, torch.Tensor):
        raise ModelError(f"{source} returned {type(output).__name__}, not a tensor", f"return the {port.name}")
    model.train(training)
    shape = tuple(output.shape)
    if shape[:1] == (1,) and primary.fits(shape, port):
        if not several and not source.startswith("edgekd:"):  # networks of edgekd return the same in both modes
            in_training.keep_primary(model, example(signature), port)
        return
    given, needed = f"{source} gives {shape} for one {sample}", f"({', '.join(map(str, (1, *port.dims[1:])))})"
    if port.kind != "logits":
        raise ModelError(f"{given}; the data needs {needed}", "correct the network's args, or the data")
    if isinstance(port.dims[1], str):
        raise ModelError(f"{given}; edgekd needs {needed}", "return only the logits")
    raise ModelError(
        f"{given}; the data has {port.dims[1]} classes, so {needed} is needed",
        f"remove {joined(own)} from args: the data tells it, or correct the data"
        if own
        else "set num_classes in args, or correct the data; images:DIR takes a folder's images without its labels",
    )


def _check_shipped(model: nn.Module, source: str, purpose: Purpose, shipped: Sequence[str]) -> None:
    """Check the outputs of a network that go into its files, of several, in evaluation mode.

    Raises:
        ModelError: One is not of as many samples as the inputs, is the same tensor as another, or has the name of an input.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            returned = call(model, example(purpose.signature, batch=2))
        except Exception as error:  # any failure of the user's forward
            hint = "let the first dimension of every input and output count samples"
            raise ModelError(f"{source} cannot run on two samples: {error}", hint) from error
    named = dict(primary.tensors(returned))
    inputs = [ALONE] if purpose.task.kind == KIND else [port.name for port in purpose.signature.inputs]
    places: dict[tuple[object, ...], str] = {}
    for name in shipped:
        rest = ", ".join(each for each in shipped[1:] if each != name)
        value, instead = named[name], f"write student.outputs: {f'[{rest}]' if rest else 'primary'}"
        if tuple(value.shape[:1]) != (2,):
            shape = primary.shown(name, tuple(value.shape))
            raise ModelError(f"the output {shape} of {source} does not have a row for each of two samples", instead)
        if name in inputs:
            raise ModelError(f"{name} is an input and an output of the files of {source}", "give the output another name")
        place = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)
        if value.numel() and place in places:
            raise ModelError(f"the outputs {places[place]} and {name} of {source} are the same tensor", instead)
        places[place] = name


def _others(found: Sequence[tuple[str, tuple[int, ...]]], chosen: str, outputs: Shipped, source: str) -> tuple[str, ...]:
    """Return the outputs that are shipped beside the primary one, ``chosen``.

    Raises:
        ModelError: One does not exist, or its first dimension does not count samples.
    """
    if outputs == "primary":
        return ()
    shapes = dict(found)
    wanted = tuple(name for name in (shapes if outputs == "all" else outputs) if name != chosen)
    for name in wanted:
        if name not in shapes:
            raise ModelError(f"{source} has no output {name!r}", did_you_mean(name, shapes))
        if shapes[name][:1] != (1,):
            raise ModelError(
                f"the first dimension of the output {primary.shown(name, shapes[name])} of {source} does not count samples",
                "leave it out of student.outputs",
            )
    return wanted
