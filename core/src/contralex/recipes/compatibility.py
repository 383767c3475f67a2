"""Refuses combinations of parts that cannot work, when the spec is read.

Every kind declares what it ``gives`` and, for each other slot, the features of which it ``needs`` one. This
module compares the two and writes the sentence; it knows no kind by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from contralex.plugins.registry import registry

if TYPE_CHECKING:
    from contralex.plugins.spec import Spec
    from contralex.recipes.run_spec import RunSpec


def check(run: RunSpec) -> None:
    method = run.method
    slots: dict[str, Spec] = {
        "data": run.data,
        "views": method.views,
        "encoder": method.encoder,
        "key_encoder": method.key_encoder,
        "negatives": method.negatives,
        "targets": method.targets,
        "loss": method.loss,
    }
    for slot, spec in slots.items():
        missing: dict[str, list[frozenset[str]]] = {}
        for other, wanted in spec.requires():
            if not wanted & slots[other].offers():
                missing.setdefault(other, []).append(wanted)
        if missing:
            raise PydanticCustomError("misfit", "{text}", {"text": _sentence(slot, slots, missing)})
    _views_exist(run)


def _sentence(slot: str, slots: dict[str, Spec], missing: dict[str, list[frozenset[str]]]) -> str:
    """What a part needs and does not find, and the two ways out: change the others, or change the part."""
    needs = " and ".join(
        f"{' and '.join(_words(wanted, 'or') for wanted in wishes)} from {_path(other)} "
        f"({_kind(there)} gives {_words(there.offers(), 'and')})"
        for other, wishes in missing.items()
        for there in [slots[other]]
    )
    others = [_of_kind(other, _giving(other, slots[other], wishes)) for other, wishes in missing.items()]
    ways = [" and ".join(others)] if all(others) else []
    ways += filter(None, [_of_kind(slot, _content_with(slot, slots))])
    out = f"; use {', or '.join(ways)}" if ways else "; no kind that is installed fits here"
    return f"{_path(slot)} ({_kind(slots[slot])}) needs {needs}{out}"


def _giving(slot: str, there: Spec, wishes: list[frozenset[str]]) -> list[str]:
    """Kinds that give all of it; the one that is there may, if its values are others."""
    kinds = set.intersection(*(set(registry().giving(slot, wanted)) for wanted in wishes))
    return [f"{kind} with other values" if kind == _kind(there) else kind for kind in kinds]


def _content_with(slot: str, slots: dict[str, Spec]) -> list[str]:
    offers = {other: spec.offers() for other, spec in slots.items()}
    return [kind for kind in registry().content_with(slot, offers) if kind != _kind(slots[slot])]


def _views_exist(run: RunSpec) -> None:
    flags = run.method.views.key_flags() or None
    named = run.method.matches
    if flags is None and named == "every":
        raise PydanticCustomError(
            "no_match",
            "method.matches: every goes by which views are keys, and method.views ({kind}) does not say; "
            "use self or forward, or write the matches out",
            {"kind": _kind(run.method.views)},
        )
    matches = run.matches()
    if not matches:
        raise PydanticCustomError(
            "no_match",
            "method.matches: every leaves no pair, because method.views makes one view; use self, or more views",
            {},
        )
    last = max(max(match) for match in matches)
    if flags is not None and last >= len(flags):
        raise PydanticCustomError(
            "no_view",
            "method.matches asks for view {view}, but method.views makes {views}, numbered from 0; "
            "add a view or change matches",
            {"view": last, "views": "1 view" if len(flags) == 1 else f"{len(flags)} views"},
        )
    asking = {query for query, _ in matches}
    idle = [view for view, is_key in enumerate(flags or ()) if not is_key and view not in asking]
    if idle:
        raise PydanticCustomError(
            "idle_view",
            "method.views makes {views} for queries alone, and method.matches lets it look nothing up; set "
            "method.matches to every, or take the view out",
            {"views": " and ".join(f"view {view}" for view in idle)},
        )


def _path(slot: str) -> str:
    return slot if slot == "data" else f"method.{slot}"


def _kind(spec: Spec) -> str:
    return str(getattr(spec, "kind", type(spec).__name__))


def _of_kind(slot: str, kinds: list[str]) -> str:
    return f"{_path(slot)} of kind {_words(kinds, 'or')}" if kinds else ""


def _words(words: Iterable[str], joint: str) -> str:
    *rest, last = sorted(words) or ["nothing"]
    return f"{', '.join(rest)} {joint} {last}" if rest else last
