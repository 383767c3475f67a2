"""The cases of a plugin: each check with each subject that it is for, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from contralex.errors import ContralexError
from contralex.plugins.registry import Plugin, registry
from contralex.testing import backbones, entry, kinds, processes, recipes, sources, state, steps, surroundings
from contralex.testing.outcome import NotApplicable, as_reason, as_traceback
from contralex.testing.subjects import Kind, kinds_of, recipes_of
from contralex.testing.trial import Trial, trials_of

State = Literal["passed", "failed", "not applicable", "expected failure", "unexpected pass"]

PLUGIN = (entry.imports_no_torch, entry.states_its_bounds)
KIND = (
    kinds.documented,
    kinds.cites_a_source,
    kinds.bounded,
    kinds.round_trip,
    kinds.json_schema,
)
VIEWS = (sources.views_follow_the_seed, sources.views_stack)
DATA = (sources.data_reads,)
BACKBONE = (backbones.maps_images_to_features, backbones.backbone_follows_the_seed, backbones.backbone_learns)
_OF_SLOT: dict[str, tuple[Callable[[Kind], None], ...]] = {"views": VIEWS, "data": DATA, "backbone": BACKBONE}
TRIAL = (
    steps.builds_alike,
    steps.finite_loss,
    steps.degenerate_input,
    steps.gradients_arrive,
    steps.no_gradient_leaks,
    steps.looks_up_before_it_writes,
    steps.answers_with_its_own_key,
    steps.integer_buffers,
    steps.split_equals_whole,
    steps.half_precision,
    steps.deterministic,
    steps.leaves_the_process_alone,
    state.through_safetensors,
    state.resumes,
    processes.two_equal_one,
)
RECIPE = (recipes.resolves, recipes.trains)


@dataclass(frozen=True)
class Outcome:
    """What came of one check on one subject. ``bad``: whether it speaks against the plugin. ``traceback``: of the error
    that a part raised by mistake, whole."""

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
            with surroundings.undisturbed():
                self.check()
        except NotApplicable as reason:
            return Outcome(self.id, "not applicable", str(reason))
        except Exception as error:  # whatever a plugin's code raises is the check's finding
            if self.expected:
                return Outcome(self.id, "expected failure", self.expected)
            return Outcome(self.id, "failed", as_reason(error), as_traceback(error))
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
    expected = dict(_expected(plugin))
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
    own: list[Kind] = kinds_of(plugin)
    for kind in own:
        yield from (pair(check, kind) for check in KIND)
        yield from (pair(check, kind) for check in _OF_SLOT.get(kind.slot, ()))
    trials: list[Trial] = trials_of(plugin)
    first: dict[str, Trial] = {}  # two kinds may stand in one and the same method, which is tried once
    for trial in trials:
        first.setdefault(json.dumps([trial.data, trial.whole_recipe]), trial)
    processes.together(list(first.values()))
    results: dict[tuple[Any, Trial], Exception | None] = {}
    for trial in trials:
        same = first[json.dumps([trial.data, trial.whole_recipe])]
        for asked in TRIAL if trial.data else TRIAL[:1]:  # builds_alike says that nothing fits
            yield f"{asked.__name__}[{trial}]", asked, partial(_once, asked, same, results)
    for recipe in recipes_of(plugin):
        yield from (pair(check, recipe) for check in RECIPE)


def _once(check: Callable[[Trial], None], trial: Trial, results: dict[tuple[Any, Trial], Exception | None]) -> None:
    if (check, trial) not in results:
        results[check, trial] = None
        try:
            check(trial)
        except Exception as error:
            results[check, trial] = error
    found = results[check, trial]
    if found is not None:
        raise found


def _expected(plugin: Plugin) -> dict[str, str]:
    hook = getattr(plugin.module, "contralex_expected_failures", None)
    found: dict[str, str] = hook() if hook is not None else {}
    return found
