"""The cases of a plugin: each check on each kind, recipe and small method that it is for, and the outcome."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from contralex.errors import ContralexError
from contralex.plugins.registry import Plugin, registry
from contralex.testing import (
    backbone_checks,
    checkpoint_checks,
    data_checks,
    global_state,
    hook_checks,
    installation_checks,
    process_checks,
    recipe_checks,
    spec_checks,
    step_checks,
)
from contralex.testing.check_errors import NotApplicable, explain_error, format_traceback
from contralex.testing.plugin_contents import Kind, list_kinds, list_recipes
from contralex.testing.trials import Trial, list_trials

State = Literal["passed", "failed", "not applicable", "expected failure", "unexpected pass"]

PLUGIN = (installation_checks.imports_no_torch, installation_checks.states_its_bounds)
HOOKS = (hook_checks.hooks_take_part,)
KIND = (
    spec_checks.documented,
    spec_checks.cites_a_source,
    spec_checks.bounded,
    spec_checks.part_takes_the_fields,
    spec_checks.round_trip,
    spec_checks.json_schema,
)
VIEWS = (data_checks.views_follow_the_seed, data_checks.views_stack)
DATA = (data_checks.data_reads,)
BACKBONE = (
    backbone_checks.maps_images_to_features,
    backbone_checks.backbone_follows_the_seed,
    backbone_checks.backbone_learns,
)
_BY_SLOT: dict[str, tuple[Callable[[Kind], None], ...]] = {"views": VIEWS, "data": DATA, "backbone": BACKBONE}
TRIAL = (
    step_checks.builds_alike,
    step_checks.finite_loss,
    step_checks.degenerate_input,
    step_checks.gradients_arrive,
    step_checks.no_gradient_leaks,
    step_checks.looks_up_before_it_writes,
    step_checks.answers_with_its_own_key,
    step_checks.integer_buffers,
    step_checks.split_equals_whole,
    step_checks.half_precision,
    step_checks.deterministic,
    step_checks.leaves_the_process_alone,
    checkpoint_checks.through_safetensors,
    checkpoint_checks.resumes,
    process_checks.two_equal_one,
)
RECIPE = (recipe_checks.resolves, recipe_checks.trains)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check on one subject. ``bad``: whether it speaks against the plugin. ``traceback``: the whole
    traceback of an error that a part raised by mistake."""

    id: str
    state: State
    reason: str = ""
    traceback: str = ""

    @property
    def bad(self) -> bool:
        return self.state in ("failed", "unexpected pass")


@dataclass(frozen=True)
class Case:
    """One check on one subject. ``id`` is ``check[subject]``, the name under which a failure may be expected."""

    id: str
    question: str
    check: Callable[[], None] = field(repr=False)
    expected: str = ""  # why it must fail; empty where it must pass

    def run(self) -> Outcome:
        try:
            with global_state.restore_global_state():
                self.check()
        except NotApplicable as reason:
            return Outcome(self.id, "not applicable", str(reason))
        except Exception as error:  # whatever a plugin's code raises is the check's finding
            if self.expected:
                return Outcome(self.id, "expected failure", self.expected)
            return Outcome(self.id, "failed", explain_error(error), format_traceback(error))
        if self.expected:
            return Outcome(self.id, "unexpected pass", f"it is declared to fail ({self.expected}), and passes")
        return Outcome(self.id, "passed")


def cases(distribution: str) -> list[Case]:
    """Every case of an installed plugin. Raises :class:`ContralexError` where the plugin cannot be used at all."""
    plugin = registry().plugins.get(distribution)
    if plugin is None:
        raise ContralexError(
            f"no plugin {distribution!r} is installed; there are {', '.join(registry().plugins)}. "
            "Is it installed in this environment (pip install -e .), with an entry point in the group contralex?"
        )
    if not plugin.usable:
        raise ContralexError(f"{distribution} is {plugin.state}, so nothing of it can be checked: {plugin.reason}.")
    expected = dict(_read_expected_failures(plugin))
    found = [Case(id, (check.__doc__ or "").strip(), run, expected.pop(id, "")) for id, check, run in _pairs(plugin)]
    if expected:
        raise ContralexError(
            f"{distribution}: contralex_expected_failures names {', '.join(map(repr, expected))}, which is no case; "
            f"cases are named like {found[-1].id!r}."
        )
    return found


def _pairs(plugin: Plugin) -> Iterator[tuple[str, Callable[..., None], Callable[[], None]]]:
    def pair(check: Callable[..., None], subject: object) -> tuple[str, Callable[..., None], Callable[[], None]]:
        return f"{check.__name__}[{subject}]", check, lambda: check(subject)

    for check in PLUGIN:
        yield f"{check.__name__}[{plugin.name}]", check, lambda check=check: check(plugin)  # type: ignore[misc]
    for check in HOOKS if hook_checks.has_hooks(plugin) else ():
        yield f"{check.__name__}[{plugin.name}]", check, lambda check=check: check(plugin)  # type: ignore[misc]
    own: list[Kind] = list_kinds(plugin)
    for kind in own:
        yield from (pair(check, kind) for check in KIND)
        yield from (pair(check, kind) for check in _BY_SLOT.get(kind.slot, ()))
    trials: list[Trial] = list_trials(plugin)
    first: dict[str, Trial] = {}  # two kinds may stand in one and the same method, which is tried once
    for trial in trials:
        first.setdefault(json.dumps([trial.data, trial.whole_recipe]), trial)
    process_checks.share_processes(list(first.values()))
    results: dict[tuple[Any, Trial], Exception | None] = {}
    for trial in trials:
        same = first[json.dumps([trial.data, trial.whole_recipe])]
        for trial_check in TRIAL if trial.data else TRIAL[:1]:  # builds_alike says that nothing fits
            yield f"{trial_check.__name__}[{trial}]", trial_check, partial(_check_once, trial_check, same, results)
    for recipe in list_recipes(plugin):
        yield from (pair(check, recipe) for check in RECIPE)


def _check_once(
    check: Callable[[Trial], None], trial: Trial, results: dict[tuple[Any, Trial], Exception | None]
) -> None:
    if (check, trial) not in results:
        results[check, trial] = None
        try:
            check(trial)
        except Exception as error:
            results[check, trial] = error
    found = results[check, trial]
    if found is not None:
        raise found


def _read_expected_failures(plugin: Plugin) -> dict[str, str]:
    hook = getattr(plugin.module, "contralex_expected_failures", None)
    found: dict[str, str] = hook() if hook is not None else {}
    return found
