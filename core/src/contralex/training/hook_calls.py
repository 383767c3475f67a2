"""Calls the life-cycle hooks that take part in a run, and no others."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Set
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from contralex.errors import ContralexError, remedy
from contralex.lookup import distributed
from contralex.plugins.discovery import normal
from contralex.plugins.hooks import LIFE_CYCLE
from contralex.plugins.registry import Plugin, hook_manager
from contralex.plugins.spec import Spec
from contralex.recipes.run_spec import RunSpec
from contralex.recipes.walk import walk
from contralex.training.checkpoints.hook_state import split_state
from contralex.training.stopping import Stopping

# What the run itself logs. A plugin that wrote under one of these names would pass for it.
_OWN = frozenset(
    ("step", "epoch", "loss", "lookup_top1", "lr", "images_per_second", "knn_top1", "linear_top1", "classify_top1")
)


class BadMetric(Exception):
    """What a hook adds to the metrics cannot be logged."""


class BadState(Exception):
    """What hooks keep cannot be saved."""


@dataclass(frozen=True)
class _TakingPart:
    """A plugin of which hooks take part: the implementations by their names, its settings, and what it keeps."""

    plugin: Plugin
    hooks: Mapping[str, Any]
    settings: Spec | None
    state: dict[str, Any]


class LifeCycle:
    """``plugins``: those that ``spec`` uses. Installing a plugin must not change training, so of their hooks those
    take part whose plugin ``spec.plugins`` names, and those that belong to a kind that is used.

    ``states``: what the plugins kept in the checkpoint that the run goes on from. A hook that fails is reported to
    ``stopping``, on whichever process it is; with ``train.on_hook_error: warn`` it is reported once for each hook and
    plugin, and the run goes on. A hook that raises ContralexError has not failed: it has found a mistake of the user's.
    ``own_metrics``: names that the run logs beside those that every run does.
    """

    def __init__(
        self,
        plugins: Iterable[Plugin],
        spec: RunSpec,
        stopping: Stopping,
        states: Mapping[str, Mapping[str, Any]],
        own_metrics: Iterable[str] = (),
    ) -> None:
        plugins = list(plugins)
        self._own_metrics = _OWN | set(own_metrics)
        self.calling = ""  # the plugin whose hook is running
        self._stopping = stopping
        self._on_error = spec.train.on_hook_error
        self._failed: set[tuple[str, str]] = set()
        kinds = {type(value) for _, value in walk(spec) if isinstance(value, Spec)}
        named = {normal(use.name): use.settings for use in spec.plugins}
        self._plugins = [
            _TakingPart(plugin, hooks, _settings(plugin, named), dict(states.get(plugin.name, {})))
            for plugin in plugins
            if (hooks := _hooks(plugin, kinds, is_named=bool(plugin.code) or normal(plugin.name) in named))
        ]
        for plugin in plugins:
            plugin.state = "loaded"

    @property
    def use_encoders_after_steps(self) -> bool:
        """Whether a ``contralex_step_end`` that may use an encoder takes part, which is the same on every process."""
        hooks = [each.hooks["contralex_step_end"] for each in self._plugins if "contralex_step_end" in each.hooks]
        return any(vars(hook.function).get("contralex_uses_encoders", True) for hook in hooks)

    def call(self, hook: str, **arguments: Any) -> None:
        for each in self._plugins:
            if hook in each.hooks and not self._is_out(each.plugin):
                own = {"settings": each.settings, "state": each.state}
                self._one(each.plugin.name, hook, each.hooks[hook], arguments, own)

    def collect_state(self) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
        """What the plugins keep, for a checkpoint: values by their plugins, and tensors. What cannot be saved is
        reported like a hook that fails, and left out."""
        values: dict[str, dict[str, Any]] = {}
        tensors: dict[str, Tensor] = {}
        for each in self._plugins:
            try:
                own, kept = split_state(each.state, each.plugin.name)
            except (TypeError, ValueError) as error:
                self._report(each.plugin.name, "", BadState(f"its state cannot be saved: {error}"))
                continue
            tensors |= kept
            if own:
                values[each.plugin.name] = own
        return values, tensors

    def _is_out(self, plugin: Plugin) -> bool:
        """A plugin whose hook failed is not called again in a run that is about to stop for it."""
        return self._on_error == "stop" and any(name == plugin.name for name, _ in self._failed)

    def _one(
        self, name: str, hook: str, implementation: Any, arguments: dict[str, Any], own: Mapping[str, Any]
    ) -> None:
        self.calling = name
        # Copies, so that nothing of a hook that fails halfway, or adds what cannot be written, reaches the run.
        given = {key: deepcopy(value) if key == "results" else value for key, value in arguments.items()}
        given |= {key: dict(value) for key, value in arguments.items() if key == "metrics"}
        given |= own
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
        is_plain = isinstance(error, ContralexError | BadMetric | BadState)
        said = str(error) if is_plain else f"{type(error).__name__}: {error}"
        where = f" in its hook {hook}" if hook else ""
        sentence = said if is_mistake else f"the plugin {name} failed{where}: {said}"
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


def _hooks(plugin: Plugin, kinds: Set[type[Spec]], *, is_named: bool) -> dict[str, Any]:
    """The plugin's implementations that take part by their names, and which arguments each wants. ``kinds``: those that
    the spec uses."""
    manager = hook_manager()
    manager.register(plugin.module)
    return {
        name: implementation
        for name in plugin.hooks
        if name in LIFE_CYCLE
        for implementation in getattr(manager.hook, name).get_hookimpls()
        if is_named or vars(implementation.function).get("contralex_kinds", frozenset()) & kinds
    }


def _settings(plugin: Plugin, named: Mapping[str, Spec | None]) -> Spec | None:
    """Those of the spec; the defaults where a hook takes part because of its kind."""
    given = named.get(normal(plugin.name))
    if given is not None or plugin.settings is None:
        return given
    try:
        return plugin.settings.model_validate({})
    except ValidationError as error:
        missing = {str(each["loc"][0]): "..." for each in error.errors() if each["loc"]}
        block = ", ".join(f"{name}: {value}" for name, value in {"name": plugin.name, **missing}.items())
        raise ContralexError(
            f"{plugin.name} takes part in this run because of its kind, and its settings have no default for "
            f"{' and '.join(missing)}; say what they are:" + remedy("--set", f"plugins=[{{{block}}}]")
        ) from None


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
