"""Which plugins are installed, what each offers, and why one that does not work does not.

Entry points are loaded one by one, so that one plugin's failure is that plugin's alone. A plugin's state is

========== ======================================================================
ready      registered; what it offers can be used
loaded     ready, and the spec that is running uses it
blocked    left out by ``CONTRALEX_PLUGINS``
conflict   it offers a kind or a recipe that another plugin offers as well
incompatible  its distribution asks for another version of contralex
broken     its entry module does not import, or does not keep to the hooks
========== ======================================================================
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from contralex import hooks
from contralex.errors import ContralexError
from contralex.hooks import PROJECT, SLOTS

if TYPE_CHECKING:
    from contralex.spec.base import Spec

VARIABLE = "CONTRALEX_PLUGINS"
_UNUSABLE = ("blocked", "incompatible", "broken", "conflict")


@dataclass
class Plugin:
    """One distribution that offers something to contralex."""

    name: str
    version: str
    state: str = "ready"
    reason: str = ""
    module: ModuleType | None = None
    kinds: dict[str, list[type[Spec]]] = field(default_factory=dict)
    recipes: dict[str, Traversable] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return self.state not in _UNUSABLE

    def fail(self, state: str, reason: str) -> None:
        self.state, self.reason = state, reason


class Registry:
    def __init__(self, choice: str = "") -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(hooks)
        self.plugins: dict[str, Plugin] = {}
        self.unmatched: list[str] = []
        self._choose = _Choice(choice)
        self._add_core()
        for point in sorted(metadata.entry_points(group=PROJECT), key=lambda point: point.name):
            self._add(point)
        self._settle_conflicts()
        self.unmatched = self._choose.unmatched(self.plugins)

    # What is installed

    def kinds(self, slot: str) -> list[str]:
        return sorted(spec.kind_name() for plugin in self._usable() for spec in plugin.kinds.get(slot, []))

    def find(self, slot: str, kind: str) -> type[Spec] | None:
        for plugin in self._usable():
            for spec in plugin.kinds.get(slot, []):
                if spec.kind_name() == kind:
                    return spec
        return None

    def owner(self, slot: str, kind: str) -> Plugin | None:
        for plugin in self._usable():
            if any(spec.kind_name() == kind for spec in plugin.kinds.get(slot, [])):
                return plugin
        return None

    def recipes(self) -> dict[str, tuple[Plugin, Traversable]]:
        return {name: (plugin, path) for plugin in self._usable() for name, path in sorted(plugin.recipes.items())}

    def giving(self, slot: str, wanted: Iterable[str]) -> list[str]:
        """Kinds of a slot that give one of the features."""
        return [kind for kind in self.kinds(slot) if self._spec(slot, kind).gives & set(wanted)]

    def content_with(self, slot: str, offers: Mapping[str, frozenset[str]]) -> list[str]:
        """Kinds of a slot that find all that they need in what the other slots offer."""
        return [
            kind
            for kind in self.kinds(slot)
            if all(wanted & offers[other] for other, wanted in self._spec(slot, kind).needs.items())
        ]

    # What is not, and how to get it

    def hint(self, slot: str, kind: str) -> str:
        """The sentence for a kind that is not there: a plugin that failed, one to install, or a near name."""
        known = self.kinds(slot)
        wanted = known_kinds().get(slot, {}).get(kind)
        return f"no {slot} of kind {kind!r} is installed{self._way(wanted, kind, known)}"

    def recipe_hint(self, name: str) -> str:
        wanted = known_recipes().get(name)
        return (
            f"no recipe {name!r} is installed, and no such file exists{self._way(wanted, name, list(self.recipes()))}"
        )

    def _way(self, distribution: str | None, name: str, known: list[str]) -> str:
        if distribution in self.plugins:
            plugin = self.plugins[distribution]
            if plugin.usable:
                return f"; it comes with another version of {distribution}: pip install -U {distribution}"
            return f": {distribution} offers it, but is {plugin.state} ({plugin.reason})"
        if distribution is not None:
            return f"; it comes with {distribution}: pip install {distribution}"
        conflicts = [plugin for plugin in self.plugins.values() if plugin.state == "conflict" and name in plugin.reason]
        if conflicts:
            return f": {conflicts[0].reason}"
        near = difflib.get_close_matches(name, known, n=1)
        return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"

    # Discovery

    def _add_core(self) -> None:
        from contralex.vocabulary import plugin as module

        self._register(Plugin(PROJECT, _version()), module)

    def _add(self, point: metadata.EntryPoint) -> None:
        name = point.dist.metadata["Name"] if point.dist else point.name
        if name in self.plugins:
            first = self.plugins[name]
            first.fail("broken", f"its distribution has two entry points in the group {PROJECT}; one is allowed")
            return
        plugin = Plugin(name, point.dist.version if point.dist else "unknown")
        self.plugins[name] = plugin
        if not self._choose.allows(name):
            plugin.fail("blocked", f"left out by {VARIABLE}={self._choose.text}")
            return
        misfit = _asks_for(point.dist)
        if misfit:
            plugin.fail("incompatible", misfit)
            return
        try:
            module = point.load()
        except (Exception, SystemExit) as error:  # whatever a stranger's module raises is its own failure
            plugin.fail("broken", f"importing {point.value} raised {type(error).__name__}: {error}")
            return
        self._register(plugin, module)

    def _register(self, plugin: Plugin, module: ModuleType) -> None:
        self.plugins[plugin.name] = plugin
        plugin.module = module
        try:
            self.manager.register(module, plugin.name)
            _known_hooks(module)
            for slot, hook in SLOTS.items():
                plugin.kinds[slot] = [_checked(slot, spec) for spec in _call(module, hook) or []]
            folder = _call(module, "contralex_recipes")
            if folder is not None:
                found = (path for path in folder.iterdir() if path.name.endswith(".yaml"))
                plugin.recipes = {path.name.removesuffix(".yaml"): path for path in found}
        except Exception as error:
            plugin.fail("broken", f"{type(error).__name__}: {error}")
            if self.manager.has_plugin(plugin.name):
                self.manager.unregister(name=plugin.name)

    def _settle_conflicts(self) -> None:
        offers: dict[str, list[Plugin]] = {}
        for plugin in self._usable():
            for slot, specs in plugin.kinds.items():
                for spec in specs:
                    offers.setdefault(f"{slot} kind {spec.kind_name()!r}", []).append(plugin)
            for recipe in plugin.recipes:
                offers.setdefault(f"recipe {recipe!r}", []).append(plugin)
        for what, plugins in offers.items():
            if len(plugins) < 2:
                continue
            names = " and ".join(plugin.name for plugin in plugins)
            rivals = [plugin for plugin in plugins if plugin.name != PROJECT]  # the core never gives way
            for plugin in rivals:
                plugin.fail("conflict", f"{names} both offer {what}; block one with {VARIABLE}=-{rivals[-1].name}")

    def _usable(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins.values() if plugin.usable]

    def _spec(self, slot: str, kind: str) -> type[Spec]:
        spec = self.find(slot, kind)
        assert spec is not None
        return spec


class _Choice:
    """``CONTRALEX_PLUGINS="a,-b"``: names allow only themselves, names after a minus are blocked."""

    def __init__(self, text: str) -> None:
        self.text = text
        words = [_normal(word.strip()) for word in text.split(",") if word.strip()]
        self.blocked = {word[1:] for word in words if word.startswith("-")}
        self.allowed = {word for word in words if not word.startswith("-")}

    def allows(self, name: str) -> bool:
        name = _normal(name)
        return name not in self.blocked and (not self.allowed or name in self.allowed)

    def unmatched(self, known: Iterable[str]) -> list[str]:
        return sorted((self.blocked | self.allowed) - {_normal(name) for name in known})


def _normal(name: str) -> str:
    """As pip compares names; a leading minus stays."""
    return re.sub(r"(?<=.)[-_.]+", "-", name).lower()


def _asks_for(distribution: metadata.Distribution | None) -> str:
    """Why the distribution's bounds exclude the running core; empty where they do not. Read before any import."""
    from packaging.requirements import Requirement

    for line in (distribution.requires if distribution else None) or []:
        requirement = Requirement(line)
        ours = requirement.name == PROJECT and not requirement.marker
        if ours and not requirement.specifier.contains(_version(), prereleases=True):
            return f"it asks for contralex{requirement.specifier}, and this is contralex {_version()}"
    return ""


def _known_hooks(module: ModuleType) -> None:
    known = {name for name in dir(hooks) if name.startswith("contralex_")}
    for name in dir(module):
        if name.startswith("contralex_") and name not in known and hasattr(getattr(module, name), "contralex_impl"):
            near = difflib.get_close_matches(name, known, n=1)
            raise ContralexError(f"there is no hook {name}" + (f"; did you mean {near[0]}?" if near else ""))


def _call(module: ModuleType, hook: str) -> Any:
    function = getattr(module, hook, None)
    return function() if function is not None and hasattr(function, "contralex_impl") else None


def _checked(slot: str, spec: Any) -> type[Spec]:
    from contralex.spec.base import Spec

    if not (isinstance(spec, type) and issubclass(spec, Spec)):
        raise ContralexError(f"{SLOTS[slot]} returned {spec!r}, which is not a subclass of contralex.Spec")
    if "kind" not in spec.model_fields or not isinstance(spec.model_fields["kind"].default, str):
        raise ContralexError(f"{spec.__name__} needs a field such as kind: Literal['my_kind'] = 'my_kind'")
    return spec


@lru_cache(maxsize=1)
def _version() -> str:
    return metadata.version(PROJECT)


@lru_cache(maxsize=1)
def _known() -> dict[str, Any]:
    text = resources.files("contralex").joinpath("known.json").read_text("utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts


def known_kinds() -> dict[str, dict[str, str]]:
    """slot -> kind -> the first-party distribution that offers it, installed or not. Written by tools/facts.py."""
    kinds: dict[str, dict[str, str]] = _known()["kinds"]
    return kinds


def known_recipes() -> dict[str, str]:
    recipes: dict[str, str] = _known()["recipes"]
    return recipes


@lru_cache(maxsize=1)
def registry() -> Registry:
    """The plugins of this environment, discovered once."""
    return Registry(os.environ.get(VARIABLE, ""))
