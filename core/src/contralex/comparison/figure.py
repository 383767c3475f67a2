"""The figure of a comparison: a bar of kNN and one of the linear probe for each method, the best on top."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MISSING = "no figure will be drawn, for matplotlib is not installed: pip install 'contralex[figures]'"
_JUDGES = {"knn": ("kNN", "#4477aa"), "linear": ("linear probe", "#ee9944")}
_BASELINES = {"untrained": ("untrained encoder", "o"), "pixels": ("raw pixels", "D")}
_THICK = 0.36


def is_possible() -> bool:
    return find_spec("matplotlib") is not None


def draw(rows: list[Mapping[str, Any]], title: str, file: Path) -> None:
    """An SVG, the same for the same rows. Each bar has the untrained encoder and raw pixels as marks on it."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "contralex", "font.size": 9}):
        figure = Figure(figsize=(7, 1.3 + 0.5 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for side, (judge, (name, colour)) in enumerate(_JUDGES.items()):
            places = [place + (side - 0.5) * _THICK for place in range(len(rows))]
            shares = [100 * (row[judge] or 0.0) for row in rows]
            axes.barh(places, shares, _THICK, color=colour, label=name)
            for baseline, (what, mark) in _BASELINES.items():
                known = [(row[f"{baseline}_{judge}"], place) for row, place in zip(rows, places, strict=True)]
                points = [(100 * share, place) for share, place in known if share is not None]
                axes.scatter(
                    [share for share, _ in points],
                    [place for _, place in points],
                    marker=mark,
                    s=14,
                    color="black" if baseline == "untrained" else "white",
                    edgecolors="black",
                    linewidths=0.6,
                    zorder=3,
                    label=what if side == 0 and points else None,
                )
            for row, place, share in zip(rows, places, shares, strict=True):
                marks = [100 * (row[f"{baseline}_{judge}"] or 0.0) for baseline in _BASELINES]
                axes.text(max(share, *marks) + 1.2, place, f"{share:.1f}", va="center", fontsize=7)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 105)
        axes.set_xlabel("top-1 of the test samples, %")
        axes.set_title(title, loc="left")
        for edge in ("top", "right"):
            axes.spines[edge].set_visible(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35 / (0.2 + 0.5 * len(rows))), ncols=4, frameon=False)
        figure.savefig(file, format="svg", metadata={"Date": None})
