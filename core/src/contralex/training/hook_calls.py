"""Calls the life-cycle hooks of the plugins that a spec uses, and of no others."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Set
from copy import deepcopy
from typing import Any

from torch import Tensor

from contralex.errors import ContralexError
from contralex.lookup import distributed
from contralex.plugins.registry import Plugin, hook_manager
from contralex.training.stopping import Stopping

# What the run itself logs. A plugin that wrote under one of these names would pass for it.
_OWN = frozenset(
    ("step", "epoch", "loss", "lookup_top1", "lr", "images_per_second", "knn_top1", "linear_top1", "classify_top1")
)


class BadMetric(Exception):
    """What a hook adds to the metrics cannot be logged."""


class LifeCycle:
    """``plugins``: those that the spec uses. Installing a plugin must not change training.

    A hook that fails is reported to ``stopping``, on whichever process it is; with ``on_error: warn`` it is reported
    once for each hook and plugin, and the run goes on. A hook that raises ContralexError has not failed: it has found
    a mistake of the user's. ``own_metrics``: names that the run logs beside those that every run does.
    """

    def __init__(
        self, plugins: Iterable[Plugin], stopping: Stopping, on_error: str, own_metrics: Iterable[str] = ()
    ) -> None:
        plugins = list(plugins)
        self._own_metrics = _OWN | set(own_metrics)
        self.calling = ""  # the plugin whose hook is running
        self._stopping = stopping
        self._on_error = on_error
        self._failed: set[tuple[str, str]] = set()
        self._plugins = [(plugin, _hooks(plugin)) for plugin in plugins]
        for plugin in plugins:
            plugin.state = "loaded"

    def implement(self, hook: str) -> bool:
        """Whether a plugin that the spec uses has this hook, which is the same on every process."""
        return any(hook in hooks for _, hooks in self._plugins)

    def call(self, hook: str, **arguments: Any) -> None:
        for plugin, hooks in self._plugins:
            if hook in hooks and not self._is_out(plugin):
                self._one(plugin.name, hook, hooks[hook], arguments)

    def _is_out(self, plugin: Plugin) -> bool:
        """A plugin whose hook failed is not called again in a run that is about to stop for it."""
        return self._on_error == "stop" and any(name == plugin.name for name, _ in self._failed)

    def _one(self, name: str, hook: str, implementation: Any, arguments: dict[str, Any]) -> None:
        self.calling = name
        # Copies, so that nothing of a hook that fails halfway, or adds what cannot be written, reaches the run.
        given = {key: deepcopy(value) if key == "results" else value for key, value in arguments.items()}
        given |= {key: dict(value) for key, value in arguments.items() if key == "metrics"}
        try:
            implementation.function(*(given[each] for each in implementation.argnames))
            if "metrics" in given:
                _add(given["metrics"], arguments["metrics"], self._own_metrics)
            if "results" in given:
                json.dumps(given["results"])
                arguments["results"].update(given["results"])
        except (Exception, SystemExit) as error:
            self._report(name, hook, error)
        finally:
            self.calling = ""

    def _report(self, name: str, hook: str, error: BaseException) -> None:
        is_mistake = isinstance(error, ContralexError)  # of the user's, which the plugin has found
        said = str(error) if isinstance(error, ContralexError | BadMetric) else f"{type(error).__name__}: {error}"
        sentence = said if is_mistake else f"the plugin {name} failed in its hook {hook}: {said}"
        is_first = (name, hook) not in self._failed
        self._failed.add((name, hook))
        log = logging.getLogger("contralex")
        log.debug(sentence, exc_info=error)
        if self._on_error == "stop" and is_mistake:
            self._stopping.report_mistake(sentence)
        elif self._on_error == "stop":
            self._stopping.report_failure(sentence)
        elif is_first:
            where = f" on process {distributed.rank()}" if distributed.world() > 1 else ""
            log.warning("%s%s; the run goes on, as train.on_hook_error says. This is said once.", sentence, where)


def _hooks(plugin: Plugin) -> dict[str, Any]:
    """The plugin's implementations by their names, and which arguments each wants."""
    manager = hook_manager()
    manager.register(plugin.module)
    return {
        name: implementation for name in plugin.hooks for implementation in getattr(manager.hook, name).get_hookimpls()
    }


def _add(after: dict[str, Any], before: dict[str, Any], own: Set[str]) -> None:
    """Takes over what a hook added, once it is known to be a number under a name of its own."""
    added = {key: value for key, value in after.items() if key not in before or before[key] is not value}
    for key, value in added.items():
        if key in own:
            raise BadMetric(f"the metric {key!r} is the run's own; log it under another name")
        is_number = isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1)
        if not isinstance(key, str) or not is_number:
            raise BadMetric(f"the metric {key!r} is {value!r:.60}, and not a number")
    # A tensor stays where it is until it is logged: reading it here would wait for the GPU at every step.
    before.update({key: value.detach() if isinstance(value, Tensor) else value for key, value in added.items()})
