"""The table of a comparison: for a terminal, for Markdown, and as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contralex.comparison.plan import Plan

# As in contralex.evaluation.knn, which imports torch.
_WHO = {"": "this run", "untrained_": "untrained encoder", "pixels_": "raw pixels"}
COLUMNS = {
    "name": "method",
    "knn": "kNN",
    "linear": "linear",
    "untrained_knn": "untrained kNN",
    "untrained_linear": "untrained linear",
    "pixels_knn": "pixels kNN",
    "pixels_linear": "pixels linear",
    "epochs": "epochs",
    "seconds": "seconds",
    "images_per_second": "images/s",
}
_SHARES = ("knn", "linear")


def summary(plan: Plan, found: Mapping[str, dict[str, Any] | str]) -> dict[str, Any]:
    """What the comparison's ``results.json`` holds: a row for each method, best kNN first, and every run's results."""
    runs = {entry.name: entry.resolved.run for entry in plan.entries if entry.resolved is not None}
    done = {name: results for name, results in found.items() if isinstance(results, dict)}
    rows = [_row(name, results, runs[name].train.batch_size) for name, results in done.items()]
    rows.sort(key=lambda row: (-(row["knn"] or 0.0), -(row["linear"] or 0.0), row["name"]))
    budget = plan.budget
    return {
        "preset": budget.preset,
        "epochs": budget.epochs,
        "seed": budget.seed,
        "data": budget.data,
        "set": list(budget.sets),
        "rows": rows,
        "failed": {name: reason for name, reason in found.items() if isinstance(reason, str)},
        "skipped": plan.skipped,
        "notes": plan.notes,
        "runs": done,
    }


def _row(name: str, results: dict[str, Any], batch: int) -> dict[str, Any]:
    """``None`` where a figure is missing: the data have no labels, or the recipe does not judge by it."""
    figures = {
        f"{prefix}{judge}": results.get(judge, {}).get(who, {}).get("top1")
        for prefix, who in _WHO.items()
        for judge in _SHARES
    }
    seconds = results["seconds"]
    speed = round(results["steps"] * batch / seconds, 1) if seconds else None
    return {"name": name, **figures, "epochs": results["epochs"], "seconds": seconds, "images_per_second": speed}


def cells(row: Mapping[str, Any]) -> list[str]:
    return [_cell(column, row[column]) for column in COLUMNS]


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column.endswith(_SHARES):
        return f"{100 * value:.1f}"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def below(result: Mapping[str, Any]) -> list[str]:
    """The sentences under the table."""
    failed = [f"{name} failed: {reason}" for name, reason in result["failed"].items()]
    skipped = [f"Left out, for they have no preset {result['preset']}: {', '.join(result['skipped'])}."]
    return [*_protocols(result["runs"]), *failed, *(skipped if result["skipped"] else []), *result["notes"]]


def _protocols(runs: Mapping[str, Any]) -> list[str]:
    """How it was judged, where any method was; what differs between methods is among the notes."""
    said = []
    for judge, words in (
        ("knn", "kNN: top-1 %, k={k}, temperature {temperature}, {features}."),
        ("linear", "linear: top-1 %, logistic regression on {features} features, weight decay {weight_decay:g}."),
    ):
        for results in runs.values():
            if judge in results:
                said.append(words.format(**results[judge]["this run"]["protocol"]))
                break
    return said


def markdown(result: Mapping[str, Any], command: str) -> str:
    head: Sequence[str] = list(COLUMNS.values())
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(cells(row) for row in result["rows"])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "".join(f"* {' '.join(sentence.split())}\n" for sentence in below(result))
    return f"`{command}`\n\n{table}\n\n{notes}"
