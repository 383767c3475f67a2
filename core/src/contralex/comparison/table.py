"""The table of a comparison: for a terminal, for Markdown, and as data."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from contralex.comparison.plan import Entry, Plan
from contralex.evaluation.base import PIXELS, THIS, UNTRAINED, Evaluator
from contralex.evaluation.evaluators import OWN, evaluators
from contralex.recipes.code_files import used_plugins

_NOT_ACCURACIES = ("epochs", "seconds", "images_per_second")
_WHO = {"": THIS, "untrained_": UNTRAINED, "pixels_": PIXELS}
_ALWAYS = [evaluator() for evaluator in OWN.values() if evaluator.has_baselines]


def summary(plan: Plan, found: Mapping[str, dict[str, Any] | str]) -> dict[str, Any]:
    """What the comparison's ``results.json`` holds: a row for each method, best kNN first, and every run's results."""
    done = {name: results for name, results in found.items() if isinstance(results, dict)}
    shown = _evaluators(plan, done.values())
    finished: dict[str, list[Entry]] = {}
    for entry in plan.entries:
        if entry.name in done:
            finished.setdefault(entry.row, []).append(entry)
    rows = [_row(name, entries, done, shown) for name, entries in finished.items()]
    rows.sort(key=lambda row: (-(row["knn"] or 0.0), -(row["linear"] or 0.0), row["name"]))
    budget = plan.budget
    return {
        "preset": budget.preset,
        "epochs": budget.epochs,
        "seed": budget.seed,
        "seeds": list(budget.seeds),
        "data": budget.data,
        "set": list(budget.sets),
        "columns": columns(shown),
        "rows": rows,
        "failed": {name: reason for name, reason in found.items() if isinstance(reason, str)},
        "skipped": plan.skipped,
        "protocols": list(_protocols(shown, done.values())),
        "notes": plan.notes,
        "runs": done,
    }


def columns(shown: Sequence[Evaluator] = _ALWAYS) -> dict[str, str]:
    """The headings of the columns, by the keys of a row."""
    figures = {
        f"{prefix}{evaluator.name}": f"{prefix.replace('_', ' ')}{evaluator.label}"
        for prefix in _WHO
        for evaluator in shown
        if not prefix or evaluator.has_baselines
    }
    return {"name": "method", **figures, "epochs": "epochs", "seconds": "seconds", "images_per_second": "images/s"}


def _evaluators(plan: Plan, results: Collection[Mapping[str, Any]]) -> list[Evaluator]:
    """kNN and the linear probe, and what else any of the runs was evaluated by."""
    shown: dict[str, Evaluator] = {evaluator.name: evaluator for evaluator in _ALWAYS}
    reached = {name for each in results for name in each}
    for resolved in (entry.resolved for entry in plan.entries if entry.resolved is not None):
        for evaluator in evaluators(resolved.run, used_plugins(resolved.plugins, resolved.code)):
            if evaluator.name in reached:
                shown.setdefault(evaluator.name, evaluator)
    return list(shown.values())


def _row(
    name: str, entries: Sequence[Entry], done: Mapping[str, dict[str, Any]], shown: Sequence[Evaluator]
) -> dict[str, Any]:
    """The figures of a method: of its one run, or the means over its seeds, with the ``deviations`` of accuracies
    (sample standard deviations). ``folders`` of its runs; ``seeds`` of those, where several were asked for."""
    runs = [_figures(done[entry.name], entry, shown) for entry in entries]
    figures = {key: [run[key] for run in runs if run[key] is not None] for key in runs[0]}
    deviations = {
        key: statistics.stdev(values)
        for key, values in figures.items()
        if key not in _NOT_ACCURACIES and len(values) > 1
    }
    return {
        "name": name,
        **{key: _mean(values) for key, values in figures.items()},
        "deviations": deviations,
        "seeds": [entry.budget.seed for entry in entries if entry.budget.seeds],
        "folders": [entry.folder for entry in entries],
    }


def _mean(values: Sequence[float]) -> float | None:
    if not values:
        return None
    return values[0] if all(value == values[0] for value in values) else statistics.fmean(values)


def _figures(results: dict[str, Any], entry: Entry, shown: Sequence[Evaluator]) -> dict[str, Any]:
    """``None`` where a figure is missing: the data have no labels, or the recipe is not evaluated by it."""
    figures = {
        f"{prefix}{evaluator.name}": _reached(results.get(evaluator.name, {}), evaluator, who)
        for prefix, who in _WHO.items()
        for evaluator in shown
        if not prefix or evaluator.has_baselines
    }
    batch = entry.resolved.run.train.batch_size if entry.resolved is not None else 0
    seconds = results["seconds"]
    speed = round(results["steps"] * batch / seconds, 1) if seconds else None
    return {**figures, "epochs": results["epochs"], "seconds": seconds, "images_per_second": speed}


def _reached(results: Mapping[str, Any], evaluator: Evaluator, who: str) -> float | None:
    found = results.get(who, {}) if evaluator.has_baselines else results
    figure: float | None = found.get(next(iter(evaluator.columns)))
    return figure


def cells(row: Mapping[str, Any], headings: Mapping[str, str]) -> list[str]:
    return [_cell(column, row[column], row["deviations"].get(column)) for column in headings]


def _cell(column: str, value: Any, deviation: float | None) -> str:
    if value is None:
        return "-"
    if column == "name":
        return str(value)
    if column in _NOT_ACCURACIES:
        return f"{value:g}" if column == "epochs" else f"{value:.0f}"
    return f"{100 * value:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")


def below(result: Mapping[str, Any]) -> list[str]:
    """The sentences under the table."""
    failed = [f"{name} failed: {reason}" for name, reason in result["failed"].items()]
    skipped = [f"Left out, for they have no preset {result['preset']}: {', '.join(result['skipped'])}."]
    return [
        *result["protocols"],
        *_about_seeds(result),
        *failed,
        *(skipped if result["skipped"] else []),
        *result["notes"],
    ]


def _about_seeds(result: Mapping[str, Any]) -> Iterator[str]:
    seeds = result["seeds"]
    if len(seeds) > 1:
        yield f"±: mean and sample standard deviation over the seeds {', '.join(map(str, seeds))}."
        for row in result["rows"]:
            if len(row["seeds"]) < len(seeds):
                yield f"{row['name']}: over {len(row['seeds'])} of {len(seeds)} seeds."


def _protocols(shown: Sequence[Evaluator], results: Collection[Mapping[str, Any]]) -> Iterator[str]:
    """How it was evaluated, where any method was; what differs between methods is among the notes."""
    for evaluator in shown:
        first = next((each[evaluator.name] for each in results if evaluator.name in each), None)
        if first is not None:
            yield evaluator.footnote((first[THIS] if evaluator.has_baselines else first)["protocol"])


def markdown(result: Mapping[str, Any], command: str) -> str:
    headings = result["columns"]
    head: Sequence[str] = list(headings.values())
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(cells(row, headings) for row in result["rows"])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "".join(f"* {' '.join(sentence.split())}\n" for sentence in below(result))
    return f"`{command}`\n\n{table}\n\n{notes}"
