"""Curves as SVG, for light and dark pages: colours are variables of the page's style."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contralex.reporting.curves import Chart, Sign
from contralex.reporting.markup import Markup, join, tag

_WIDTH, _HEIGHT = 360.0, 230.0
_TOP, _BOTTOM = 16.0, 34.0
_LINE = 12.0  # the least distance between two labels, in pixels
_LETTER = 5.6  # about the width of a letter at that size
_DIGIT = 6.8  # the most that a digit of an axis takes
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "10 4", "4 2", "1 2", "12 3 3 3")
_LONGEST = 14  # letters of a label beside a curve


@dataclass(frozen=True)
class _Frame:
    """From values to pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float
    right: float

    def across(self, value: float) -> float:
        low, high = self.x
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def down(self, value: float) -> float:
        low, high = self.y
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)


def draw_chart(chart: Chart, labels: Sequence[str], signs: Sequence[Sign] = ()) -> Markup:
    """The chart as an SVG, with a sentence of it for those who do not see it. ``labels``: the names of the runs.
    ``signs`` are marked by their numbers, counted from 1."""
    frame = _frame(chart, labels)
    parts = [
        *_grid(chart, frame),
        *_levels(chart, frame),
        *_marks(signs, frame),
        *(_curve(series.x, series.y, series.run, frame) for series in chart.series),
        *(_end_labels(chart, labels, frame) if len(labels) > 1 else ()),
    ]
    return tag(
        "svg",
        tag("title", describe(chart, labels)),
        *parts,
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        class_="chart",
        data_chart=chart.key,
        data_frame=f"{frame.x[0]:g} {frame.x[1]:g} {frame.left:g} {frame.right:g}",
    )


def describe(chart: Chart, labels: Sequence[str]) -> str:
    """``Loss: moco-v2 from 5.1 to 2.3 in 20 epochs``."""
    found = [
        f"{labels[series.run]} from {_number(series.y[0], chart.percent)} to {_number(series.y[-1], chart.percent)} "
        f"at epoch {series.x[-1]:g}"
        for series in chart.series
    ]
    return f"{chart.title}: {'; '.join(found)}"


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The positions, moved as little as is needed so that no two are closer than ``gap``, from ``low`` to ``high``.
    Where there is no room for that, they are as far from each other as there is room."""
    if not positions:
        return []
    gap = min(gap, (high - low) / max(len(positions) - 1, 1))
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    moved = [min(max(positions[index], low), high) for index in order]
    for number in range(1, len(moved)):
        moved[number] = max(moved[number], moved[number - 1] + gap)
    limit = high
    for number in reversed(range(len(moved))):
        moved[number] = min(moved[number], limit)
        limit = moved[number] - gap
    found = [0.0] * len(positions)
    for index, position in zip(order, moved, strict=True):
        found[index] = position
    return found


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers between two others, about so many."""
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _frame(chart: Chart, labels: Sequence[str]) -> _Frame:
    across = [x for series in chart.series for x in series.x]
    values = [y for series in chart.series for y in series.y] + list(chart.levels.values())
    longest = max((len(_short(labels[series.run])) for series in chart.series), default=0)
    room = longest * _LETTER + 14 if len(labels) > 1 else 10
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(high), 1e-3):  # a line that is flat
        low, high = low - max(abs(low) * 0.5, 1e-6), high + max(abs(high) * 0.5, 1e-6)
    margin = (high - low) * 0.06
    floor = 0.0 if low >= 0 else low - margin
    below = max(low - margin, floor)
    above = min(high + margin, 1.0) if chart.percent and high <= 1 else high + margin
    left, right = min([0.0, *across]), max(across)
    digits = max(len(_number(value, chart.percent)) for value in [*ticks(below, above), 0])
    return _Frame((left, right if right > left else left + 1.0), (below, above), 12 + digits * _DIGIT, _WIDTH - room)


def _grid(chart: Chart, frame: _Frame) -> Iterator[Markup]:
    floor = _HEIGHT - _BOTTOM
    for value in ticks(*frame.y):
        y = frame.down(value)
        yield tag("path", d=f"M{frame.left:g} {y:.1f}H{frame.right:.1f}", class_="grid")
        yield _text(_number(value, chart.percent), frame.left - 6, y + 4, "end")
    for value in ticks(*frame.x):
        yield _text(f"{value:g}", frame.across(value), floor + 15, "middle")
    yield tag("path", d=f"M{frame.left:g} {floor:g}H{frame.right:.1f}", class_="axis")
    yield _text("epoch", (frame.left + frame.right) / 2, floor + 29, "middle")


def _levels(chart: Chart, frame: _Frame) -> Iterator[Markup]:
    lines = [frame.down(value) for value in chart.levels.values()]
    labels = spread([line - 4 for line in lines], _LINE, _TOP + 6, _HEIGHT - _BOTTOM - 4)
    for line, label, (name, value) in zip(lines, labels, chart.levels.items(), strict=True):
        yield tag("path", d=f"M{frame.left:g} {line:.1f}H{frame.right:.1f}", class_="level")
        yield _text(f"{name} {_number(value, chart.percent)}", frame.right - 3, label, "end", class_="level-name")


def _marks(signs: Sequence[Sign], frame: _Frame) -> Iterator[Markup]:
    lines = [frame.across(min(max(sign.epoch, frame.x[0]), frame.x[1])) for sign in signs]
    labels = spread(lines, _LINE, frame.left + 4, frame.right)
    for number, (line, label, sign) in enumerate(zip(lines, labels, signs, strict=True), 1):
        yield tag(
            "g",
            tag("title", sign.text),
            tag("path", d=f"M{line:.1f} {_TOP:g}V{_HEIGHT - _BOTTOM:g}", class_="sign"),
            _text(f"⚠{number}", label, _TOP - 5, "middle", class_="sign-name"),
        )


def _curve(x: Sequence[float], y: Sequence[float], run: int, frame: _Frame) -> Markup:
    points = [f"{frame.across(one):.1f} {frame.down(other):.1f}" for one, other in zip(x, y, strict=True)]
    style = {"class_": f"curve run-{run}", "stroke_dasharray": _DASHES[run % len(_DASHES)] or None}
    line = tag("path", d=f"M{'L'.join(points)}", **style)
    if len(points) > 12:
        return line
    dots = [tag("circle", cx=point.split()[0], cy=point.split()[1], r=2.5, class_=f"dot run-{run}") for point in points]
    return join([line, *dots])


def _end_labels(chart: Chart, labels: Sequence[str], frame: _Frame) -> Iterator[Markup]:
    ends = [(series.run, frame.across(series.x[-1]), frame.down(series.y[-1])) for series in chart.series]
    places = spread([y for *_, y in ends], _LINE, _TOP, _HEIGHT - _BOTTOM)
    for (run, x, y), place in zip(ends, places, strict=True):
        yield tag("path", d=f"M{x:.1f} {y:.1f}L{frame.right + 6:.1f} {place:.1f}", class_=f"leader run-{run}")
        yield _text(_short(labels[run]), frame.right + 8, place + 4, "start", class_=f"name run-{run}")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _text(words: str, x: float, y: float, anchor: str, class_: str = "tick") -> Markup:
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=class_)


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.3g} %"
    return f"{value:.3g}"
