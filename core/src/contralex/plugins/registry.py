"""Which plugins are installed, what each offers, and why one that does not work does not.

Entry points are loaded one by one, so that one plugin's failure is that plugin's alone. A plugin's state is

========== ======================================================================
ready      registered; what it offers can be used
loaded     ready, and the spec that is running uses it
blocked    left out by ``CONTRALEX_PLUGINS``
conflict   it offers a kind or a recipe that another plugin offers as well
incompatible  its distribution asks for another version of contralex
broken     its record or its entry module cannot be read, or it does not keep to the hooks
========== ======================================================================
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.resources.abc import Traversable
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pluggy

from contralex.errors import ContralexError, did_you_mean, find_similar, remedy
from contralex.plugins import first_party, hooks
from contralex.plugins.discovery import VARIABLE, Choice, InstalledPlugin, core_version, installed, normal
from contralex.plugins.guard import Ended, guarded
from contralex.plugins.hooks import OWN_COMMANDS, PROJECT, SLOTS
from contralex.plugins.layouts import Layout

if TYPE_CHECKING:
    from contralex.plugins.spec import Spec

CORE = "contralex.kinds.plugin"  # the core's own plugin
_UNUSABLE = ("blocked", "incompatible", "broken", "conflict")
_HOOKS = [name for name in vars(hooks) if name.startswith("contralex_")]  # in the order in which hooks.py has them


@dataclass
class Plugin:
    """One distribution that offers something to contralex; or a file that the ``code`` of a spec names.

    ``found``: what a distribution's record on disk says. ``code``: the file's path.
    """

    name: str
    version: str
    state: str = "ready"
    reason: str = ""
    module: ModuleType | None = None
    kinds: dict[str, list[type[Spec]]] = field(default_factory=dict)
    recipes: dict[str, Traversable] = field(default_factory=dict)
    layouts: list[Layout] = field(default_factory=list)
    hooks: list[str] = field(default_factory=list)
    settings: type[Spec] | None = None
    commands: dict[str, Callable[..., None]] = field(default_factory=dict)
    found: InstalledPlugin | None = None
    code: str = ""
    sha256: str = ""

    @property
    def usable(self) -> bool:
        return self.state not in _UNUSABLE

    def fail(self, state: str, reason: str) -> None:
        self.state, self.reason = state, reason

    def offers(self) -> Iterator[str]:
        for slot, specs in self.kinds.items():
            yield from (f"{slot} kind {spec.kind_name()!r}" for spec in specs)
        yield from (f"recipe {recipe!r}" for recipe in self.recipes)
        yield from (f"layout {layout.name!r}" for layout in self.layouts)
        yield from (f"command {command!r}" for command in self.commands)


class Registry:
    """The plugins of this environment. Where all are known (:func:`first_party.list_recipes`), one is imported when its
    kinds are first asked for, or when all plugins are."""

    def __init__(self, choice: str = "") -> None:
        self.manager = hook_manager()
        self.unmatched: list[str] = []
        self._plugins: dict[str, Plugin] = {}
        self._waiting: dict[str, InstalledPlugin] = {}  # those that are not imported yet
        self._importing = RLock()  # one of several threads imports them
        self._choose = Choice(choice)
        self._add_core()
        there = installed()
        listed = first_party.list_recipes_of(there, self._choose)
        for found in there:
            self._add(found, listed)
        self._settle_conflicts()
        self.unmatched = self._choose.unmatched(self._plugins)

    @property
    def plugins(self) -> dict[str, Plugin]:
        """All of them, by the names of their distributions, in any state."""
        if self._waiting:
            with self._importing:
                for name in list(self._waiting):
                    self._import(name)
                self._settle_conflicts()
        return self._plugins

    def find_plugin(self, name: str) -> Plugin | None:
        """The plugin of a distribution, in any state; None where it is not installed."""
        self._import(name)
        return self._plugins.get(name)

    # What is installed

    def kinds(self, slot: str) -> list[str]:
        return sorted(spec.kind_name() for plugin in self._usable() for spec in plugin.kinds.get(slot, []))

    def find(self, slot: str, kind: str) -> type[Spec] | None:
        """The spec of a kind, or None. The plugin that is known to have it is imported first, and all if it has not."""
        found = self._find_imported(slot, kind)
        if found is None and self._waiting:
            self._import(first_party.known_kinds().get(slot, {}).get(kind))
            found = self._find_imported(slot, kind)
        if found is None and self.plugins:
            found = self._find_imported(slot, kind)
        return found

    def _find_imported(self, slot: str, kind: str) -> type[Spec] | None:
        for plugin in self._plugins.values():
            for spec in plugin.kinds.get(slot, []) if plugin.usable else ():
                if spec.kind_name() == kind:
                    return spec
        return None

    def owners(self) -> dict[type[Spec], Plugin]:
        """Whose each spec is, of the plugins that are imported, as those of all specs that were found are."""
        plugins = list(self._plugins.values())
        return {spec: plugin for plugin in plugins for specs in plugin.kinds.values() for spec in specs}

    def get(self, slot: str, kind: str) -> type[Spec]:
        """The spec of a kind; a ContralexError with the way out where there is none."""
        spec = self.find(slot, kind)
        if spec is None:
            raise ContralexError(self.hint(slot, kind))
        return spec

    def owner(self, slot: str, kind: str) -> Plugin | None:
        for plugin in self._usable():
            if any(spec.kind_name() == kind for spec in plugin.kinds.get(slot, [])):
                return plugin
        return None

    def recipes(self) -> dict[str, tuple[Plugin, Traversable]]:
        usable = (plugin for plugin in self._plugins.values() if plugin.usable)
        return {name: (plugin, path) for plugin in usable for name, path in sorted(plugin.recipes.items())}

    def layouts(self) -> list[Layout]:
        """Those of published checkpoints."""
        return [layout for plugin in self._usable() for layout in plugin.layouts]

    def giving(self, slot: str, wanted: Iterable[str]) -> list[str]:
        """Kinds of a slot that give one of the features."""
        return [kind for kind in self.kinds(slot) if self.get(slot, kind).gives & set(wanted)]

    def content_with(self, slot: str, offers: Mapping[str, frozenset[str]]) -> list[str]:
        """Kinds of a slot that find all that they need in what the other slots offer."""
        return [
            kind
            for kind in self.kinds(slot)
            if all(wanted & offers.get(other, wanted) for other, wanted in self.get(slot, kind).needs.items())
        ]

    # The code of a spec

    def use(self, files: Iterable[Plugin]) -> None:
        """Takes in the code files of the spec that is being read, and lets go of those of the spec before."""
        self._plugins = {name: plugin for name, plugin in self._plugins.items() if not plugin.code}
        for file in files:
            offered = {what: plugin.name for plugin in self._usable() for what in plugin.offers()}
            shared = next((what for what in file.offers() if what in offered), None)
            if shared is not None:
                raise ContralexError(
                    f"{file.code} and {offered[shared]} both offer {shared}; give it another name in {file.name}"
                )
            self._plugins[file.name if file.name not in self._plugins else file.code] = file

    # What is not, and how to get it

    def hint(self, slot: str, kind: str) -> str:
        """The sentence for a kind that is not there: a plugin that failed, one to install, or a near name."""
        known = self.kinds(slot)
        wanted = first_party.known_kinds().get(slot, {}).get(kind)
        return f"no {slot} of kind {kind!r} is installed{self._way(wanted, kind, known)}"

    def recipe_hint(self, name: str) -> str:
        wanted = first_party.known_recipes().get(name)
        return (
            f"no recipe {name!r} is installed, and no such file exists{self._way(wanted, name, list(self.recipes()))}"
        )

    def command_hint(self, name: str) -> str:
        """The sentence for a command of a first-party plugin that cannot be used."""
        return f"no command {name!r} is installed{self._way(first_party.known_commands().get(name), name, [])}"

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
        return f"; {did_you_mean(_near(name, known)) or 'there are ' + ', '.join(known)}"

    # Discovery

    def _add_core(self) -> None:
        module = import_module(CORE)  # as any plugin's: by its name
        self._register(Plugin(PROJECT, core_version()), module)

    def _add(self, found: InstalledPlugin, listed: first_party.ListedRecipes | None) -> None:
        """``listed``: the recipes of all, where all plugins are known."""
        if normal(found.name) == PROJECT:  # a second installation of the core, which doctor reports
            return
        plugin = self._plugins[found.name] = Plugin(found.name, found.version, found=found)
        if not self._choose.allows(found.name):
            plugin.fail("blocked", f"left out by {VARIABLE}={self._choose.text}")
        elif found.problem:
            plugin.fail("broken", found.problem)
        elif found.misfit:
            plugin.fail("incompatible", found.misfit)
        else:
            self._waiting[found.name] = found
            if listed is None:
                self._import(found.name)
            else:
                plugin.recipes = listed.files_of(found)

    def _import(self, name: str | None) -> None:
        """What a plugin offers, where it is not imported yet."""
        with self._importing:
            found = self._waiting.get(name or "")
            if found is None:
                return
            choice = f"{VARIABLE}={self._choose.and_block(found.name)}"
            try:
                with guarded(f"importing {found.name}", f"To leave it out:{remedy('export', choice)}"):
                    self._load(self._plugins[found.name], found.module)
            finally:
                self._waiting.pop(found.name, None)

    def _load(self, plugin: Plugin, name: str) -> None:
        try:
            with redirect_stdout(sys.stderr):  # what a module prints is no part of a command's answer
                module = import_module(name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever a stranger's module raises, SystemExit too, is its own failure
            plugin.fail("broken", _why_not_imported(plugin.name, name, error))
            return
        twin = next((other for other in self._plugins.values() if other.module is module), None)
        if twin is not None:
            plugin.fail("broken", f"its entry point names {name}, as that of {twin.name} does; uninstall one of them")
            return
        self._register(plugin, module)

    def _register(self, plugin: Plugin, module: ModuleType) -> None:
        self._plugins[plugin.name] = plugin
        try:
            self.manager.register(module, plugin.name)
            take(plugin, module)
        except (Exception, SystemExit) as error:
            plugin.fail("broken", f"{type(error).__name__}: {error}")
            if self.manager.has_plugin(plugin.name):
                self.manager.unregister(name=plugin.name)

    def _settle_conflicts(self) -> None:
        offers: dict[str, list[Plugin]] = {}
        for plugin in (plugin for plugin in self._plugins.values() if plugin.usable):
            for what in plugin.offers():
                offers.setdefault(what, []).append(plugin)
        for what, plugins in offers.items():
            if len(plugins) < 2:
                continue
            rivals = [plugin for plugin in plugins if plugin.name != PROJECT]  # the core never gives way
            names = " and ".join(plugin.name for plugin in plugins)
            both = "both" if len(plugins) == 2 else "all"
            reason = f"{names} {both} offer {what}; block one with {VARIABLE}={self._choose.and_block(rivals[-1].name)}"
            for plugin in rivals:
                plugin.fail("conflict", f"{plugin.reason}; {reason}" if plugin.reason else reason)

    def _usable(self) -> list[Plugin]:
        return [plugin for plugin in self.plugins.values() if plugin.usable]


def hook_manager() -> pluggy.PluginManager:
    """What checks that a module's hooks have the arguments that ours have."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hooks)
    return manager


def take(plugin: Plugin, module: ModuleType) -> None:
    """Reads what a module offers into its plugin. Raises whatever the module raises, and for what is not allowed."""
    plugin.module = module
    _known_hooks(module)
    plugin.hooks = [name for name in _HOOKS if hasattr(getattr(module, name, None), "contralex_impl")]
    for slot, hook in SLOTS.items():
        plugin.kinds[slot] = [_checked(slot, spec) for spec in _call(module, hook) or []]
    folder = _call(module, "contralex_recipes")
    if folder is not None:
        found = (path for path in folder.iterdir() if path.name.endswith(".yaml"))
        plugin.recipes = {path.name.removesuffix(".yaml"): path for path in found}
    plugin.layouts = list(_call(module, "contralex_layouts") or [])
    if not all(isinstance(layout, Layout) for layout in plugin.layouts):
        raise ContralexError("contralex_layouts returns a list of contralex.plugin.Layout")
    plugin.commands = _call(module, "contralex_commands") or {}
    if not isinstance(plugin.commands, dict) or not all(callable(each) for each in plugin.commands.values()):
        raise ContralexError("contralex_commands returns a dict of functions by their names")
    ours = next((name for name in plugin.commands if name in OWN_COMMANDS), None)
    if ours is not None:
        raise ContralexError(f"its command {ours!r} is one of contralex's own; give it another name")
    plugin.settings = _call(module, "contralex_settings")
    if plugin.settings is not None:
        _check_settings(plugin.settings)
    offers = list(plugin.offers())
    spaced = next((name for name in plugin.commands if " " in name.removeprefix("eval ")), None)
    if spaced is not None:
        raise ContralexError(f"its command {spaced!r} has a space, which only the name of an evaluation has: eval NAME")
    twice = next((what for what in offers if offers.count(what) > 1), None)
    if twice is not None:
        raise ContralexError(f"it offers {twice} twice")


def _near(name: str, known: list[str]) -> list[str]:
    """The names that a name may stand for: all that begin with it (``moco``: every version), else the most alike."""
    small = name.lower().replace("_", "-")
    folded = {each.lower().replace("_", "-"): each for each in known}
    if small in folded:
        return [repr(folded[small])]
    begun = [repr(each) for other, each in folded.items() if other.startswith(small)] if len(small) > 1 else []
    return begun or [repr(folded[other]) for other in find_similar(small, folded)]


def _why_not_imported(distribution: str, name: str, error: BaseException) -> str:
    gone = error.name if isinstance(error, ModuleNotFoundError) else None
    if gone is not None and f"{name}.".startswith(f"{gone}."):
        return (
            f"its module {name} is gone ({error}), so the installation is stale: "
            f"pip install --force-reinstall {distribution}, or pip uninstall {distribution}"
        )
    if isinstance(error, Ended):
        return f"importing {name} was stopped: {error}"
    return f"importing {name} raised {type(error).__name__}: {error}"


def _known_hooks(module: ModuleType) -> None:
    for name in dir(module):
        if name.startswith("contralex_") and name not in _HOOKS and hasattr(getattr(module, name), "contralex_impl"):
            question = did_you_mean(find_similar(name, _HOOKS))
            raise ContralexError(f"there is no hook {name}" + (f"; {question}" if question else ""))


def _call(module: ModuleType, hook: str) -> Any:
    function = getattr(module, hook, None)
    return function() if function is not None and hasattr(function, "contralex_impl") else None


def _check_settings(spec: Any) -> None:
    from contralex.plugins.spec import Spec

    if not (isinstance(spec, type) and issubclass(spec, Spec)):
        raise ContralexError(f"contralex_settings returned {spec!r}, which is not a subclass of contralex.plugin.Spec")
    taken = next((name for name in ("name", "kind") if name in spec.model_fields), None)
    if taken is not None:
        raise ContralexError(f"{spec.__name__} has a field {taken}, which settings cannot have; call it something else")


def _checked(slot: str, spec: Any) -> type[Spec]:
    from contralex.plugins.spec import Spec  # not above: a list of recipes does without models

    if not (isinstance(spec, type) and issubclass(spec, Spec)):
        raise ContralexError(f"{SLOTS[slot]} returned {spec!r}, which is not a subclass of contralex.plugin.Spec")
    if "kind" not in spec.model_fields or not isinstance(spec.model_fields["kind"].default, str):
        raise ContralexError(f"{spec.__name__} needs a field such as kind: Literal['my_kind'] = 'my_kind'")
    return spec


@lru_cache(maxsize=1)
def registry() -> Registry:
    """The plugins of this environment, discovered once."""
    return Registry(os.environ.get(VARIABLE, ""))
