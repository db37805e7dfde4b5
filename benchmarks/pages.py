"""Write the generated parts of the pages in docs/.

    python benchmarks/pages.py

docs/architecture.md has the layers of pyproject.toml, each folder with the first line of its docstring;
docs/extending.md has the files of docs/examples/; docs/python.md has the session of README.md and the docstrings of the
public functions.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import tomllib
from pathlib import Path

import edgekd

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pipeline" / "edgekd"
DOCS = ROOT / "docs"
WIDTH = 118
EXAMPLES = {"loss": "edgekd-huber", "task": "edgekd-tabular", "source": "edgekd-csv"}
"""By its mark in docs/extending.md, each package of docs/examples/."""


def layers() -> list[list[str]]:
    """Return the layers from the highest to the lowest, each with its folders and modules."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["type"] == "layers" and "layers" in contract]
    return [[name.strip() for name in layer.replace(":", "|").split("|")] for layer in contract["layers"]]


def job(name: str) -> str:
    """Return the first line of the docstring of a folder or a module."""
    folder = PACKAGE / name / "__init__.py"
    path = folder if folder.exists() else PACKAGE / f"{name}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    if not docstring:
        raise ValueError(f"{path.relative_to(ROOT)} has no docstring")
    return docstring.splitlines()[0].replace("``", "`")


def picture() -> str:
    """Return the layers as text: a line between two layers is a step that imports only go down."""
    folders = [name for layer in layers() for name in layer]
    wide = max(map(len, folders)) + 4
    rows = []
    for layer in layers():
        for name in layer:
            label = f"{name}/" if (PACKAGE / name).is_dir() else name
            head, *rest = textwrap.wrap(job(name), WIDTH - wide)
            rows += [f"{label:<{wide}}{head}", *(" " * wide + line for line in rest)]
        rows.append("─" * WIDTH)
    return "\n".join(["```text", *rows[:-1], "```"])


def replaced(text: str, marker: str, block: str) -> str:
    """Return the text with another block between ``<!-- marker -->`` and ``<!-- /marker -->``."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
    new, count = re.subn(pattern, lambda found: f"{found[1]}{block}\n{found[2]}", text, flags=re.S)
    if count != 1:
        raise ValueError(f"{count} places are marked {marker}")
    return new


def files(example: str) -> str:
    """Return the files of an example package as code blocks, each under its name."""
    languages = {".toml": "toml", ".py": "python"}
    found = (path for path in (DOCS / "examples" / example).iterdir() if path.suffix in languages)
    paths = sorted(found, key=lambda path: (path.suffix != ".toml", path.name.startswith("test_")))
    blocks = [f"`{path.name}`\n\n```{languages[path.suffix]}\n{path.read_text('utf-8')}```" for path in paths]
    return "\n\n".join(blocks)


def examples(page: str) -> str:
    """Return docs/extending.md with the files of each example package."""
    for marker, example in EXAMPLES.items():
        page = replaced(page, marker, files(example))
    return page


def session() -> str:
    """Return the Python session of README.md."""
    (block,) = re.findall(r"```python\n.*?```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    return str(block)


def functions() -> str:
    """Return a section for each public function: what it does, its arguments, result and errors."""
    return "\n\n".join(_function(name) for name in edgekd.__all__)


def _function(name: str) -> str:
    function = getattr(edgekd, name)
    parts = re.split(r"^(Args|Returns|Raises|Example):\n", inspect.cleandoc(function.__doc__), flags=re.MULTILINE)
    sections = {title: _entries(text) for title, text in zip(parts[1::2], parts[2::2], strict=True)}
    parameters = inspect.signature(function).parameters
    arguments = (
        f"| `{key}` | `{_cell(str(parameters[key].annotation))}` | {_default(parameters[key])} | {meaning} |"
        for key, meaning in sections["Args"].items()
    )
    lines = [f"### {name}", "", _cell(parts[0].strip()), ""]
    lines += ["| argument | type | default | meaning |", "|---|---|---|---|", *arguments]
    if "Returns" in sections:
        lines += ["", f"Returns: {sections['Returns']['']}"]
    lines += ["", "| error | raised when |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{key}` | {meaning} |" for key, meaning in sections["Raises"].items())])


def _entries(text: str) -> dict[str, str]:
    """Return ``name: meaning`` entries of a docstring's section; text without names stands under the empty name."""
    text = inspect.cleandoc(text)
    entries = re.findall(r"^(\w+): (.*?)(?=^\w+: |\Z)", text, re.DOTALL | re.MULTILINE) or [("", text)]
    return {name: _cell(meaning) for name, meaning in entries}


def _default(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return "one or more"
    return "**required**" if parameter.default is parameter.empty else f"`{parameter.default!r}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def rendered() -> dict[Path, str]:
    """Return the pages as they should be."""
    architecture, extending, python = (DOCS / f"{name}.md" for name in ("architecture", "extending", "python"))
    return {
        architecture: replaced(architecture.read_text("utf-8"), "layers", picture()),
        extending: examples(extending.read_text("utf-8")),
        python: replaced(replaced(python.read_text("utf-8"), "session", session()), "api", functions()),
    }


def main() -> None:
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
