"""What several sections of a page have: a table, an image, and the sentence where there is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contralex.reporting.markup import Markup, tag


def make_table(names: Sequence[str], rows: Sequence[Markup], class_: str | None = None) -> Markup:
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    return tag(
        "div",
        tag("table", head, tag("tbody", *rows), class_=class_),
        class_="wide",
        tabindex=0,
        role="region",
        aria_label="Table",
    )


def show_image(uri: str, words: str) -> Markup:
    return tag("img", src=uri, alt=words, title=words, loading="lazy", decoding="async")


def say_absent(part: Mapping[str, Any]) -> Markup:
    return tag("p", part["absent"], class_="absent")
