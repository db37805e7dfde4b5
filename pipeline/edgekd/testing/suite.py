"""The base of all conformance suites: named checks, and gaps with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, TypeVar

import pytest

from edgekd.errors import EdgekdError
from edgekd.registry import Registry

State = Literal["not implemented", "not yet", "never"]
"""``not implemented``: nobody has written it. ``not yet``: it is planned. ``never``: it contradicts what the entry is."""


@dataclass(frozen=True)
class Gap:
    """A check that an entry does not pass, and is known not to pass.

    Attributes:
        state: Whether that may change.
        why: The reason, for a reader of the support matrix.

    Example:
        >>> str(Gap("never", "draws a mask for each image"))
        'never: draws a mask for each image'
    """

    state: State
    why: str

    def __str__(self) -> str:
        return f"{self.state}: {self.why}"


class Suite:
    """The base of the suites: subclass one of them, and give the name of your entry.

    Each method ``test_NAME`` is the check NAME. A check with variants runs once for each of them, such as ``bf16``.

    Attributes:
        name: Name of the entry in its registry.
        gaps: Checks (``NAME``) and variants that the entry does not pass, each with its reason. A gap that passes is an
            error: remove it.
        registry: Where the entry is registered.
    """

    name: ClassVar[str] = ""
    gaps: ClassVar[Mapping[str, Gap]] = {}
    registry: ClassVar[Registry[Any]]

    @classmethod
    def variants(cls) -> Mapping[str, Iterable[str]]:
        """Return the values of each fixture that a check runs once for."""
        return {}

    @classmethod
    def checks(cls) -> tuple[str, ...]:
        """Return the names of all checks, in the order of their definition."""
        names = dict.fromkeys(name for kind in reversed(cls.__mro__) for name in vars(kind) if name.startswith("test_"))
        return tuple(name.removeprefix("test_") for name in names)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a check once for each variant."""
        for fixture, values in self.variants().items():
            if fixture in metafunc.fixturenames:
                metafunc.parametrize(fixture, list(values), ids=str)

    @pytest.fixture(autouse=True)
    def _gap(self, request: pytest.FixtureRequest) -> None:
        """Expect that a gap fails, with an assertion or an error in words: anything else is a bug of the entry."""
        check = request.function.__name__.removeprefix("test_")
        variants = getattr(request.node, "callspec", None)
        gap = next((self.gaps[key] for key in (check, variants.id if variants else "") if key in self.gaps), None)
        if gap is not None:
            expected = (AssertionError, EdgekdError)
            request.applymarker(pytest.mark.xfail(reason=str(gap), strict=True, raises=expected))

    def test_name(self) -> None:
        """The entry is registered under its name, once."""
        noun = self.registry.noun
        assert self.name, f"give the suite the name of your {noun}: name = 'mine'"
        how = (
            f"name it in your pyproject.toml under [project.entry-points.{self.registry.group!r}], such as "
            f"{self.name} = 'my_package:Mine', and install the package again"
        )
        assert self.name in self.registry, f"no {noun} is called {self.name}: {how}"
        points = list(entry_points(group=self.registry.group, name=self.name))
        built_in = self.registry.get(self.name).__module__.split(".")[0] == "edgekd"
        sources = [*(["edgekd itself"] if built_in else []), *(point.value for point in points)]
        assert sources, f"{self.name} is registered in this process only: {how}"
        assert len(sources) == 1, f"{self.name} is registered {len(sources)} times, by {' and by '.join(sources)}: rename it"

    def test_gaps(self) -> None:
        """Every gap names a check or a variant, and has a reason."""
        known = {*self.checks(), *(value for values in self.variants().values() for value in values)}
        unknown = sorted(self.gaps.keys() - known)
        assert not unknown, f"no check or variant is called {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        silent = sorted(name for name, gap in self.gaps.items() if not gap.why.strip())
        assert not silent, f"give the reason of these gaps: {', '.join(silent)}"


S = TypeVar("S", bound=Suite)


def suites(
    suite: type[S],
    gaps: Mapping[str, Mapping[str, Gap]] | None = None,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, type[S]]:
    """Return one test class for each entry of a registry, to be put into the globals of a test module.

    Args:
        suite: The suite of that registry.
        gaps: By the name of an entry.
        attributes: Other attributes of its class, by the name of an entry.

    Raises:
        ValueError: Gaps or attributes of an entry that does not exist.
    """
    gaps, attributes, names = gaps or {}, attributes or {}, suite.registry.names()
    unknown = sorted({*gaps, *attributes} - {*names})
    if unknown:
        raise ValueError(f"no {suite.registry.noun} is called {', '.join(unknown)}")
    classes = {}
    for name in names:
        own = {"name": name, "gaps": gaps.get(name, {}), "__doc__": suite.__doc__, **attributes.get(name, {})}
        classes[f"Test_{name}"] = type(f"Test_{name}", (suite,), own)
    return classes
