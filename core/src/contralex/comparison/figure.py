"""The figure of a comparison: a bar for each accuracy of each method, the best on top."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MISSING = "no figure will be drawn, for matplotlib is not installed: pip install 'contralex[figures]'"
_EVALUATORS = {"knn": ("kNN", "#4477aa"), "linear": ("linear probe", "#ee9944")}
_BASELINES = {"untrained": ("untrained encoder", "o", "black"), "pixels": ("raw pixels", "D", "white")}
_THICK = 0.36  # of a bar; the distance of two methods is 1
_NAME_WIDTH, _NAME_LINES = 34, 3  # characters of a line of a method's name, and how many lines it may have


@dataclass(frozen=True)
class _Bar:
    """``accuracy``, ``deviation`` and ``baselines`` in percent."""

    position: float
    accuracy: float
    deviation: float
    baselines: dict[str, float]

    @property
    def end(self) -> float:
        """Where the last of its marks ends."""
        return max(self.accuracy + self.deviation, *self.baselines.values(), 0.0)

    @property
    def text(self) -> str:
        return f"{self.accuracy:.1f}" + (f" ± {self.deviation:.1f}" if self.deviation else "")


def is_possible() -> bool:
    return find_spec("matplotlib") is not None


def has_figures(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any method has an accuracy; data without labels give none."""
    return any(row[name] is not None for row in rows for name in _EVALUATORS)


def draw(rows: Sequence[Mapping[str, Any]], title: str, file: Path) -> None:
    """An SVG, the same for the same rows. Each bar has the untrained encoder and raw pixels as marks on it, and where
    there are several seeds the standard deviation as a line."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "contralex", "font.size": 9}):
        figure = Figure(figsize=(7, 1.4 + 0.5 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        shown: dict[str, Any] = {}  # for the legend, each once
        for side, (name, (label, colour)) in enumerate(_EVALUATORS.items()):
            bars = list(_bars(rows, name, (side - 0.5) * _THICK))
            if not bars:
                continue
            positions, accuracies = [bar.position for bar in bars], [bar.accuracy for bar in bars]
            shown[label] = axes.barh(positions, accuracies, _THICK, color=colour)
            spread = [bar for bar in bars if bar.deviation]
            axes.errorbar(
                [bar.accuracy for bar in spread],
                [bar.position for bar in spread],
                xerr=[bar.deviation for bar in spread],
                fmt="none",
                ecolor="black",
                elinewidth=0.8,
                capsize=2,
            )
            for baseline, (what, mark, fill) in _BASELINES.items():
                known = [bar for bar in bars if baseline in bar.baselines]
                if known:
                    shown[what] = axes.scatter(
                        [bar.baselines[baseline] for bar in known],
                        [bar.position for bar in known],
                        marker=mark,
                        s=14,
                        color=fill,
                        edgecolors="black",
                        linewidths=0.6,
                        zorder=3,
                    )
            for bar in bars:
                axes.annotate(
                    bar.text,
                    (bar.end, bar.position),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=7,
                    annotation_clip=False,
                )
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_yticks(range(len(rows)), [_wrap(row["name"]) for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 116)  # a figure beside a bar of 100 has room
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("top-1 of the test samples, %")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        for edge in ("top", "right"):
            axes.spines[edge].set_visible(False)
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False)
        figure.savefig(file, format="svg", metadata={"Date": None})


def _bars(rows: Sequence[Mapping[str, Any]], name: str, offset: float) -> Iterator[_Bar]:
    for place, row in enumerate(rows):
        if row[name] is not None:
            baselines = {each: 100 * row[f"{each}_{name}"] for each in _BASELINES if row[f"{each}_{name}"] is not None}
            yield _Bar(place + offset, 100 * row[name], 100 * row["deviations"].get(name, 0.0), baselines)


def _wrap(name: str) -> str:
    return "\n".join(textwrap.wrap(name, _NAME_WIDTH, max_lines=_NAME_LINES, placeholder=" ..."))
