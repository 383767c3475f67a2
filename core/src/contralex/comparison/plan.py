"""Which runs a comparison has, and which cannot be part of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from contralex.comparison.variants import MOST, Variant, list_variants
from contralex.errors import ContralexError
from contralex.plugins.registry import registry
from contralex.recipes import delays
from contralex.recipes.documents import chain
from contralex.recipes.layers import Resolved, resolve
from contralex.recipes.run_spec import EvalSpec, RunSpec

ALL = "all"


@dataclass(frozen=True)
class Budget:
    """What all methods have in common: the options of the command, as ``contralex train`` has them. With ``seeds`` each
    method is trained once for each of them. A value of ``sets`` may be several, with commas between them."""

    preset: str | None = None
    epochs: int | None = None
    seed: int | None = None
    data: str | None = None
    sets: tuple[str, ...] = ()
    allow_code: bool = False
    seeds: tuple[int, ...] = ()

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
    """One run. ``recipe``: as the user named it. ``row``: the line of the table that it belongs to, the method with
    the values that are swept. ``folder``: below the comparison's, with ``/``. ``budget``: that of this run alone, with
    one seed and one value for each setting. ``problem``: why it cannot be trained under this budget."""

    recipe: str
    row: str
    folder: str
    budget: Budget
    resolved: Resolved | None
    problem: str = ""

    @property
    def name(self) -> str:
        """The line of the table, and the seed where there are several."""
        return f"{self.row} seed {self.budget.seed}" if self.budget.seeds else self.row


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
    variants = list_variants(budget.sets)
    count = len(named) * len(variants) * max(len(budget.seeds), 1)
    if count > MOST:
        raise ContralexError(f"these are {count:,} runs, and a comparison has at most {MOST:,}; leave some out")
    entries = [
        _entry(recipe, variant, one)
        for recipe in named
        for variant in variants
        for one in _one_seed_each(replace(budget, sets=variant.sets))
    ]
    failed = [entry for entry in entries if entry.resolved is None]
    if failed and (not wants_all or len(failed) == len(entries)):
        first = failed[0]
        raise ContralexError(first.problem if first.recipe in first.problem else f"{first.recipe}: {first.problem}")
    places = [entry.folder for entry in entries]
    for entry in entries:
        if places.count(entry.folder) > 1:
            raise ContralexError(
                f"two methods are called {entry.name}, and each has the folder of its name; rename one of them"
            )
    same = _same_runs(entries)
    if same and not wants_all:
        raise ContralexError(
            f"{' and '.join(same[0])} are the same run under this budget: no value differs but what they are called. "
            "Leave one out, or change it"
        )
    told = [f"{' and '.join(names)} are the same run under this budget." for names in same]
    return Plan(budget, entries, skipped, [*told, *_notes(entries)])


def _one_seed_each(budget: Budget) -> list[Budget]:
    return [replace(budget, seed=seed) for seed in budget.seeds] or [budget]


def _same_runs(entries: Sequence[Entry]) -> list[list[str]]:
    """Methods, as the user named them, that differ in nothing that is computed."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if entry.resolved is not None:  # the digest leaves out where the data lie
            run = (entry.resolved.digest, entry.resolved.run.data.model_dump_json())
            is_plain = entry.name == entry.resolved.run.name
            found.setdefault(run, []).append(entry.recipe if is_plain else entry.name)
    return [names for names in found.values() if len(names) > 1]


def _everything(preset: str | None) -> tuple[list[str], list[str]]:
    """The installed recipes that have the preset, and those that have not."""
    if preset is None:
        raise ContralexError("compare all: say at which size with --preset, such as --preset digits")
    recipes = sorted(registry().recipes())
    having = [name for name in recipes if any(preset in recipe.presets for recipe in chain(name))]
    if not having:
        raise ContralexError(f"--preset {preset}: no installed recipe has a preset of this name")
    return having, [name for name in recipes if name not in having]


def _entry(recipe: str, variant: Variant, budget: Budget) -> Entry:
    try:
        resolved = resolve(
            recipe, preset=budget.preset, data=budget.data, sets=budget.all_sets(), allow_code=budget.allow_code
        )
    except ContralexError as mistake:
        return _named(recipe, recipe, variant, budget, None, str(mistake))
    problem = "; ".join(misfits(resolved.run)) if budget.epochs is not None else ""
    return _named(recipe, resolved.run.name, variant, budget, resolved, problem and f"{problem}; {_WAY_OUT}")


def _named(recipe: str, name: str, variant: Variant, budget: Budget, resolved: Resolved | None, problem: str) -> Entry:
    row = f"{name} {variant.name}" if variant.name else name
    folder = f"{name}-{variant.folder}" if variant.name else name
    if budget.seeds:
        folder = f"{folder}/seed-{budget.seed}"
    return Entry(recipe, row, folder, budget, resolved, problem)


_WAY_OUT = "give more epochs, or a YAML file that extends the recipe and sets this"


def misfits(run: RunSpec) -> Iterator[str]:
    """What is tied to more epochs than the run has."""
    epochs = run.train.epochs
    for path, delay in delays.of_run(run):
        if delay.epochs >= epochs and delay.epochs > delay.most * epochs:
            yield f"{path} is {delay.epochs:g}, and the budget is {epochs} epochs: {delay.meanwhile}"


def _notes(entries: Sequence[Entry]) -> Iterator[str]:
    """Methods that see other data, or are judged in another way, than most of them."""
    runs = {entry.row: entry.resolved.run for entry in entries if entry.resolved is not None}
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
    return out / entry.folder
