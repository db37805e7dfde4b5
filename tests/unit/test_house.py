"""The house: what stands at the root, how long modules and functions are, and no circle of files."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "pipeline" / "edgekd"
ROOM = 8
LONGEST = 500
LINES, PARAMETERS = 70, 7
NETWORKS = {"run", "propagate", "forward", "network", "model", "module", "graph", "graph_module", "student", "teacher"}
"""Names by which networks and interpreters of graphs are called."""
OF_TORCH = {"_attention"}
"""Functions with the signature of an operator of torch."""


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of edgekd that a file imports, wherever in it; of relative imports those of the same folder."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            inner = {f"{node.module}.{name.name}" for name in node.names}
            found |= inner & known.keys() or {node.module} & known.keys()
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names} & known.keys()
    return found


def test_at_the_root_only_what_everything_uses() -> None:
    root = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(root) <= ROOM, sorted(root)


def test_no_module_is_too_long() -> None:
    long = {str(path): count for path in modules().values() if (count := len(path.read_text().splitlines())) > LONGEST}
    assert not long


def test_functions_are_short_or_say_why_not() -> None:
    """A command has a parameter for each of its options; elsewhere more than seven need a comment beside the name."""
    wrong = []
    for path in modules().values():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef) or node.name in OF_TORCH:
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            many = len([one for one in given if one.arg not in ("self", "cls")]) > PARAMETERS
            excused = "#" in text.splitlines()[node.lineno - 1] or any(
                "option" in ast.unparse(d) for d in node.decorator_list
            )
            if node.end_lineno is None or node.end_lineno - node.lineno >= LINES or (many and not excused):
                wrong.append(f"{path}:{node.lineno} {node.name}")
    assert not wrong


def test_no_circle_of_files() -> None:
    """A package's own file is no part of a circle: Python runs it before its modules, whoever asks."""
    known = modules()
    graph = {name: imported(path, known) - {name} for name, path in known.items() if name != "edgekd"}
    order = graphlib.TopologicalSorter({name: {one for one in found if one != "edgekd"} for name, found in graph.items()})
    order.prepare()  # raises CycleError, with the files


def test_a_network_gets_its_inputs_by_name() -> None:
    """The arguments of ``forward`` may have another order than the inputs of the data: ``in_order`` knows it."""
    wrong = []
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or getattr(node.func, "attr", getattr(node.func, "id", "")) not in NETWORKS:
                continue
            for inner in (part for given in node.args if isinstance(given, ast.Starred) for part in ast.walk(given)):
                if (
                    isinstance(inner, ast.Attribute)
                    and inner.attr == "values"
                    and "in_order(" not in ast.unparse(inner.value)
                ):
                    wrong.append(f"{path}:{node.lineno} {ast.unparse(node)}")
    assert not wrong
