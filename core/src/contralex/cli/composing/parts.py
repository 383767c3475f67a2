"""What a package of ``contralex new`` starts as: one part, or several that stand in one look-up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum

from contralex.errors import ContralexError, did_you_mean, find_similar, remedy


class Start(StrEnum):
    """What a package starts as: the folder of its templates."""

    LOSS = "loss"
    NEGATIVES = "negatives"
    TARGETS = "targets"
    KEY_ENCODER = "key_encoder"
    ENCODER = "encoder"
    BACKBONE = "backbone"
    VIEWS = "views"
    DATA = "data"
    HOOK = "hook"
    METHOD = "method"


_WHAT = {
    Start.DATA: "data",
    Start.VIEWS: "views",
    Start.BACKBONE: "a backbone",
    Start.ENCODER: "an encoder",
    Start.KEY_ENCODER: "a key encoder",
    Start.NEGATIVES: "a negative source",
    Start.TARGETS: "a target generator",
    Start.METHOD: "a method",
    Start.LOSS: "a loss",
    Start.HOOK: "a life-cycle hook",
}
_ORDER = tuple(_WHAT)  # in which parts are named: from a sample to its loss
_PAIR = frozenset({Start.TARGETS, Start.LOSS})
_SLOTS: dict[Start, tuple[str, ...]] = {start: (start.value,) for start in Start} | {
    Start.METHOD: ("targets", "loss"),
    Start.HOOK: (),
}
# Whose recipe is taken around the parts: targets need a key that is augmented weakly, a key encoder a queue.
_FRAMES = (Start.METHOD, Start.TARGETS, Start.KEY_ENCODER, Start.ENCODER)


def read_starts(text: str, name: str) -> tuple[Start, ...]:
    """What ``--as`` names, such as ``encoder,negatives,loss``, arranged. ``name``: of the package, for the remedies."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ContralexError(f"--as names no part; the parts are {', '.join(Start)}:" + _command(name, [Start.METHOD]))
    unknown = [word for word in words if word not in set(Start)]
    if unknown:
        near = {word: find_similar(word, Start) for word in unknown}
        hint = did_you_mean(near[unknown[0]]) or f"the parts are {', '.join(Start)}:"
        mended = dict.fromkeys(part for word in words for part in near.get(word, [word]))
        raise ContralexError(f"--as: there is no part {unknown[0]}; {hint}" + _command(name, mended or [Start.METHOD]))
    starts = arrange(Start(word) for word in words)
    if {Start.ENCODER, Start.BACKBONE} <= set(starts):
        fewer = [[start for start in starts if start is not other] for other in (Start.BACKBONE, Start.ENCODER)]
        raise ContralexError(
            "--as: the encoder has a network of its own, so no recipe would use a backbone beside it; "
            "leave one of them out:" + "".join(_command(name, each) for each in fewer)
        )
    return starts


def arrange(starts: Iterable[Start]) -> tuple[Start, ...]:
    """Each once, from a sample to its loss. Targets and a loss together are a method: they are made for each other."""
    chosen = set(starts)
    if Start.METHOD in chosen or chosen >= _PAIR:
        chosen = (chosen - _PAIR) | {Start.METHOD}
    return tuple(start for start in _ORDER if start in chosen)


def slots_of(starts: Iterable[Start]) -> list[str]:
    """The slots of a run in which the package has a kind of its own."""
    return [slot for start in starts for slot in _SLOTS[start]]


def fields_of(start: Start) -> list[tuple[str, ...]]:
    """The fields of a run in which the part stands."""
    if start is Start.HOOK:
        return [("plugins",)]
    if start is Start.DATA:
        return [("data",)]
    if start is Start.BACKBONE:
        return [("method", "encoder")]
    return [("method", slot) for slot in _SLOTS[start]]


def choose_frame(starts: Collection[Start]) -> Start:
    """The part whose own recipe and card have what all of them need around them."""
    return next((start for start in _FRAMES if start in starts), next(iter(starts)))


def join_papers(papers: Mapping[Start, Sequence[str]]) -> list[str]:
    """The paper of each part, which is the first of its own, then those of what stands around the parts."""
    own = [names[0] for start, names in papers.items() if start is not Start.DATA]  # which are published elsewhere
    return list(dict.fromkeys([*own, *papers[choose_frame(papers)]]))


def describe(starts: Sequence[Start]) -> str:
    """``a loss``, or ``an encoder, a negative source and a loss``."""
    if len(starts) == 1:
        return _WHAT[starts[0]]
    *before, last = [words for start in starts for words in _words(start)]
    return f"{', '.join(before)} and {last}"


def describe_part(start: Start) -> str:
    """A part beside others, where a method is its two parts."""
    return " and ".join(_words(start))


def _words(start: Start) -> list[str]:
    return [_WHAT[Start.TARGETS], _WHAT[Start.LOSS]] if start is Start.METHOD else [_WHAT[start]]


def complete_starts(incomplete: str) -> list[str]:
    """For shells: the parts that may follow those that are named."""
    named, comma, last = incomplete.rpartition(",")
    left = [start for start in Start if start not in named.split(",")]
    return [f"{named}{comma}{start}" for start in left if start.startswith(last)]


def _command(name: str, starts: Iterable[str]) -> str:
    return remedy("contralex", "new", name, "--as", ",".join(starts))
