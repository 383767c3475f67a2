"""What a report says of its runs in words, numbers and curves: the sections without images."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from contralex.evaluation.base import THIS
from contralex.progress import duration
from contralex.reporting.curves import Chart, Sign
from contralex.reporting.limits import NEIGHBOURS, POINTS
from contralex.reporting.markup import EMPTY, Markup, join, tag
from contralex.reporting.page_parts import make_table, say_absent
from contralex.reporting.plots import draw_chart


def show_summary(found: Mapping[str, Any]) -> Markup:
    about = {run["name"]: run["summary"] for run in found["runs"] if run["summary"]}
    several = len(found["runs"]) > 1
    rows = []
    for number, run in enumerate(found["runs"]):
        swatch = tag("span", class_=f"swatch run-{number}", aria_hidden="true")
        cells = (tag("td", value) for value in _facts(run).values())
        rows.append(tag("tr", tag("th", swatch, run["label"], scope="row"), *cells))
    facts = _facts(found["runs"][0])
    single = tag(
        "dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()), class_="facts"
    )
    return join(
        [
            *(tag("p", f"Recipe {name}: {text}", class_="lead") for name, text in about.items()),
            make_table(("run", *facts), rows) if several else single,
            _signs(found["signs"], found["runs"]),
        ]
    )


def _facts(run: Mapping[str, Any]) -> dict[str, str]:
    """What a run reached; of one that has not ended, as far as it logged."""
    results, losses = run["results"], run["losses"]
    return {
        "method": run["name"],
        "steps": f"{results['steps']:,}" if run["ended"] else f"{run['step']:,} (not ended)",
        "epochs": f"{run['epoch']:.3g}",
        "time": duration(results["seconds"]) if run["ended"] else "–",
        "loss": f"{losses[0]:.3f} → {losses[1]:.3f}" if losses else "–",
        "kNN top-1": _accuracy(results, "knn"),
        "linear top-1": _accuracy(results, "linear"),
    }


def _accuracy(results: Mapping[str, Any], name: str) -> str:
    reached = results.get(name, {}).get(THIS)
    return f"{reached['top1']:.1%}" if isinstance(reached, Mapping) else "–"


def _signs(signs: Sequence[Sign], runs: Sequence[Mapping[str, Any]]) -> Markup:
    if not signs:
        return tag("p", "No sign that training goes wrong was found in what was logged.", class_="fine")
    several = len(runs) > 1
    listed = [
        tag(
            "li",
            tag("strong", f"{runs[sign.run]['label']}, " if several else "", f"step {sign.step:,}: "),
            sign.text,
            value=number,
        )
        for number, sign in enumerate(signs, 1)
    ]
    return join([tag("h3", "Signs that training goes wrong"), tag("ol", *listed, class_="signs")])


def show_curves(found: Mapping[str, Any]) -> Markup:
    charts: Sequence[Chart] = found["charts"]
    labels = [run["label"] for run in found["runs"]]
    if not charts:
        return say_absent({"absent": "Nothing was logged, so there are no curves."})
    legend = EMPTY
    if len(labels) > 1:
        legend = tag(
            "ul",
            *(
                tag("li", tag("span", class_=f"swatch run-{number}", aria_hidden="true"), label)
                for number, label in enumerate(labels)
            ),
            class_="legend",
        )
    figures = [
        tag(
            "figure",
            tag("figcaption", tag("strong", chart.title), " ", tag("span", chart.about)),
            draw_chart(chart, labels, found["signs"]),
            tag("output", class_="readout"),
        )
        for chart in charts
    ]
    return join([legend, tag("div", *figures, class_="charts"), _curve_table(charts, labels)])


def _curve_table(charts: Sequence[Chart], labels: Sequence[str]) -> Markup:
    """The curves as numbers, for those who do not see them."""
    rows = []
    for chart in charts:
        for series in chart.series:
            values = (series.y[0], min(series.y), max(series.y), series.y[-1])
            cells = [f"{100 * value:.1f} %" if chart.percent else f"{value:.4g}" for value in values]
            head = tag("th", f"{chart.title}, {labels[series.run]}", scope="row")
            rows.append(tag("tr", head, *(tag("td", cell) for cell in cells)))
    table = make_table(("curve", "first", "lowest", "highest", "last"), rows)
    return tag("details", tag("summary", "The curves as numbers"), table)


def curve_data(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "labels": [run["label"] for run in found["runs"]],
        "charts": {
            chart.key: {
                "percent": chart.percent,
                "series": [{"run": each.run, "x": _short(each.x), "y": _short(each.y)} for each in chart.series],
            }
            for chart in found["charts"]
        },
    }


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def show_differences(found: Mapping[str, Any]) -> Markup:
    labels = [run["label"] for run in found["runs"]]
    if len(labels) == 1:
        return EMPTY
    if not found["differences"]:
        return tag("p", "The specs of these runs are the same.")
    rows = [
        tag("tr", tag("th", tag("code", row["path"]), scope="row"), *(tag("td", value) for value in row["values"]))
        for row in found["differences"]
    ]
    return make_table(("value", *labels), rows)


def show_method(found: Mapping[str, Any]) -> Markup:
    pictures: dict[str, list[str]] = {}
    for run in found["runs"]:
        if "svg" in run["picture"]:
            pictures.setdefault(run["picture"]["svg"], []).append(run["label"])
    parts = [tag("div", _vector(picture, labels), class_="wide") for picture, labels in pictures.items()]
    parts += [say_absent(run["picture"]) for run in found["runs"] if "absent" in run["picture"]]
    return join(parts)


def _vector(picture: str, labels: Sequence[str]) -> Markup:
    uri = f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"
    return tag("img", src=uri, alt=f"{', '.join(labels)} in the five slots", width=1064, height=448)


def show_specs(found: Mapping[str, Any]) -> Markup:
    return join(
        tag("details", tag("summary", f"The resolved spec of {run['label']}"), tag("pre", tag("code", run["spec"])))
        for run in found["runs"]
    )


def show_environment(found: Mapping[str, Any]) -> Markup:
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in found["environment"].items()]
    return join(
        [
            *(_run_environment(run) for run in found["runs"]),
            tag("h3", "This report was made with"),
            make_table(("what", "version"), rows),
            tag("h3", "Commands"),
            tag("pre", tag("code", "\n".join(found["commands"]))),
        ]
    )


def _run_environment(run: Mapping[str, Any]) -> Markup:
    results, checkpoint = run["results"], run["checkpoint"]
    facts = {"folder": run["path"]}
    facts |= {name: results[name] for name in ("device", "precision", "processes", "digest") if name in results}
    if "absent" not in checkpoint:
        facts["checkpoint"] = f"step {checkpoint['step']:,}"
        facts["plugins"] = ", ".join(f"{name} {version}" for name, version in checkpoint["plugins"].items())
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts.items()]
    absent = say_absent(checkpoint) if "absent" in checkpoint else None
    return join([tag("h3", run["label"]), make_table(("what", "value"), rows), absent])


def show_limits(found: Mapping[str, Any]) -> Markup:
    sentences = [f"A curve has at most {POINTS} points; of each stretch the lowest and the highest are kept."]
    images = found.get("images")
    if images is not None:
        asked = (
            f"{images['asked']:,} of {images['asked_of']:,} {'held-out' if images['held_out'] else 'training'} images"
        )
        sentences.append(
            f"The map and the questions are about {asked}; a question has at most {NEIGHBOURS} neighbours."
        )
        if images["held_out"]:
            sentences.append(f"Neighbours are found among {images['bank']:,} of {images['bank_of']:,} training images.")
        else:
            sentences.append(
                "The data have no held-out images, so an image is compared with all others, and not with itself."
            )
        sentences.append(
            "So the accuracy of the confusion may differ from the run's own kNN figure, which is of all images."
        )
    sentences += found.get("left_out", [])
    return tag("ul", *(tag("li", sentence) for sentence in sentences))
