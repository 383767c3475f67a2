"""Which runs a comparison has, and which cannot be part of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contralex.errors import ContralexError
from contralex.registry import registry
from contralex.spec.base import Spec
from contralex.spec.layers import Resolved, resolve
from contralex.spec.recipe import chain
from contralex.spec.run import EvalSpec, RunSpec
from contralex.spec.schedule import Cosine, Linear, Steps

ALL = "all"


@dataclass(frozen=True)
class Budget:
    """What all methods have in common: the options of the command, as ``contralex train`` has them."""

    preset: str | None = None
    epochs: int | None = None
    seed: int | None = None
    data: str | None = None
    sets: tuple[str, ...] = ()
    allow_code: bool = False

    def all_sets(self) -> list[str]:
        """A linear probe is always judged; what the user sets comes last, and holds."""
        ours = ["eval.linear={}"]
        if self.epochs is not None:
            ours += [f"train.epochs={self.epochs}", "train.max_steps=null"]
        if self.seed is not None:
            ours.append(f"train.seed={self.seed}")
        return [*ours, *self.sets]


@dataclass(frozen=True)
class Entry:
    """One method. ``recipe``: as the user named it. ``problem``: why it cannot be trained under this budget."""

    recipe: str
    name: str
    resolved: Resolved | None
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """``skipped``: recipes that ``all`` left out, as they have no such preset. ``notes``: what is not equal for all."""

    budget: Budget
    entries: list[Entry]
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan(methods: Sequence[str], budget: Budget) -> Plan:
    """Resolves every method. A mistake in a method that was named is an error; one that ``all`` brought is its entry's
    problem, unless all have one."""
    wants_all = ALL in methods
    named, skipped = _everything(budget.preset) if wants_all else (list(dict.fromkeys(methods)), [])
    entries: list[Entry] = []
    for recipe in named:
        try:
            entries.append(_entry(recipe, budget))
        except ContralexError as mistake:
            entries.append(Entry(recipe, recipe, None, str(mistake)))
    failed = [entry for entry in entries if entry.resolved is None]
    if failed and (not wants_all or len(failed) == len(entries)):
        first = failed[0]
        raise ContralexError(first.problem if first.recipe in first.problem else f"{first.recipe}: {first.problem}")
    names = [entry.name for entry in entries]
    for name in names:
        if names.count(name) > 1:
            raise ContralexError(
                f"two methods are called {name}, and each has the folder of its name; rename one of them"
            )
    return Plan(budget, entries, skipped, list(_notes(entries)))


def _everything(preset: str | None) -> tuple[list[str], list[str]]:
    """The installed recipes that have the preset, and those that have not."""
    if preset is None:
        raise ContralexError("compare all: say at which size with --preset, such as --preset digits")
    recipes = sorted(registry().recipes())
    having = [name for name in recipes if any(preset in recipe.presets for recipe in chain(name))]
    if not having:
        raise ContralexError(f"--preset {preset}: no installed recipe has a preset of this name")
    return having, [name for name in recipes if name not in having]


def _entry(recipe: str, budget: Budget) -> Entry:
    resolved = resolve(
        recipe, preset=budget.preset, data=budget.data, sets=budget.all_sets(), allow_code=budget.allow_code
    )
    problem = "; ".join(misfits(resolved.run)) if budget.epochs is not None else ""
    return Entry(recipe, resolved.run.name, resolved, problem and f"{problem}; {_WAY_OUT}")


_WAY_OUT = "give more epochs, or a YAML file that extends the recipe and sets this"


def misfits(run: RunSpec) -> Iterator[str]:
    """What is tied to more epochs than the run has."""
    epochs = run.train.epochs
    for path, spec in _specs(run):
        late = [at for at in spec.at if at >= epochs] if isinstance(spec, Steps) else []
        if late:
            yield f"{path} falls at epoch {_listed(late)}, and the budget of {epochs} ends before"
        if isinstance(spec, Linear) and spec.epochs > epochs:
            yield f"{path} ends after {spec.epochs:g} epochs, and the budget is {epochs}"
        if isinstance(spec, Cosine | Steps) and spec.warmup_epochs >= epochs:
            yield f"{path} warms up for {spec.warmup_epochs:g} epochs, and the budget is {epochs}"
        for name in type(spec).model_fields:  # such as the start_epoch of a queue
            value = getattr(spec, name)
            if name.endswith(("_epoch", "_epochs")) and name != "warmup_epochs" and _number(value) >= epochs:
                yield f"{path}.{name} is {value:g}, and the budget is {epochs} epochs"


def never_moved(run: RunSpec, steps: int) -> list[str]:
    """Groups of parameters that were frozen for all steps of the run, whose number only the data say."""
    return [
        f"{run.name}: {group.match} never moved, as it is frozen for {group.frozen_steps} steps of {steps}."
        for group in run.train.optimizer.groups
        if group.frozen_steps >= steps
    ]


def _specs(value: Any, path: str = "") -> Iterator[tuple[str, Spec]]:
    if isinstance(value, EvalSpec):  # how often is judged is no part of a method
        return
    if isinstance(value, Spec):
        yield path, value
        for name in type(value).model_fields:
            yield from _specs(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _specs(item, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _specs(item, f"{path}.{place}")


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


def _listed(numbers: Sequence[float]) -> str:
    return " and ".join(f"{number:g}" for number in numbers)


def _notes(entries: Sequence[Entry]) -> Iterator[str]:
    """Methods that see other data, or are judged in another way, than most of them."""
    runs = {entry.name: entry.resolved.run for entry in entries if entry.resolved is not None}
    for what, seen in (
        ("trained and judged on other data", {name: run.data.model_dump_json() for name, run in runs.items()}),
        ("judged with other settings of eval", {name: _judging(run.eval) for name, run in runs.items()}),
    ):
        most = max(seen.values(), key=list(seen.values()).count)
        others = [name for name, value in seen.items() if value != most]
        if others:
            yield f"{', '.join(others)}: {what} than the rest, so compare with the baselines of its own row."


def _judging(spec: EvalSpec) -> str:
    same = spec.model_dump()
    for judge in ("knn", "linear", "classify"):
        (same.get(judge) or {}).pop("every", None)
    return repr({name: same[name] for name in ("knn", "linear")})


def folder_of(out: Path, entry: Entry) -> Path:
    return out / entry.name
