"""Refuses combinations of parts that cannot work, when the spec is read.

Every kind declares what it ``gives`` and, for each other slot, the features of which it ``needs`` one. This
module compares the two and writes the sentence; it knows no kind by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from contralex.lookup.names import MAIN
from contralex.plugins.registry import registry
from contralex.recipes.slot_paths import slot_path

if TYPE_CHECKING:
    from contralex.plugins.spec import Spec
    from contralex.recipes.run_spec import RunSpec


def check(run: RunSpec) -> None:
    for question in run.method.questions():
        _output_exists(run, question)
        _output_has_vectors(run, question)
        _owner_exists(run, question)
        slots = _Slots(run, question)
        for slot, spec in slots.own.items():
            missing: dict[str, list[frozenset[str]]] = {}
            for other, wanted in spec.requires():
                if not wanted & slots.offers(other, slot):
                    missing.setdefault(other, []).append(wanted)
            if missing:
                raise PydanticCustomError("misfit", "{text}", {"text": _sentence(slot, slots, missing)})
    _views_exist(run)


class _Slots:
    """The blocks that a look-up is made of, by the names by which parts ask for each other."""

    def __init__(self, run: RunSpec, question: str) -> None:
        method, asked = run.method, run.method.questions()[question]
        shared: dict[str, Spec] = {
            "data": run.data,
            "views": method.views,
            "encoder": method.encoder,
            "key_encoder": method.key_encoder,
        }
        own: dict[str, Spec] = {"negatives": asked.negatives, "targets": asked.targets, "loss": asked.loss}
        self.owner = _owner(run, question)
        self.question = question
        self.output = asked.of
        self.all = {**shared, **own}
        self.own = self.all if question == MAIN else own  # what all look-ups share is checked once

    def find(self, name: str) -> Spec:
        """The block of a slot, or within it: ``encoder.backbone``."""
        slot, *below = name.split(".")
        found: Any = self.all[slot]
        for key in below:
            found = found[key] if isinstance(found, Mapping) else getattr(found, key)
        made: Spec = found
        return made

    def offers(self, name: str, asked_by: str) -> frozenset[str]:
        """What a slot gives to another one: of an encoder, the look-up's own slots have one of its outputs."""
        if name == "negatives":
            return self.owner.offers()
        if name == "encoder" and asked_by in _ASKED:
            return self.find(name).offers_of(self.output)
        return self.find(name).offers()

    def path(self, name: str) -> str:
        return name if name == "data" else slot_path(self.question if name in _ASKED else MAIN, name)


_ASKED = ("negatives", "targets", "loss")
_COORDINATES = frozenset({"coordinates"})  # what an output offers that has nothing else


def _output_exists(run: RunSpec, question: str) -> None:
    """Whether the encoder has the output of which a look-up asks, and those that its parts read beside it."""
    encoder, asked = run.method.encoder, run.method.questions()[question]
    there = encoder.output_names()
    wanted = [("of", asked.of)]
    wanted += [(slot, name) for slot in _ASKED for name in getattr(asked, slot).reads_outputs()]
    for field, name in wanted:
        if name not in there:
            raise PydanticCustomError(
                "no_output",
                "{path} asks for the output {name} of method.encoder ({kind}), which has {outputs}; ask for one of "
                "these, or give the encoder such an output",
                {
                    "path": slot_path(question, field),
                    "name": name,
                    "kind": _kind(encoder),
                    "outputs": _words(there, "and"),
                },
            )


def _output_has_vectors(run: RunSpec, question: str) -> None:
    """Whether what a look-up asks of the encoder can be looked up."""
    asked = run.method.questions()[question]
    if run.method.encoder.offers_of(asked.of) == _COORDINATES:
        raise PydanticCustomError(
            "no_vectors",
            "{path} is {name}, an output of method.encoder that has the coordinates of places and no vectors; name "
            "another output, whose targets may read these coordinates",
            {"path": slot_path(question, "of"), "name": asked.of},
        )


def _owner_exists(run: RunSpec, question: str) -> None:
    """Whether the look-up whose dictionary another one borrows stands before that."""
    questions = list(run.method.questions())
    borrowed = run.method.questions()[question].negatives.borrowed_from()
    there = questions[: questions.index(question)]
    if borrowed is not None and borrowed not in there:
        raise PydanticCustomError(
            "no_owner",
            "{path} borrows the dictionary of the look-up {name}, and {there}; name one of them, or give this look-up "
            "negatives of its own",
            {
                "path": slot_path(question, "negatives"),
                "name": borrowed,
                "there": f"those before it are {_words(there, 'and')}" if there else "none stands before it",
            },
        )


def _owner(run: RunSpec, question: str) -> Spec:
    """The negatives whose dictionary a look-up has: its own, or those that it borrows."""
    negatives = run.method.questions()[question].negatives
    borrowed = negatives.borrowed_from()
    return negatives if borrowed is None else _owner(run, borrowed)


def _sentence(slot: str, slots: _Slots, missing: dict[str, list[frozenset[str]]]) -> str:
    """What a part needs and does not find, and the two ways out: change the others, or change the part."""
    needs = " and ".join(
        f"{' and '.join(_words(wanted, 'or') for wanted in wishes)} from {slots.path(other)} "
        f"({_kind(slots.find(other))} gives {_words(slots.offers(other, slot), 'and')})"
        for other, wishes in missing.items()
    )
    others = [
        _of_kind(slots.path(other), _giving(other, slots.find(other), wishes)) for other, wishes in missing.items()
    ]
    ways = [" and ".join(others)] if all(others) else []
    ways += filter(None, [_of_kind(slots.path(slot), _content_with(slot, slots))])
    out = f"; use {', or '.join(ways)}" if ways else "; no kind that is installed fits here"
    return f"{slots.path(slot)} ({_kind(slots.find(slot))}) needs {needs}{out}"


def _giving(name: str, there: Spec, wishes: list[frozenset[str]]) -> list[str]:
    """Kinds that give all of it; the one that is there may, if its values are others."""
    slot = name.rpartition(".")[2]
    kinds = set.intersection(*(set(registry().giving(slot, wanted)) for wanted in wishes))
    return [f"{kind} with other values" if kind == _kind(there) else kind for kind in kinds]


def _content_with(slot: str, slots: _Slots) -> list[str]:
    offers = {other: slots.offers(other, slot) for other in slots.all}
    return [kind for kind in registry().content_with(slot, offers) if kind != _kind(slots.find(slot))]


def _views_exist(run: RunSpec) -> None:
    flags = run.method.views.key_flags() or None
    asking: set[int] = set()
    for question, look_up in run.method.questions().items():
        path = slot_path(question, "matches")
        if flags is None and look_up.matches == "every":
            raise PydanticCustomError(
                "no_match",
                "{path}: every goes by which views are keys, and method.views ({kind}) does not say; "
                "use self or forward, or write the matches out",
                {"path": path, "kind": _kind(run.method.views)},
            )
        matches = run.matches(question)
        if not matches:
            raise PydanticCustomError(
                "no_match",
                "{path}: every leaves no pair, because method.views makes one view; use self, or more views",
                {"path": path},
            )
        last = max(max(match) for match in matches)
        if flags is not None and last >= len(flags):
            raise PydanticCustomError(
                "no_view",
                "{path} asks for view {view}, but method.views makes {views}, numbered from 0; "
                "add a view or change matches",
                {"path": path, "view": last, "views": "1 view" if len(flags) == 1 else f"{len(flags)} views"},
            )
        asking |= {query for query, _ in matches}
    idle = [view for view, is_key in enumerate(flags or ()) if not is_key and view not in asking]
    if idle:
        raise PydanticCustomError(
            "idle_view",
            "method.views makes {views} for queries alone, and method.matches lets it look nothing up; set "
            "method.matches to every, or take the view out",
            {"views": " and ".join(f"view {view}" for view in idle)},
        )


def _kind(spec: Spec) -> str:
    return str(getattr(spec, "kind", type(spec).__name__))


def _of_kind(path: str, kinds: list[str]) -> str:
    return f"{path} of kind {_words(kinds, 'or')}" if kinds else ""


def _words(words: Iterable[str], joint: str) -> str:
    *rest, last = sorted(words) or ["nothing"]
    return f"{', '.join(rest)} {joint} {last}" if rest else last
