"""Cause of a converter's or a runtime's failure: the operator, its place in the network, the reason, and a way out.

Converters raise exceptions of many kinds that begin with general advice. What a user needs is in the innermost exception and
in the graph that was converted: its nodes know their module and their line.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.errors import EdgekdError, ExportError, cause_of, chain
from edgekd.runtimes import base

if TYPE_CHECKING:
    from torch import fx, nn


@dataclass(frozen=True)
class Known:
    """A failure that is known: what its text has, why it comes, and what to do instead.

    ``{0}``, ``{1}`` stand for the groups of ``pattern``, ``{operator}`` for the operator in the network.
    """

    pattern: str
    why: str
    instead: str = ""


_OTHERS = "write {operator} with other operators of torch, or remove {format} from export"
KNOWN = (
    Known(
        r"Lowering not found: aten\._assert",
        "its values are checked while it runs, which TensorFlow Lite cannot",
        "compare instead: (x.unsqueeze(-1) == torch.arange(n)).float() is F.one_hot(x, n); or remove {format} from export",
    ),
    Known(
        r"Number of input tokens",
        "an operator checks values while it runs, such as those of torch.linalg, which TensorFlow Lite cannot",
        "compute it outside of the network, or remove {format} from export",
    ),
    Known(r"Lowering not found: \w+\.(\w+)", "the TensorFlow Lite converter has no {0}"),
    Known(
        r"STABLEHLO_SORT|failed to legalize operation '\w+\.sort'",
        "TensorFlow Lite has no sort, and its converter writes one that no runtime has",
        "use torch.amax or argmax where one value is enough, or remove {format} from export",
    ),
    Known(r"(STABLEHLO_\w+)", "the TensorFlow Lite runtime has no {0}, which the converter wrote"),
    Known(r"TF Select ops: (\w+)", "the TensorFlow Lite runtime has no {0}"),
    Known(r"'tfl\.(\w+)' op failed to verify that operand \d+ is at most (\d)-D",
          "TensorFlow Lite has {0} for at most {1} dimensions",
          "reshape to {1} dimensions or fewer before it, or remove {format} from export"),
    Known(r"failed to legalize operation '\w+\.convolution'",
          "the TensorFlow Lite converter cannot write a transposed convolution of this kind"),
    Known(r"failed to legalize operation '(?:\w+\.)*(\w+)'", "TensorFlow Lite has no operator for {0}"),
    Known(r"[Bb]oolean ind(?:ices|ex).*must be concrete", "the size of its result depends on values",
          "select with torch.where, which keeps the size"),
    Known(r"complex(?:64|128)|Only 1D FFT|aten::?\.?complex",
          "{label} computes in real numbers only",
          "compute the transform outside of the network, or as a product with a constant matrix"),
    Known(r"No ONNX function found for <OpOverload\(op='(?:\w+\.)?(\w+)", "torch's ONNX exporter has no {0}"),
    Known(r"No conversion rule found for operations: (\w+?)-\d+", "OpenVINO cannot read ONNX's {0}"),
    Known(r"Conversion failed for (\w+?)-\d+", "OpenVINO cannot read this {0} of the ONNX file"),
    Known(r"NOT_IMPLEMENTED.*?Could not find an implementation for (\w+)", "ONNX Runtime has no {0} for these types"),
)  # fmt: skip
"""Looked through in order; the first whose pattern is in the text of the innermost exceptions counts."""


@contextmanager
def explained(doing: str, format: str, module: Callable[[], nn.Module], log: Path | None) -> Iterator[None]:
    """Turn what a converter or runtime raises into words.

    Args:
        doing: What the block does, such as ``writing model.onnx``.
        format: ``onnx``, ``tflite`` or ``openvino``.
        module: Returns the graph that is converted, whose nodes say where an operator is; called on a failure only.
        log: Where all that the converter prints goes.

    Raises:
        ExportError: The block raised anything but an ``EdgekdError``.
    """
    try:
        yield
    except EdgekdError:
        raise
    except Exception as error:  # converters raise anything
        raise explain(error, doing, format, module(), log) from error


def explain(error: BaseException, doing: str, format: str, module: nn.Module, log: Path | None = None) -> ExportError:
    """Return the error in words: operator, place, reason, way out. Its traceback is printed, for the log."""
    traceback.print_exception(error)
    text = "\n".join(f"{type(link).__name__}: {link}" for link in reversed(chain(error)))
    node = _source_node(error, text, module)
    operator = operator_name(node) if node is not None else ""
    label = base.format_label(format)
    for known in KNOWN:
        match = re.search(known.pattern, text, re.DOTALL)
        if match is not None:
            groups = [group.removeprefix("aten.").partition(".")[0] for group in match.groups()]
            names = {"format": format, "label": label, "operator": operator or (groups[0] if groups else "the operator")}
            why, instead = known.why.format(*groups, **names), (known.instead or _OTHERS).format(*groups, **names)
            break
    else:
        why = cause_of(error)
        instead = _OTHERS.format(format=format, operator=operator or "it")
    subject = f"{operator}{place(node)}: " if node is not None else ""
    if log is not None:
        instead += f"; the full log is in {log}"
    return ExportError(f"{doing} failed: {subject}{why}", instead)


def operator_name(node: fx.Node) -> str:
    """Return the operator of a node as PyTorch calls it: ``aten.topk.default`` is ``topk``.

    Example:
        >>> import torch
        >>> operator_name(torch.fx.Graph().call_function(torch.ops.aten.topk.default))
        'topk'
    """
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 else getattr(node.target, "__name__", str(node.target))


def place(node: fx.Node) -> str:
    """Return where in the user's network a node is: its module, and the line of the user's own code where it is known."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    path: str = list(stack.values())[-1][0]
    module = path.removeprefix("network").removeprefix(
        "."
    )  # where the features of the int8 graph are read, the student is inside
    line = user_line(node.meta.get("stack_trace") or "")
    return (f" in {module}" if module else "") + (f" ({line})" if line else "")


def user_line(stack: str) -> str:
    """Return the innermost line of a stack that is not a library's, as ``net.py, line 12: return x.topk(3)``."""
    own = Path(__file__).parents[1]
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', stack)
    for file, number, code in reversed(frames):
        path = Path(file)
        if path.is_absolute() and "site-packages" not in path.parts and not path.is_relative_to(own):
            return f"{path.name}, line {number}: {code.strip()}"
    return ""


def _source_node(error: BaseException, text: str, module: nn.Module) -> fx.Node | None:
    """Find the node of the converted graph that an exception is about.

    Converters trace the graph again and take its operators apart. Their nodes know the line of the graph's code that they
    are from, and the messages of the TensorFlow Lite converter quote it. Otherwise the operator's name has to do.
    """
    from torch import fx

    if not isinstance(module, fx.GraphModule):
        return None
    nodes: dict[str, fx.Node] = {node.name: node for node in module.graph.nodes if node.op == "call_function"}
    for converting in _nodes_in_frames(error):
        made = re.findall(r"^\s*(\w+) = torch\.ops\.", converting.meta.get("stack_trace") or "", re.MULTILINE)
        for name in [*reversed(made), converting.name]:
            if name in nodes:
                return nodes[name]
        origin, stack = str(converting.meta.get("original_aten")), converting.meta.get("stack_trace")
        alike = [node for node in nodes.values() if str(node.target) == origin]
        same_line = [node for node in alike if node.meta.get("stack_trace") == stack]
        if alike:
            return (same_line or alike)[0]
    lines = module.code.split("\n")
    for number in re.findall(r"<eval_with_key>\.\d+:(\d+):\d+: error", text):
        line = lines[int(number) - 1] if int(number) <= len(lines) else ""
        name = line.strip().partition(" = ")[0]
        if name in nodes:
            return nodes[name]
    return _by_operator(text, list(nodes.values()))


def _nodes_in_frames(error: BaseException) -> Iterator[fx.Node]:
    """Yield the nodes that the converters were at when they raised, the innermost first."""
    from torch import fx

    for link in reversed(chain(error)):
        frames: list[Any] = [frame for frame, _ in traceback.walk_tb(link.__traceback__)]
        for frame in reversed(frames):
            for name in ("node", "n"):
                if isinstance(frame.f_locals.get(name), fx.Node):
                    yield frame.f_locals[name]


_CAPITALS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_RUNTIME_NAMES = {
    "STABLEHLO_SORT": ("topk", "sort", "argsort", "median", "kthvalue"),
    "STABLEHLO_SCATTER": ("fold", "col2im", "index_put", "scatter", "scatter_add"),
    "REVERSE_V2": ("flip",),
}


def _by_operator(text: str, nodes: list[fx.Node]) -> fx.Node | None:
    """Return the first node whose operator the text names: as torch does, or as a runtime calls it."""
    named = re.findall(r"operations: (\w+?)-\d|Conversion failed for (\w+?)-\d", text)
    named += [(_CAPITALS.sub("_", word), "") for word in re.findall(r"TF Select ops: (\w+)", text)]
    words = [word.lower() for pair in named for word in pair]
    words += re.findall(r"aten\.(\w+)", text)
    for runtime_name, names in _RUNTIME_NAMES.items():
        words += names if runtime_name in text else ()
    for word in filter(None, words):
        for node in nodes:
            name = operator_name(node)
            if name == word or (len(word) > 2 and re.search(rf"(^|_){word}(_|$)", name)):
                return node
    return None
