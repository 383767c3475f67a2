"""A method as boxes in the five slots, with where gradients flow; :mod:`.text` and :mod:`.picture` show it.

All is read from the spec: nothing is built, so nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from contralex.lookup.names import IMAGE, MAIN
from contralex.plugins.company import ViewCompany
from contralex.plugins.hooks import SHARED_SLOTS
from contralex.plugins.spec import Spec
from contralex.recipes.diff_summary import brief
from contralex.recipes.layers import Resolved
from contralex.recipes.run_spec import RunSpec

QUESTIONS = {
    "views": "what a sample becomes",
    "encoder": "how a view becomes a query",
    "key_encoder": "how a view becomes a key",
    "negatives": "what else is in the dictionary",
    "targets": "what the look-up should return",
    "loss": "how wrong the look-up was",
}


@dataclass(frozen=True)
class Box:
    """A slot: the kind in it, its settings, and whether the optimiser moves what is in it."""

    slot: str
    kind: str
    settings: tuple[str, ...]
    learns: bool


@dataclass(frozen=True)
class Explained:
    name: str
    summary: str
    paper: str
    boxes: dict[str, Box]
    matches: str
    keys_learn: bool
    has_dictionary: bool
    shares_weights: bool  # of the key encoder with the encoder
    key_side: str  # how the key encoder comes by its weights
    company: Sequence[ViewCompany] = ()  # of views
    sides: tuple[str, str] | None = None  # what queries are made of, and what keys, where the company decides it
    weighed: str = ""  # the output and the weight of the method's own look-up, where they are said
    look_ups: dict[str, ExplainedLookUp] = field(default_factory=dict)


@dataclass(frozen=True)
class ExplainedLookUp:
    """A further look-up of a method, with the boxes of its own."""

    boxes: dict[str, Box]
    matches: str
    has_dictionary: bool
    output: str
    weight: str


def explained(resolved: Resolved) -> Explained:
    run = resolved.run
    method = run.method
    slots = {slot: getattr(method, slot) for slot in QUESTIONS}
    key_encoder = method.key_encoder
    keys_learn = "keys with gradient" in key_encoder.offers()
    own = [slot for slot in QUESTIONS if slot not in ("views", *SHARED_SLOTS)]
    return Explained(
        name=run.name,
        summary=run.summary,
        paper=run.paper,
        boxes={slot: _box(slot, spec) for slot, spec in slots.items()},
        matches=_matched(run, MAIN),
        keys_learn=keys_learn,
        has_dictionary="no entries" not in method.negatives.offers(),
        shares_weights=key_encoder.key_weights == "shared",
        key_side=_key_side(key_encoder, keys_learn),
        company=method.views.explained_company(),
        sides=method.encoder.explained_sides(),
        weighed="" if method.of == IMAGE and method.weight == 1 else f"of {method.of}, weight {brief(method.weight)}",
        look_ups={
            name: ExplainedLookUp(
                boxes={slot: _box(slot, getattr(asked, slot)) for slot in own},
                matches=_matched(run, name),
                has_dictionary="no entries" not in asked.negatives.offers(),
                output=asked.of,
                weight=brief(asked.weight),
            )
            for name, asked in method.look_ups.items()
        },
    )


def _box(slot: str, spec: Spec) -> Box:
    return Box(slot, _kind(spec), tuple(_settings(spec)), slot == "encoder" or spec.learns)


def _matched(run: RunSpec, question: str) -> str:
    is_mean = run.method.questions()[question].reduction == "mean"
    return _matches(run.matches(question)) + ("" if is_mean else ", summed")


def _kind(spec: Spec) -> str:
    return str(getattr(spec, "kind", ""))


def _settings(spec: Spec) -> Iterator[str]:
    """Its fields, one a line, but those that are empty, off, or about how it is stored."""
    drawn = spec.explained_as()
    if drawn is not None:
        yield from drawn
        return
    for name, about in type(spec).model_fields.items():
        value = getattr(spec, name)
        is_default = value == about.get_default(call_default_factory=True)
        is_said = isinstance(value, int | float) and not isinstance(value, bool) and name not in spec.added
        if name != "kind" and (not is_default or is_said):
            yield f"{name}: {brief(value)}"


def _matches(pairs: Sequence[tuple[int, int]]) -> str:
    """Queries that look up the same keys are told together: ``view 0 looks up view 1; views 2-7 look up views 0-1``."""
    asked: dict[int, list[int]] = {}
    for query, key in sorted(pairs):
        asked.setdefault(query, []).append(key)
    told: dict[tuple[int, ...], list[int]] = {}
    for query, keys in asked.items():
        told.setdefault(tuple(keys), []).append(query)
    return "; ".join(
        f"{name_views(queries)} {'look' if len(queries) > 1 else 'looks'} up {name_views(keys)}"
        for keys, queries in told.items()
    )


def name_views(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"view {numbers[0]}"
    in_a_row = list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return "views " + (f"{numbers[0]}-{numbers[-1]}" if in_a_row else ", ".join(map(str, numbers)))


_WEIGHTS = {
    "shared": "the query's encoder itself",
    "following": "follows the encoder",
    "fixed": "not trained",
    "other": "has weights of its own",
}


def _key_side(spec: Spec, keys_learn: bool) -> str:
    return "learns as well" if keys_learn and spec.key_weights != "shared" else _WEIGHTS[spec.key_weights]
