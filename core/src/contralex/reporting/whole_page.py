"""The page of a report: one HTML file with its style, its script, its pictures and its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files
from string import Template
from typing import Any

from contralex.reporting.markup import EMPTY, Markup, join, json_script, tag
from contralex.reporting.page_images import (
    map_data,
    show_attention,
    show_confusion,
    show_hard,
    show_map,
    show_neighbours,
    show_views,
)
from contralex.reporting.page_runs import (
    curve_data,
    show_curves,
    show_differences,
    show_environment,
    show_limits,
    show_method,
    show_specs,
    show_summary,
)


def make_page(found: Mapping[str, Any]) -> str:
    """The page of what :func:`contralex.reporting.collecting.collect` gives."""
    sections = [
        ("summary", "Summary", show_summary(found)),
        ("curves", "Curves", show_curves(found)),
        ("differences", "What differs", show_differences(found)),
        ("views", "Views", show_views(found)),
        ("neighbours", "Neighbours before and after training", show_neighbours(found)),
        ("hard", "Hard images", show_hard(found)),
        ("map", "Map", show_map(found)),
        ("confusion", "Confusion", show_confusion(found)),
        ("attention", "Attention and patches", show_attention(found)),
        ("method", "Method", show_method(found)),
        ("spec", "Spec", show_specs(found)),
        ("environment", "Environment and commands", show_environment(found)),
        ("limits", "Limits of this report", show_limits(found)),
    ]
    shown = [(name, title, content) for name, title, content in sections if content]
    return fill_page(
        f"{found['title']} · contralex report",
        join(_section(name, title, content) for name, title, content in shown),
        join(tag("a", title, href=f"#{name}") for name, title, _ in shown),
        join([json_script("map-data", map_data(found)), json_script("curve-data", curve_data(found))]),
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
