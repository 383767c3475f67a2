"""One card (README.md) from those of several parts."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from contralex.cli.composing.parts import Start, choose_frame, fields_of, join_papers

_WIDTH = 120
_ADDS = "This package adds "
_ROW = re.compile(r"\| (?P<name>.*) \| (?P<data>.*), (?P<network>[^,]*), (?P<training>SGD.* epochs)(?P<last>, .*)? \|")


@dataclass
class _Card:
    """The paragraphs, which every card of one part has."""

    title: str
    about: str
    papers: str
    install: str
    slots_heading: str
    slots: str
    look_up: str
    recipes_heading: str
    recipes: str
    preset: str
    figures_heading: str
    figures: str
    differences_heading: str
    differences: str
    development_heading: str
    development: str


_Cards = Mapping[Start, _Card]


def merge_cards(texts: Mapping[Start, str], listed: str) -> str:
    """``listed``: a line for each part."""
    cards = {start: _Card(*text.split("\n\n")) for start, text in texts.items()}
    merged = _Card(*texts[choose_frame(texts)].split("\n\n"))
    merged.about = f"Several parts of one's own, in one look-up:\n\n{listed}"
    merged.papers = _merge_papers(cards)
    merged.install = cards.get(Start.DATA, merged).install
    merged.slots = _merge_slots(cards)
    merged.look_up = _merge_look_ups(cards)
    merged.recipes = _merge_recipes(cards)
    merged.differences = _merge_differences(cards)
    return "\n\n".join(vars(merged).values())


def _merge_papers(cards: _Cards) -> str:
    entries = {start: [entry.split(": ", 1) for entry in _read_list(card.papers)] for start, card in cards.items()}
    papers = {
        start: [paper for head, names in each if head.startswith("Paper") for paper in names.split("; ")]
        for start, each in entries.items()
    }
    code = [f"{head}: {link}" for each in entries.values() for head, link in each if not head.startswith("Paper")]
    return "Where they come from:\n\n" + _write_list([*(f"Paper: {paper}" for paper in join_papers(papers)), *code])


def _merge_slots(cards: _Cards) -> str:
    rows = _read_rows(cards[choose_frame(cards)].slots)
    for start, card in cards.items():
        own = {f"`{path[-1]}`" for path in fields_of(start)}
        rows |= {slot: row for slot, row in _read_rows(card.slots).items() if slot in own}
    return "\n".join(rows.values())


def _read_rows(table: str) -> dict[str, str]:
    """Each row by its first cell."""
    return {row.strip("|").split("|")[0].strip(): row for row in table.splitlines()}


def _merge_look_ups(cards: _Cards) -> str:
    """Who looks up whom, then what the package adds."""
    said = {start: _join_lines(card.look_up).split(_ADDS) for start, card in cards.items()}
    way = said[choose_frame(cards)][0]
    if Start.VIEWS in cards:  # of which all are of one kind
        way = re.sub(r", augmented (strongly,|weakly)", "", way)
    added = [adds.replace("no part. Its hook takes", "a hook, which takes") for _, adds in said.values()]
    return f"{way}{_ADDS.strip()}:\n\n{_write_list(added)}"


def _merge_recipes(cards: _Cards) -> str:
    """The row of the recipe: the data, the network, the training, and what is remembered."""
    *heading, row = cards[choose_frame(cards)].recipes.splitlines()
    said = _read_recipe(row)
    for start, names in {
        Start.DATA: ["data"],
        Start.BACKBONE: ["network"],
        Start.ENCODER: ["network"],
        Start.NEGATIVES: ["last"],
    }.items():
        if start in cards:
            own = _read_recipe(cards[start].recipes.splitlines()[-1])
            said |= {name: own[name] for name in names}
    return "\n".join([*heading, "| {name} | {data}, {network}, {training}{last} |".format(**said)])


def _read_recipe(row: str) -> dict[str, str]:
    found = _ROW.fullmatch(row)
    if found is None:
        raise ValueError(f"no row of a recipe: {row}")
    return found.groupdict(default="")


def _merge_differences(cards: _Cards) -> str:
    """Those of each part. What stands around it need not be SimCLR's look-up, which is around most parts alone."""
    said = ["The papers propose these parts one by one; here they stand in one look-up."]
    for start, card in cards.items():
        fields = ", ".join(f"`{path[-1]}`" for path in fields_of(start))
        said += [f"{fields}: {difference}" for difference in _read_list(card.differences)]
    return _write_list(
        text.replace("The look-up is SimCLR's; hyper", "Hyper").replace("SimCLR's", "this") for text in said
    )


def _read_list(text: str) -> list[str]:
    return [_join_lines(entry) for entry in re.split(r"^\* ", text, flags=re.MULTILINE) if entry]


def _write_list(entries: Iterable[str]) -> str:
    return "\n".join(_wrap(f"* {entry}") for entry in entries)


def _join_lines(text: str) -> str:
    return " ".join(text.split())


def _wrap(text: str) -> str:
    """Lines of at most 120 characters, where code and links stay on one."""
    joined = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0"), text)
    lines = textwrap.fill(joined, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ")
