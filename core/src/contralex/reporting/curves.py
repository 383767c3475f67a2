"""The curves of runs: from logged lines to series of points, with what was wrong and where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contralex.evaluation.base import PIXELS, THIS, UNTRAINED
from contralex.reporting.limits import POINTS
from contralex.training.health import Watch


@dataclass(frozen=True)
class Series:
    """Points of one run, by epochs. ``run``: its number."""

    run: int
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Sign:
    """A sign that a run learns nothing, at the logged step at which it was believed."""

    run: int
    step: int
    epoch: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One figure over the epochs of all runs. ``levels``: what a horizontal line says, such as a baseline."""

    key: str
    title: str
    about: str
    percent: bool = False
    series: list[Series] = field(default_factory=list)
    levels: dict[str, float] = field(default_factory=dict)


_CHARTS = (
    Chart("loss", "Loss", "The mean over a logging period."),
    Chart("lookup_top1", "Look-up accuracy", "How often a query finds its key first.", percent=True),
    Chart("knn_top1", "kNN accuracy", "Top-1 of weighted nearest neighbours on the test split.", percent=True),
    Chart("linear_top1", "Linear probe", "Top-1 of a linear classifier on the test split.", percent=True),
    Chart("effective_rank", "Effective rank", "Directions that the keys of a batch use (RankMe)."),
    Chart("feature_std", "Spread of the keys", "1 where unit keys point everywhere, 0 where all are alike."),
    Chart("lr", "Learning rate", "As the schedule gives it."),
)


def make_charts(lines: Sequence[Sequence[Mapping[str, Any]]], results: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts that have a point. ``lines`` and ``results``: of each run, what it logged and what it reached."""
    charts = []
    for chart in _CHARTS:
        series = []
        for run, (logged, reached) in enumerate(zip(lines, results, strict=True)):
            points = _points(logged, chart.key)
            last = _reached(reached, chart.key, THIS)
            if last is not None and "epochs" in reached:
                at = float(logged[-1]["epoch"]) if logged and "epoch" in logged[-1] else float(reached["epochs"])
                points = [point for point in points if point[0] < at] + [(at, last)]
            if points:
                kept = thin(points)
                series.append(Series(run, [x for x, _ in kept], [y for _, y in kept]))
        if series:
            charts.append(
                Chart(chart.key, chart.title, chart.about, chart.percent, series, _levels(results, chart.key))
            )
    return charts


def find_signs(lines: Sequence[Sequence[Mapping[str, Any]]]) -> list[Sign]:
    """The signs of each run, each once, where ``contralex doctor`` sees it."""
    signs = []
    for run, logged in enumerate(lines):
        watch = Watch()
        for line in logged:
            if "loss" in line:
                new = watch.new_signs(dict(line))
                signs += [Sign(run, line["step"], float(line.get("epoch", 0.0)), text) for text in new]
    return signs


def thin(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most ``most`` points: the first, the last, and of each stretch between the lowest and the highest, so that no
    peak is lost."""
    if len(points) <= most:
        return list(points)
    stretches = max((most - 2) // 2, 1)
    inner = points[1:-1]
    kept = [points[0]]
    for number in range(stretches):
        part = inner[number * len(inner) // stretches : (number + 1) * len(inner) // stretches]
        if part:
            extremes = {part.index(end(part, key=lambda point: point[1])) for end in (min, max)}
            kept += [part[index] for index in sorted(extremes)]
    return [*kept, points[-1]]


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    found = [(float(line["epoch"]), float(line[key])) for line in lines if key in line and "epoch" in line]
    return [(x, y) for x, y in found if math.isfinite(x) and math.isfinite(y)]


def _reached(results: Mapping[str, Any], key: str, who: str) -> float | None:
    evaluator, _, figure = key.partition("_")
    found = results.get(evaluator)
    reached = found.get(who) if isinstance(found, Mapping) else None
    value = reached.get(figure) if isinstance(reached, Mapping) else None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _levels(results: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """The baselines, where all runs that have one have the same."""
    levels = {}
    for who in (UNTRAINED, PIXELS):
        found = {value for reached in results if (value := _reached(reached, key, who)) is not None}
        if len(found) == 1:
            levels[who] = found.pop()
    return levels
