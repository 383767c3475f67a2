"""Which recipes are installed. Nothing here imports torch, nor, where all plugins are known, what the plugins offer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from contralex.api.arguments import checked
from contralex.errors import ContralexError
from contralex.plugins.discovery import unmatched
from contralex.plugins.first_party import list_recipes
from contralex.plugins.registry import Plugin, registry
from contralex.recipes import yaml
from contralex.recipes.documents import Recipe, chain, read_packed

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


@dataclass(frozen=True)
class Method:
    """A recipe that is installed. ``plugin`` with its ``version`` brings it; ``presets``: names for ``--preset``."""

    name: str
    summary: str
    plugin: str
    version: str
    presets: tuple[str, ...] = ()


class Methods(Sequence[Method]):
    """The recipes that are installed, in the order of their names. It prints as a list of lines.

    ``warnings``: a sentence for each plugin that does not work, or that is asked for and not installed.
    """

    def __init__(self, methods: Sequence[Method], warnings: Sequence[str] = ()) -> None:
        self._methods = tuple(methods)
        self.warnings = tuple(warnings)

    def __len__(self) -> int:
        return len(self._methods)

    @overload
    def __getitem__(self, index: int) -> Method: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Method]: ...

    def __getitem__(self, index: int | slice) -> Method | Sequence[Method]:
        return self._methods[index]

    def __repr__(self) -> str:
        width = max((len(method.name) for method in self), default=0)
        return "\n".join(f"{method.name:{width}}  {method.summary}" for method in self) or "No recipes are installed."


@checked
def methods() -> Methods:
    """The recipes that are installed.

    >>> import contralex
    >>> "moco-v2" in [method.name for method in contralex.methods()]
    True
    """
    found, warnings = _installed()
    read: dict[str, Recipe] = {}
    for name, (plugin, file) in found.items():
        with suppress(ContralexError):  # which its own line says
            read[name] = read_packed(name, plugin, file)
    return Methods([_method(name, plugin, file, read) for name, (plugin, file) in sorted(found.items())], warnings)


def _installed() -> tuple[dict[str, tuple[Plugin, Traversable]], list[str]]:
    """The recipes, and the warnings."""
    listed = list_recipes()
    if listed is None:
        return registry().recipes(), [*unusable_plugins(), *map(unmatched, registry().unmatched)]
    recipes = {
        name: (Plugin(found.name, found.version, found=found), file) for name, (found, file) in listed.recipes.items()
    }
    return recipes, [unmatched(word) for word in listed.unmatched]


def presets(recipe: str) -> tuple[str, ...]:
    """The presets that a recipe has, by its own file and those that it extends; none where it cannot be read."""
    try:
        return _presets(chain(recipe))
    except ContralexError:
        return ()


def _method(name: str, plugin: Plugin, file: Traversable, known: dict[str, Recipe]) -> Method:
    """``known``: as of :func:`contralex.recipes.documents.chain`."""
    try:
        recipes = chain(name, known)
    except ContralexError:  # what it extends may be what is broken
        return Method(name, _summary(name, file), plugin.name, plugin.version)
    return Method(name, str(recipes[-1].data.get("summary", "")), plugin.name, plugin.version, _presets(recipes))


def _presets(recipes: Sequence[Recipe]) -> tuple[str, ...]:
    return tuple(sorted({name for recipe in recipes for name in recipe.presets}))


def _summary(name: str, file: Traversable) -> str:
    try:
        head = yaml.read(file.read_text("utf-8"), f"{name}.yaml").data
        return str(head.get("summary", "")) if isinstance(head, dict) else ""
    except ContralexError as error:  # one broken recipe hides no other
        return f"cannot be read: {error}"


def unusable_plugins() -> Iterator[str]:
    """A sentence for each plugin that is installed and does not work."""
    for plugin in registry().plugins.values():
        if plugin.state in ("broken", "conflict", "incompatible"):
            yield f"{plugin.name} is {plugin.state}: {plugin.reason}"
