"""The figure of a fork: the curves of parent and fork, and below each the difference between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PANELS = {"loss": "loss", "lookup_top1": "look-up accuracy", "knn_top1": "kNN top-1"}
_PARENT, _FORK = "#888888", "#4477aa"


def draw(
    parent: Sequence[Mapping[str, Any]], fork: Sequence[Mapping[str, Any]], step: int, title: str, file: Path
) -> None:
    """An SVG, the same for the same lines. ``step``: where the fork begins."""
    import matplotlib
    from matplotlib.figure import Figure

    curves = {name: (_curve(parent, name), _curve(fork, name)) for name in _PANELS}
    curves = {name: both for name, both in curves.items() if any(at > step for at in both[0].keys() & both[1].keys())}
    with matplotlib.rc_context({"svg.hashsalt": "contralex", "font.size": 9}):
        figure = Figure(figsize=(3.6 * len(curves) + 0.4, 4.2), layout="constrained")
        axes = figure.subplots(2, len(curves), sharex=True, squeeze=False, height_ratios=(2, 1))
        for column, (name, (before, after)) in enumerate(curves.items()):
            top, bottom = axes[0][column], axes[1][column]
            own = {at: value for at, value in after.items() if at >= step}
            top.plot(list(before), list(before.values()), color=_PARENT, label="parent", linewidth=1.2)
            top.plot(list(own), list(own.values()), color=_FORK, label="fork", linewidth=1.2)
            top.set_ylabel(_PANELS[name])
            common = [at for at in own if at in before]
            apart = [own[at] - before[at] for at in common]
            bottom.axhline(0, color=_PARENT, linewidth=0.8)
            bottom.plot(common, apart, color=_FORK, linewidth=1.0)
            bottom.fill_between(common, apart, color=_FORK, alpha=0.2, linewidth=0)
            bottom.set_ylabel("fork − parent")
            bottom.set_xlabel("step")
            for each in (top, bottom):
                each.axvline(step, color="black", linewidth=0.6, linestyle=":")
                for edge in ("top", "right"):
                    each.spines[edge].set_visible(False)
        axes[0][0].legend(frameon=False)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        figure.savefig(file, format="svg", metadata={"Date": None})


def _curve(lines: Sequence[Mapping[str, Any]], name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in lines if name in line}
