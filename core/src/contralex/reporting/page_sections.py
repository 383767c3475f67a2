"""The page of a report: one HTML file with its style, its script, its pictures and its data."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from contralex.evaluation.base import THIS
from contralex.progress import duration
from contralex.reporting.curves import Chart, Sign
from contralex.reporting.limits import NEIGHBOURS, POINTS
from contralex.reporting.markup import EMPTY, Markup, join, json_script, tag
from contralex.reporting.plots import draw_chart


def make_page(found: Mapping[str, Any]) -> str:
    """The page of what :func:`contralex.reporting.collecting.collect` gives."""
    sections = [
        ("summary", "Summary", _summary(found)),
        ("curves", "Curves", _curves(found)),
        ("differences", "What differs", _differences(found)),
        ("views", "Views", _views(found)),
        ("neighbours", "Neighbours before and after training", _neighbours(found)),
        ("hard", "Hard images", _hard(found)),
        ("map", "Map", _map(found)),
        ("confusion", "Confusion", _confusion(found)),
        ("attention", "Attention and patches", _attention(found)),
        ("method", "Method", _method(found)),
        ("spec", "Spec", _specs(found)),
        ("environment", "Environment and commands", _environment(found)),
        ("limits", "Limits of this report", _limits(found)),
    ]
    shown = [(name, title, content) for name, title, content in sections if content]
    return fill_page(
        f"{found['title']} · contralex report",
        join(_section(name, title, content) for name, title, content in shown),
        join(tag("a", title, href=f"#{name}") for name, title, _ in shown),
        join([json_script("map-data", _map_data(found)), json_script("curve-data", _curve_data(found))]),
    )


def fill_page(title: str, body: Markup, links: Markup = EMPTY, data: Markup = EMPTY, heading: str = "") -> str:
    """The template with its style and script. The page loads nothing, which its content security policy forbids."""
    parts = files("contralex.reporting") / "page"
    style, script, template = ((parts / f"report.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    return Template(template).substitute(
        title=join([title]),
        heading=join([heading or title]),
        style=style,
        script=script,
        links=tag("nav", links, aria_label="Sections") if links else EMPTY,
        body=body,
        data=data,
    )


def _section(name: str, title: str, content: Markup) -> Markup:
    return tag("section", tag("h2", title, id=f"{name}-title"), content, id=name, aria_labelledby=f"{name}-title")


def _absent(part: Mapping[str, Any]) -> Markup:
    return tag("p", part["absent"], class_="absent")


# Summary and curves


def _summary(found: Mapping[str, Any]) -> Markup:
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
            _table(("run", *facts), rows) if several else single,
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


def _curves(found: Mapping[str, Any]) -> Markup:
    charts: Sequence[Chart] = found["charts"]
    labels = [run["label"] for run in found["runs"]]
    if not charts:
        return _absent({"absent": "Nothing was logged, so there are no curves."})
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
    table = _table(("curve", "first", "lowest", "highest", "last"), rows)
    return tag("details", tag("summary", "The curves as numbers"), table)


def _curve_data(found: Mapping[str, Any]) -> dict[str, Any]:
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


def _differences(found: Mapping[str, Any]) -> Markup:
    labels = [run["label"] for run in found["runs"]]
    if len(labels) == 1:
        return EMPTY
    if not found["differences"]:
        return tag("p", "The specs of these runs are the same.")
    rows = [
        tag("tr", tag("th", tag("code", row["path"]), scope="row"), *(tag("td", value) for value in row["values"]))
        for row in found["differences"]
    ]
    return _table(("value", *labels), rows)


# Pictures


def _views(found: Mapping[str, Any]) -> Markup:
    parts = []
    for run, grid in zip(found["runs"], found["views"], strict=True):
        if len(found["runs"]) > 1:
            parts.append(tag("h3", run["label"]))
        parts.append(_absent(grid) if "absent" in grid else draw_grid(grid))
    about = (
        "What the method sees of some training samples in its first epoch: the views that the run's seed gives, by the "
        "run's own engine."
    )
    return join([tag("p", about), *parts])


def draw_grid(grid: Mapping[str, Any]) -> Markup:
    """A grid of :func:`contralex.reporting.collecting.grid_data` as a table."""
    rows = []
    for row in grid["rows"]:
        original = _image(row["original"], f"{row['name']}, as it is") if row["original"] else "no image"
        head = tag("th", original, tag("span", row["name"], class_="name"), scope="row")
        rows.append(
            tag(
                "tr",
                head,
                *(_view_cell(row, cell, name) for cell, name in zip(row["cells"], grid["columns"], strict=True)),
            )
        )
    more = f"{grid['left_out']} more views of each sample are not shown." if grid["left_out"] else None
    table = _table(("as it is", *grid["columns"]), rows, "pictures")
    return join([table, tag("p", more, class_="absent") if more else None])


def _view_cell(row: Mapping[str, Any], cell: Mapping[str, Any], name: str) -> Markup:
    steps = tag("ul", *(tag("li", step) for step in cell["steps"]), class_="steps") if cell["steps"] else None
    shown = (
        _image(cell["picture"], f"{row['name']}, {name}") if cell["picture"] else tag("p", cell["text"], class_="text")
    )
    return tag("td", shown, steps)


def _neighbours(found: Mapping[str, Any]) -> Markup:
    part = found["neighbours"]
    if "absent" in part:
        return _absent(part)
    held_out = found["images"]["held_out"]
    whose = (
        "held-out images, with their nearest among training images"
        if held_out
        else "training images, with their nearest"
    )
    about = (
        f"{len(part['queries'])} {whose}: by the untrained encoder, and after training. A neighbour of the same class "
        "has a solid edge, one of another class a dashed one."
    )
    return join([tag("p", about), _queries(part)])


def _hard(found: Mapping[str, Any]) -> Markup:
    part = found["hard"]
    if "absent" in part:
        return EMPTY
    return join([tag("p", part["about"]), _queries(part)])


def _queries(part: Mapping[str, Any]) -> Markup:
    return tag("div", *(_query(query) for query in part["queries"]), class_="queries")


def _query(query: Mapping[str, Any]) -> Markup:
    asked = tag(
        "div",
        _image(query["picture"], f"query {query['name']}"),
        tag(
            "p",
            tag("strong", query["class"] or query["name"]),
            tag("span", query["name"], class_="name") if query["class"] else None,
        ),
        class_="asked",
    )
    rows = [
        tag(
            "div",
            tag("p", answer["who"], class_="who"),
            tag("ul", *(_found(each) for each in answer["found"]), class_="found"),
        )
        for answer in query["answers"]
    ]
    return tag("article", asked, tag("div", *rows, class_="answers"), class_="query")


def _found(each: Mapping[str, Any]) -> Markup:
    kind = {True: "same", False: "other", None: ""}[each["same"]]
    words = ", ".join(filter(None, [each["class"], each["name"], f"cosine {each['cosine']:.2f}"]))
    return tag("li", _image(each["picture"], words), tag("span", f"{each['cosine']:.2f}"), class_=kind or None)


def _map(found: Mapping[str, Any]) -> Markup:
    part = found["map"]
    if "absent" in part:
        return _absent(part)
    layers = [f"{layer['how']} of {layer['run']}" for layer in part["layers"]]
    choices = tag("select", *(tag("option", name, value=number) for number, name in enumerate(layers)), id="map-layer")
    buttons = [
        tag("button", sign, type="button", id=f"map-{name}", aria_label=words)
        for name, sign, words in (("in", "+", "Zoom in"), ("out", "−", "Zoom out"), ("reset", "⟲", "Show all"))
    ]
    classes = [
        tag("li", tag("button", name, type="button", data_class=number, aria_pressed="false"))
        for number, name in enumerate(part["classes"])
    ]
    held_out = "held-out" if found["images"]["held_out"] else "training"
    about = (
        f"{part['count']:,} {held_out} images by their features, as unit vectors. Drag to move, pinch or use + and − "
        "to zoom (with the keyboard: arrows, +, − and 0); point at a dot, or tap it, to see its image. Zoomed in, dots "
        "become images."
    )
    return join(
        [
            tag("p", about),
            tag("div", tag("label", "Layer ", choices), *buttons, class_="controls"),
            tag(
                "div",
                tag(
                    "canvas",
                    id="map-canvas",
                    tabindex=0,
                    role="application",
                    aria_label=f"Map of {part['count']} images",
                ),
                tag("div", id="map-tip", role="status"),
                class_="map",
            ),
            tag("p", id="map-about", class_="absent"),
            tag("ul", *classes, class_="classes", id="map-classes") if classes else None,
            tag("noscript", tag("p", "The map needs JavaScript.")),
        ]
    )


def _map_data(found: Mapping[str, Any]) -> dict[str, Any]:
    part = found["map"]
    return {} if "absent" in part else dict(part)


def _confusion(found: Mapping[str, Any]) -> Markup:
    part = found["confusion"]
    if "absent" in part:
        return _absent(part)
    return join(_confusion_of(run, part["classes"]) for run in part["runs"])


def _confusion_of(run: Mapping[str, Any], classes: Sequence[str]) -> Markup:
    title = tag(
        "h3", f"{run['run']}: {run['right']:,} of {run['total']:,} right ({run['right'] / max(run['total'], 1):.1%})"
    )
    about = tag(
        "p",
        f"Rows are the true class, columns what {run['k']} neighbours vote for (temperature {run['temperature']:g}).",
    )
    if run["counts"] is None:
        rows = [
            tag("tr", tag("th", classes[true], scope="row"), tag("td", classes[taken]), tag("td", f"{count:,}"))
            for true, taken, count in run["pairs"]
        ]
        about = tag(
            "p", f"Of {len(classes):,} classes, the pairs that are confused most often ({run['k']} neighbours)."
        )
        return join([title, about, _table(("class", "taken for", "times"), rows)])
    rows = []
    for true, counts in enumerate(run["counts"]):
        total = max(sum(counts), 1)
        cells = [
            tag(
                "td",
                f"{count}" if count else "",
                style=f"--part:{count / total:.3f}",
                class_="right" if taken == true else None,
            )
            for taken, count in enumerate(counts)
        ]
        rows.append(tag("tr", tag("th", classes[true], scope="row"), *cells))
    return join([title, about, _table(("", *classes), rows, "confusion")])


def _attention(found: Mapping[str, Any]) -> Markup:
    part = found["attention"]
    if "absent" in part:
        return EMPTY
    return join(_attention_of(run) for run in part["runs"])


def _attention_of(run: Mapping[str, Any]) -> Markup:
    if "absent" in run:
        return _absent(run)
    heads = [f"head {number + 1}" for number in range(len(run["images"][0]["heads"]))]
    who = "the class token attends to" if run["class_token"] else "the patches attend to, on average,"
    about = (
        f"{run['run']}: where {who} in the last block (bright: most), the mean of {run['heads']} heads and single "
        f"ones; and the {run['grid'][0]}×{run['grid'][1]} patch tokens, whose first three principal components are "
        "red, green and blue."
    )
    rows = []
    for image in run["images"]:
        name = image["class"] or image["name"]
        cells = [_image(image["mean"], f"attention for {name}")]
        cells += [_image(head, f"{title} for {name}") for head, title in zip(image["heads"], heads, strict=True)]
        cells.append(_image(image["patches"], f"patch tokens of {name}"))
        head = tag("th", _image(image["picture"], name), tag("span", name, class_="name"), scope="row")
        rows.append(tag("tr", head, *(tag("td", cell) for cell in cells)))
    return join([tag("p", about), _table(("image", "mean", *heads, "patches"), rows, "pictures")])


# What was run, and how


def _method(found: Mapping[str, Any]) -> Markup:
    pictures: dict[str, list[str]] = {}
    for run in found["runs"]:
        if "svg" in run["picture"]:
            pictures.setdefault(run["picture"]["svg"], []).append(run["label"])
    parts = [tag("div", _vector(picture, labels), class_="wide") for picture, labels in pictures.items()]
    parts += [_absent(run["picture"]) for run in found["runs"] if "absent" in run["picture"]]
    return join(parts)


def _vector(picture: str, labels: Sequence[str]) -> Markup:
    uri = f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"
    return tag("img", src=uri, alt=f"{', '.join(labels)} in the five slots", width=1064, height=448)


def _specs(found: Mapping[str, Any]) -> Markup:
    return join(
        tag("details", tag("summary", f"The resolved spec of {run['label']}"), tag("pre", tag("code", run["spec"])))
        for run in found["runs"]
    )


def _environment(found: Mapping[str, Any]) -> Markup:
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in found["environment"].items()]
    return join(
        [
            *(_run_environment(run) for run in found["runs"]),
            tag("h3", "This report was made with"),
            _table(("what", "version"), rows),
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
    absent = _absent(checkpoint) if "absent" in checkpoint else None
    return join([tag("h3", run["label"]), _table(("what", "value"), rows), absent])


def _limits(found: Mapping[str, Any]) -> Markup:
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


def _table(names: Sequence[str], rows: Sequence[Markup], class_: str | None = None) -> Markup:
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    return tag(
        "div",
        tag("table", head, tag("tbody", *rows), class_=class_),
        class_="wide",
        tabindex=0,
        role="region",
        aria_label="Table",
    )


def _image(uri: str, words: str) -> Markup:
    return tag("img", src=uri, alt=words, title=words, loading="lazy", decoding="async")


def sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """What the report could not show, and why."""
    seen = set()
    waiting: list[Any] = [
        found[name] for name in ("views", "neighbours", "map", "confusion", "attention") if name in found
    ]
    waiting += [run[name] for run in found["runs"] for name in ("picture", "checkpoint")] + [found.get("left_out", [])]
    while waiting:
        part = waiting.pop(0)
        if isinstance(part, Mapping):
            if "absent" in part and part["absent"] not in seen:
                seen.add(part["absent"])
                yield str(part["absent"])
            waiting += [part["runs"]] if "runs" in part else []
        elif isinstance(part, str):
            yield part
        else:
            waiting += part
