"""The figure of ``python -m benchmarks.bounds --plot``: how far each line is from its bound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.promises import Line

_ENDS = 0.1, 10.0  # what is further from its bound lies on the edge, as an arrow


def draw(lines: Sequence[Line], file: Path) -> None:
    """A dot for each line that was measured, on a logarithmic axis: left of 1 it holds, right of it it falls short."""
    from matplotlib.figure import Figure

    measured = [line for line in lines if line.figure is not None]
    figure = Figure(figsize=(9, 1.2 + 0.26 * len(measured)), layout="constrained")
    axes = figure.subplots()
    for at, line in enumerate(measured):
        where = _inside(relative(line, line.figure or 0.0))
        color = "C0" if line.verdict == "holds" else "C3"
        if line.spread is not None:
            axes.plot([_inside(relative(line, each)) for each in line.spread], [at, at], color=color, linewidth=1.5)
        axes.plot(where, at, _marker(line, where), color=color, markersize=6, clip_on=False)
        axes.annotate(
            f"{line.figure:.3g}, {line.sense} {line.bound:.3g}",
            (1.0, at),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axes.set_yticks(range(len(measured)), [line.what for line in measured], fontsize=8)
    axes.set_ylim(len(measured) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(*_ENDS)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.grid(axis="y", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("figure over bound; bound over figure where it is a least. 1: the bound itself")
    marks = [axes.plot([], [], mark, color=color)[0] for mark, color in (("o", "C0"), ("X", "C3"))]
    figure.legend(marks, ["holds", "falls short"], fontsize=8, ncols=2, loc="outside upper right")
    figure.savefig(file, format="svg", metadata={"Date": None})


def relative(line: Line, figure: float) -> float:
    """Below 1 where ``figure`` is on the good side of the bound."""
    part, whole = (figure, line.bound) if line.sense == "at most" else (line.bound, figure)
    if whole == 0:
        return 0.0 if part <= 0 else _ENDS[1]
    return part / whole


def _inside(value: float) -> float:
    return min(max(value, _ENDS[0]), _ENDS[1])


def _marker(line: Line, where: float) -> str:
    if line.verdict != "holds":
        return "X"
    return "<" if where == _ENDS[0] else "o"
