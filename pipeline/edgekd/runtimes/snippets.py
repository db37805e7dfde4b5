"""The texts of a runtime in the programs beside a model file; ``bundle/`` puts them together with what every runtime has.

Braces are those of ``str.format``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Python:
    """Lines that define ``run({sample})``, from one sample, 1×C×H×W of an image, to its primary output.

    Attributes:
        imports: Their imports, besides numpy.
        body: They; ``{file}`` is the name of the file in the folder ``here`` (a Path), ``{input}`` the name of its input,
            ``{to_input}`` the sample in the file's layout and type, ``{from_output}`` the output as floats; ``{taken}``
            is the sample in words and ``{wanted}`` what else the file wants, both for a comment.
        raw: The output in the file's type, which ``{from_output}`` is made of.
        several: Lines that define ``run_file(arrays)`` for a file of several inputs or outputs: from arrays by the name of
            the input to arrays by the name of the output, all in the file's layout and types; ``{file}`` as in ``body``,
            ``{outputs}`` the list of the outputs' names. Empty where there are none: such a file has no load snippet.
    """

    imports: str
    body: str
    raw: str = ""
    several: str = ""


@dataclass(frozen=True)
class Cpp:
    """A struct ``Model`` in C++, which is made once and runs many images.

    Attributes:
        include: Its includes.
        body: It; ``bundle/app_snippets`` says what it may name.
        lacking: What edgekd would need to compile it in its tests; empty where they do.
        build: How to build it; ``{name}`` is the artifact's.
    """

    include: str
    body: str
    lacking: str
    build: str


@dataclass(frozen=True)
class Kotlin:
    """A class ``Model`` in Kotlin.

    Attributes:
        gradle: The dependency in build.gradle.
        body: It; ``bundle/app_snippets`` says what it may name.
        imports: Its imports.
    """

    gradle: str
    body: str
    imports: str
