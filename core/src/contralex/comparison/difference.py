"""The difference between a fork and its parent: each figure at each step that both logged, and their weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contralex.comparison import fork_figure
from contralex.comparison.figure import MISSING, is_possible
from contralex.errors import ContralexError
from contralex.evaluation.base import THIS
from contralex.files import read_json, write_text
from contralex.training import health
from contralex.training.checkpoints import manifest, read
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.state import Forked
from contralex.training.fork_file import read_fork

DIFFERENCE = "difference.json"
FIGURE = "difference.svg"
_NOT_COMPARED = ("step", "epoch", "images_per_second")
_SHOWN = ("loss", "lookup_top1", "effective_rank")


def write_difference(fork: Path) -> dict[str, Any]:
    """Compares a fork with its parent, and writes ``difference.json`` and its figure to the fork's folder."""
    found = difference(fork)
    write_text(fork / DIFFERENCE, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    if found["rows"] and is_possible():
        lines = {who: _lines(Path(path)) for who, path in (("parent", found["parent"]), ("fork", str(fork)))}
        fork_figure.draw(lines["parent"], lines["fork"], found["step"], _title(found["changes"]), fork / FIGURE)
    elif found["rows"]:
        found["notes"].append(MISSING)
    return found


def difference(fork: Path) -> dict[str, Any]:
    """As plain data. ``rows``: for each step that both logged since the fork, the figures of the parent and of the
    fork. ``results``: the final accuracies. ``weights``: how far apart the encoders are. ``notes``: what else is to be
    known.
    """
    forked = read_fork(fork)
    if forked is None:
        raise ContralexError(f"{fork} is no fork of another run; make one with contralex fork RUN@STEP")
    parent = Path(forked.run)
    before, after = _lines(parent), _lines(fork)
    rows = list(_rows(before, after, forked.step))
    return {
        "parent": forked.run,
        "fork": str(fork),
        "step": forked.step,
        "digest": forked.digest,
        "changes": dict(forked.changes),
        "rows": rows,
        "results": _results(parent, fork),
        "weights": _weights(parent, fork, forked.step),
        "notes": list(_notes(forked, parent, before, after, rows)),
    }


def table(found: Mapping[str, Any], most: int = 12) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a difference: at most so many steps, evenly, the last among them."""
    rows: Sequence[Mapping[str, Any]] = [row for row in found["rows"] if "loss" in row["parent"]]
    figures = [name for name in _SHOWN if any(name in row["parent"] for row in rows)]
    headings = ["step", *(f"{name}{side}" for name in figures for side in ("", " of the fork"))]
    few = [rows[index] for index in _evenly(len(rows), most)]
    return headings, [
        [f"{row['step']:,}", *(_cell(row[who].get(name)) for name in figures for who in ("parent", "fork"))]
        for row in few
    ]


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """What stands below the table."""
    for name, result in found["results"].items():
        yield f"{name} top-1: parent {result['parent']:.1%}, fork {result['fork']:.1%}"
    weights = found["weights"]
    if weights is not None and weights["equal"]:
        yield f"At step {weights['step']:,} both are equal to the bit: weights, dictionary, and all other state."
    elif weights is not None:
        yield f"At step {weights['step']:,} the encoders are {weights['distance']:.3g} apart, relative to the parent's."
    yield from found["notes"]


def _evenly(count: int, most: int) -> list[int]:
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _title(changes: Mapping[str, str]) -> str:
    return "; ".join(f"{path}: {change}" for path, change in changes.items()) or "nothing changed"


def _lines(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    return health.read_lines(file) if file.is_file() else []


def _rows(before: list[dict[str, Any]], after: list[dict[str, Any]], step: int) -> Iterator[dict[str, Any]]:
    """Lines of both that belong to one step. The lines of an epoch's end are joined with those of its last step."""
    both = [_by_step(lines, step) for lines in (before, after)]
    for at in sorted(both[0].keys() & both[1].keys()):
        parent, fork = (figures[at] for figures in both)
        names = [name for name in parent if name in fork]
        yield {"step": at, **{who: {name: line[name] for name in names} for who, line in _sides(parent, fork)}}


def _sides(parent: dict[str, float], fork: dict[str, float]) -> tuple[tuple[str, dict[str, float]], ...]:
    return ("parent", parent), ("fork", fork)


def _by_step(lines: list[dict[str, Any]], after: int) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for line in lines:
        if line["step"] > after:
            figures = {name: value for name, value in line.items() if name not in _NOT_COMPARED}
            found.setdefault(line["step"], {}).update(figures)
    return found


def _results(parent: Path, fork: Path) -> dict[str, dict[str, float]]:
    """The top-1 of each evaluator that both runs have at their ends, where they end at one step."""
    both = [_result(folder) for folder in (parent, fork)]
    if not all(both) or both[0]["steps"] != both[1]["steps"]:
        return {}
    tops = [{name: _top1(value) for name, value in result.items() if _top1(value) is not None} for result in both]
    return {name: {"parent": tops[0][name], "fork": tops[1][name]} for name in tops[0] if name in tops[1]}


def _result(run: Path) -> dict[str, Any]:
    try:
        found = read_json(run / "results.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("steps"), int) else {}


def _top1(result: Any) -> Any:
    """Of an evaluator's result: its own figure, or that of this run beside its baselines."""
    if not isinstance(result, dict):
        return None
    own = result.get(THIS, result)
    return own.get("top1") if isinstance(own, dict) else None


def _weights(parent: Path, fork: Path, step: int) -> dict[str, Any] | None:
    """How far apart the two are at the last step of which both have a checkpoint: whether all tensors are equal, and
    ‖θ_fork − θ_parent‖/‖θ_parent‖ of the encoder's. None where there is no such step."""
    both = [_checkpoints(folder, step) for folder in (parent, fork)]
    at = max(both[0].keys() & both[1].keys(), default=None)
    if at is None:
        return None
    folders = [found[at] for found in both]
    hashes = [_hash(folder) for folder in folders]
    if hashes[0] == hashes[1]:
        return {"step": at, "equal": True, "distance": 0.0}
    return {"step": at, "equal": False, "distance": _distance(*folders)}


def _checkpoints(run: Path, step: int) -> dict[int, Path]:
    folder = run / "checkpoints"
    found = read.steps(folder) if folder.is_dir() else []
    numbered = {int(path.name.removeprefix("step-")): path for path in found if read.is_complete(path, [MODEL])}
    return {number: path for number, path in numbered.items() if number > step}


def _hash(checkpoint: Path) -> str:
    return next(file.sha256 for file in manifest.files_of(checkpoint, hashes=False) if file.name == MODEL)


def _distance(parent: Path, fork: Path) -> float | None:
    """None where the encoders have other tensors, or a checkpoint is damaged."""
    try:
        before, after = (read.open_checkpoint(path).tensors(prefix="encoder.") for path in (parent, fork))
    except ContralexError:
        return None
    if before.keys() != after.keys():
        return None
    floats = [name for name, tensor in before.items() if tensor.is_floating_point()]
    if any(before[name].shape != after[name].shape for name in floats):
        return None
    apart = sum(float((after[name].double() - before[name].double()).square().sum()) for name in floats)
    size = sum(float(before[name].double().square().sum()) for name in floats)
    return math.sqrt(apart / size) if size else None


def _notes(
    forked: Forked, parent: Path, before: list[dict[str, Any]], after: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> Iterator[str]:
    if not before:
        yield f"{parent} has no metrics any more, so there is nothing to compare the fork with."
        return
    start = forked.recomputed_from
    if start is not None:
        again = [row for row in _rows(before, after, start) if row["step"] <= forked.step]
        yield from _disagreement(again, f"The steps after {start:,} were computed again, and differ from the parent's")
    if not forked.changes:
        yield from _disagreement(rows, "Nothing was changed, and the fork still differs from its parent")
    if not rows:
        yield "The parent and the fork have logged no step in common; train.log_every says how often a step is logged."


def _disagreement(rows: list[dict[str, Any]], what: str) -> Iterator[str]:
    for row in rows:
        other = [name for name, value in row["parent"].items() if row["fork"][name] != value]
        if other:
            name = "loss" if "loss" in other else other[0]
            yield (
                f"{what}, first at step {row['step']:,} ({name} {row['parent'][name]:.6g} and {row['fork'][name]:.6g})"
                ": the parent was computed on another machine, in other numbers of processes or threads, or by other "
                "versions."
            )
            return
