"""Everything that a report shows, as plain data: numbers, texts, and pictures as data URIs."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from contralex import progress
from contralex.errors import ContralexError
from contralex.explaining import explained
from contralex.explaining.picture import svg
from contralex.recipes import yaml
from contralex.recipes.diff import changes
from contralex.reporting import curves
from contralex.reporting.atlas import Atlas
from contralex.reporting.image_sections import collect_pictures
from contralex.reporting.limits import IMAGES, RUNS, SAMPLES, VIEWS
from contralex.reporting.subjects import Logged, Subject, label_runs, say_why
from contralex.reporting.thumbnails import data_uri
from contralex.reporting.view_grid import ViewRows, view_rows

_VERSIONS = ("contralex", "torch", "torchvision", "timm", "pillow", "accelerate")


@dataclass(frozen=True)
class Options:
    """``data``: other images than the first run's own, as ``--data``. ``images``: of the map at most. ``commands``:
    what made the report, as words."""

    data: str | None = None
    images: int = IMAGES
    umap: bool = False
    commands: Sequence[Sequence[str]] = field(default=())


def collect(runs: Sequence[Logged], options: Options) -> tuple[dict[str, Any], Atlas | None]:
    """The report of some runs, and the table of its map, if it has one. A part that a run cannot give is a sentence:
    ``{"absent": ...}``."""
    if not runs or len(runs) > RUNS:
        raise ContralexError(f"a report shows 1 to {RUNS} runs, and here are {len(runs)}")
    labels = label_runs([run.folder for run in runs])
    subjects = [Subject(run, label) for run, label in zip(runs, labels, strict=True)]
    lines, results = [run.lines for run in runs], [run.results for run in runs]
    with progress.during("Collecting the report"):
        pictures, atlas = collect_pictures(subjects, options.data, options.images, options.umap)
        found: dict[str, Any] = {
            "title": " · ".join(labels),
            "runs": [_describe(subject) for subject in subjects],
            "charts": curves.make_charts(lines, results),
            "signs": curves.find_signs(lines),
            "differences": _differences(runs),
            "views": [_views(subject, single=len(subjects) == 1) for subject in subjects],
            **pictures,
            "environment": environment(),
            "commands": [shlex.join(words) for words in [*(_again(run) for run in runs), *options.commands]],
        }
    return found, atlas


def attempt(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part of the report, or the sentence that says why it is absent."""
    try:
        return part()
    except ContralexError as error:
        return {"absent": say_why(error)}


def environment() -> dict[str, str]:
    """Of the machine on which the report was made."""
    found = {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in _VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _describe(subject: Subject) -> dict[str, Any]:
    logged, results = subject.logged, subject.logged.results
    state = attempt(lambda: {"step": subject.checkpoint.step, "plugins": dict(subject.checkpoint.state.plugins)})
    picture = attempt(lambda: {"svg": svg(explained(subject.resolved))})
    last = logged.lines[-1] if logged.lines else {}
    losses = [float(line["loss"]) for line in logged.lines if "loss" in line]
    return {
        "label": subject.label,
        "path": str(logged.path),
        "name": str(logged.spec.get("name", "")),
        "summary": str(logged.spec.get("summary", "")),
        "paper": str(logged.spec.get("paper", "")),
        "spec": yaml.dump(dict(logged.spec)),
        "ended": bool(results),
        "results": dict(results),
        "losses": [losses[0], losses[-1]] if losses else [],
        "step": last.get("step", 0),
        "epoch": last.get("epoch", 0),
        "checkpoint": state,
        "picture": picture,
    }


def _differences(runs: Sequence[Logged]) -> list[dict[str, Any]]:
    """A row for each value that differs, with the value of each run. Paths stand in the order of the spec."""
    first, *others = (run.spec for run in runs)
    rows: dict[str, list[str]] = {}
    for number, other in enumerate(others, 1):
        for change in changes(first, other):
            row = rows.setdefault(change.path, [change.before] * len(runs))
            row[number] = change.after
    return [{"path": path, "values": values} for path, values in rows.items()]


def _views(subject: Subject, *, single: bool) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        spec = subject.spec
        split = subject.source.train()
        samples, batch = SAMPLES if single else SAMPLES // 2, spec.train.batch_size
        return grid_data(view_rows(split, subject.views, spec.train.seed, samples, batch=batch))

    return attempt(make)


def grid_data(grid: ViewRows) -> dict[str, Any]:
    rows = [
        {
            "name": row.name,
            "original": data_uri(row.original) if row.original is not None else None,
            "cells": [
                {
                    "picture": data_uri(cell.image) if cell.image is not None else None,
                    "text": cell.text,
                    "steps": list(cell.steps),
                }
                for cell in row.cells
            ],
        }
        for row in grid.rows
    ]
    return {"columns": list(grid.columns), "rows": rows, "left_out": grid.left_out, "most": VIEWS}


def _again(run: Logged) -> list[str]:
    """What trains the same run again."""
    return ["contralex", "train", str(run.folder / "spec.yaml"), "--out", f"{run.folder}-again"]
