"""One run for each strength of the views, and what came of each (InfoMin, section 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contralex import resolve
from contralex.plugin import (
    THIS,
    ContralexError,
    Resolved,
    Source,
    check_present,
    figures,
    lock_folder,
    permission,
    progress,
    read_json,
    read_source,
    train_or_reuse,
    write_text,
)
from contralex_infomin.bound import information

_ROWS = "information.json"
_JITTER = ("brightness", "contrast", "saturation", "hue")


def study(
    recipe: str,
    preset: str | None,
    data: str | None,
    sets: Sequence[str],
    vary: str,
    strengths: Sequence[float],
    out: Path,
    allow_code: bool = False,
) -> list[dict[str, float]]:
    """Train a run for each strength, and return ``strength``, ``information`` in bits and ``knn_top1`` in [0, 1].

    The rows are written to ``out`` as well, where the runs are. Finished runs are not trained again.
    """

    def at(*more: str) -> Resolved:
        return resolve(recipe, preset=preset, data=data, sets=[*sets, *more], allow_code=allow_code)

    base = at()
    check_present(base, recipe, ["contralex", "view-information", recipe], allow_code=allow_code)
    # All are resolved first, so that a mistake in the last one wastes no run.
    runs = {strength: at(*changes(base, vary, strength)) for strength in strengths}
    with permission(allow_code):
        _check_labels(base)
        _check_folder(out, recipe, vary)
        with lock_folder(out):
            _check_folder(out, recipe, vary)
            rows = [_row(strength, resolved, out / f"{vary}-{strength:g}") for strength, resolved in runs.items()]
            write_text(out / _ROWS, json.dumps({"recipe": recipe, "vary": vary, "rows": rows}, indent=1) + "\n")
            write_text(out / "information.md", _table(rows))
            if figures.is_possible():
                _draw(rows, vary, out / "information.svg")
    return rows


def changes(base: Resolved, vary: str, strength: float) -> list[str]:
    """The texts of ``--set`` that bring every group of views to a strength."""
    groups: Mapping[str, Any] = base.data["method"]["views"].get("groups", {})
    augments = {name: group["augment"] for name, group in groups.items() if group.get("augment")}
    sets = []
    for name, augment in augments.items():
        path = f"method.views.groups.{name}.augment"
        if vary == "crop":
            sets.append(f"{path}.crop.scale=[{strength:g}, 1]")
        elif augment.get("jitter"):
            bounded = {key: min(augment["jitter"][key] * strength, 0.5 if key == "hue" else 10.0) for key in _JITTER}
            sets += [f"{path}.jitter.{key}={value:g}" for key, value in bounded.items()]
    if not sets:
        raise ContralexError(
            f"method.views of {base.run.name} has no {'jitter' if vary == 'colour' else 'crops'} whose strength could "
            "vary; take another recipe, or another --vary"
        )
    return sets


def _row(strength: float, resolved: Resolved, folder: Path) -> dict[str, float]:
    results = train_or_reuse(resolved, folder)
    with progress.during("Estimating what the views share"):
        shared = information(folder, resolved)
    return {"strength": strength, "information": shared, "knn_top1": results["knn"][THIS]["top1"]}


def _check_labels(base: Resolved) -> None:
    """Refuse before anything is trained what could not be compared afterwards."""
    if base.run.eval.knn is None or not _has_labels(read_source(base.run.data)):
        raise ContralexError(
            "view-information compares with kNN accuracy, and there is none: it needs eval.knn, and data with labels "
            "and a split to evaluate on"
        )


def _has_labels(source: Source) -> bool:
    test = source.test()
    return test is not None and test.labels is not None and source.train().labels is not None


def _check_folder(out: Path, recipe: str, vary: str) -> None:
    """Refuse a folder that holds the table of another study, which this one would overwrite."""
    try:
        found = read_json(out / _ROWS)
    except (OSError, ValueError):
        return
    other = [found.get(key) for key in ("recipe", "vary")] if isinstance(found, dict) else [None, None]
    if other != [recipe, vary]:
        raise ContralexError(f"{out / _ROWS} is of {other[0]} with --vary {other[1]}; choose another folder with --out")


def _table(rows: Sequence[Mapping[str, float]]) -> str:
    lines = ["| strength | information, bits | kNN top-1, % |", "|---|---|---|"]
    lines += [f"| {row['strength']:g} | {row['information']:.2f} | {100 * row['knn_top1']:.1f} |" for row in rows]
    return "\n".join(lines) + "\n"


def _draw(rows: Sequence[Mapping[str, float]], vary: str, path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    along = sorted(rows, key=lambda row: row["information"])
    with matplotlib.rc_context({"svg.hashsalt": "contralex"}):  # the same for the same rows
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([row["information"] for row in along], [100 * row["knn_top1"] for row in along], marker="o")
        for row in along:
            point = (row["information"], 100 * row["knn_top1"])
            axes.annotate(f"{row['strength']:g}", point, textcoords="offset points", xytext=(5, 5))
        axes.set_xlabel(f"information that two views share, bits (at least); points: {vary}")
        axes.set_ylabel("kNN top-1, %")
        figure.savefig(path, format="svg", metadata={"Date": None})
