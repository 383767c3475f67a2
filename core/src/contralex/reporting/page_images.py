"""What a report shows of images: views, neighbours, the map, the confusion of classes, and attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contralex.reporting.markup import EMPTY, Markup, join, tag
from contralex.reporting.page_parts import make_table, say_absent, show_image


def show_views(found: Mapping[str, Any]) -> Markup:
    parts = []
    for run, grid in zip(found["runs"], found["views"], strict=True):
        if len(found["runs"]) > 1:
            parts.append(tag("h3", run["label"]))
        parts.append(say_absent(grid) if "absent" in grid else draw_grid(grid))
    about = (
        "What the method sees of some training samples in its first epoch: the views that the run's seed gives, by the "
        "run's own engine."
    )
    return join([tag("p", about), *parts])


def draw_grid(grid: Mapping[str, Any]) -> Markup:
    """A grid of :func:`contralex.reporting.collecting.grid_data` as a table."""
    rows = []
    for row in grid["rows"]:
        original = show_image(row["original"], f"{row['name']}, as it is") if row["original"] else "no image"
        head = tag("th", original, tag("span", row["name"], class_="name"), scope="row")
        rows.append(
            tag(
                "tr",
                head,
                *(_view_cell(row, cell, name) for cell, name in zip(row["cells"], grid["columns"], strict=True)),
            )
        )
    more = f"{grid['left_out']} more views of each sample are not shown." if grid["left_out"] else None
    table = make_table(("as it is", *grid["columns"]), rows, "pictures")
    return join([table, tag("p", more, class_="absent") if more else None])


def _view_cell(row: Mapping[str, Any], cell: Mapping[str, Any], name: str) -> Markup:
    steps = tag("ul", *(tag("li", step) for step in cell["steps"]), class_="steps") if cell["steps"] else None
    shown = (
        show_image(cell["picture"], f"{row['name']}, {name}")
        if cell["picture"]
        else tag("p", cell["text"], class_="text")
    )
    return tag("td", shown, steps)


def show_neighbours(found: Mapping[str, Any]) -> Markup:
    part = found["neighbours"]
    if "absent" in part:
        return say_absent(part)
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


def show_hard(found: Mapping[str, Any]) -> Markup:
    part = found["hard"]
    if "absent" in part:
        return EMPTY
    return join([tag("p", part["about"]), _queries(part)])


def _queries(part: Mapping[str, Any]) -> Markup:
    return tag("div", *(_query(query) for query in part["queries"]), class_="queries")


def _query(query: Mapping[str, Any]) -> Markup:
    asked = tag(
        "div",
        show_image(query["picture"], f"query {query['name']}"),
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
    return tag("li", show_image(each["picture"], words), tag("span", f"{each['cosine']:.2f}"), class_=kind or None)


def show_map(found: Mapping[str, Any]) -> Markup:
    part = found["map"]
    if "absent" in part:
        return say_absent(part)
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


def map_data(found: Mapping[str, Any]) -> dict[str, Any]:
    part = found["map"]
    return {} if "absent" in part else dict(part)


def show_confusion(found: Mapping[str, Any]) -> Markup:
    part = found["confusion"]
    if "absent" in part:
        return say_absent(part)
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
        return join([title, about, make_table(("class", "taken for", "times"), rows)])
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
    return join([title, about, make_table(("", *classes), rows, "confusion")])


def show_attention(found: Mapping[str, Any]) -> Markup:
    part = found["attention"]
    if "absent" in part:
        return EMPTY
    return join(_attention_of(run) for run in part["runs"])


def _attention_of(run: Mapping[str, Any]) -> Markup:
    if "absent" in run:
        return say_absent(run)
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
        cells = [show_image(image["mean"], f"attention for {name}")]
        cells += [show_image(head, f"{title} for {name}") for head, title in zip(image["heads"], heads, strict=True)]
        cells.append(show_image(image["patches"], f"patch tokens of {name}"))
        head = tag("th", show_image(image["picture"], name), tag("span", name, class_="name"), scope="row")
        rows.append(tag("tr", head, *(tag("td", cell) for cell in cells)))
    return join([tag("p", about), make_table(("image", "mean", *heads, "patches"), rows, "pictures")])
