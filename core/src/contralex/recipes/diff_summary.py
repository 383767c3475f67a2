"""What differs between two runs, told briefly: one line for each block that differs.

:mod:`contralex.recipes.diff` tells it leaf by leaf, with every default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contralex.plugins.hooks import METHOD_SLOTS
from contralex.plugins.spec import Spec
from contralex.recipes.diff import differing, shown
from contralex.recipes.layers import Resolved
from contralex.recipes.merging import dotted


def story(before: Resolved, after: Resolved) -> list[str]:
    """In the order of the spec, each line ``block: what → what``. Defaults are left out of what is shown."""
    one, other = before.run, after.run
    lines = [_line("method.views", _views(one.method.views, other.method.views))]
    lines += [
        _line(f"method.{slot}", _leaves(getattr(one.method, slot), getattr(other.method, slot)))
        for slot in METHOD_SLOTS
    ]
    lines.append(_line("method.matches", _leaves(_looks_up(one), _looks_up(other))))
    lines += [
        _line(f"method.{name}", _leaves(getattr(one.method, name), getattr(other.method, name)))
        for name in ("of", "weight")
    ]
    lines += [
        _line(f"method.look_ups.{name}", _leaves(one.method.look_ups.get(name), other.method.look_ups.get(name)))
        for name in dict.fromkeys([*one.method.look_ups, *other.method.look_ups])
    ]
    lines.append(_line("data", _leaves(one.data, other.data)))
    lines.append(_line("train", _leaves(one.train, other.train)))
    lines += [
        _line(name, _leaves(getattr(one, name), getattr(other, name)))
        for name in type(one).model_fields
        if name not in ("schema_", "name", "summary", "paper", "method", "data", "train")
    ]
    return [line for line in lines if line]


def brief(value: Any) -> str:
    """A value on one line without its defaults: ``memory_bank(draws=4096)``, ``[2048 batch relu, 128]``."""
    if isinstance(value, Mapping) and all(isinstance(each, Spec) for each in value.values()):
        return "{" + ", ".join(f"{name}: {brief(each)}" for name, each in value.items()) + "}"
    if not isinstance(value, Spec):
        return shown(value)
    said = {
        name: getattr(value, name)
        for name, field in type(value).model_fields.items()
        if name == "name" or (name != "kind" and getattr(value, name) != field.get_default(call_default_factory=True))
    }
    kind = str(getattr(value, "kind", ""))
    inside = ", ".join(f"{name}={brief(item)}" for name, item in said.items())
    if not inside:
        return kind or "defaults"
    return f"{kind}({inside})"


_Change = tuple[str, str, str]  # the path inside the block, before, after


def _line(block: str, changes: Iterator[_Change]) -> str:
    found = list(changes)
    if len(found) == 1:
        name, before, after = found[0]
        return f"{block}.{name}: {before} → {after}" if name else f"{block}: {before} → {after}"
    inside = "; ".join(f"{name} {before} → {after}" for name, before, after in found)
    return f"{block}: {inside}" if found else ""


def _leaves(before: Any, after: Any) -> Iterator[_Change]:
    for path, old, new in differing(before, after, by_key=False):
        yield dotted(path), brief(old), brief(new)


def _looks_up(run: Any) -> str:
    matches = run.method.matches
    named = matches if isinstance(matches, str) else ", ".join(matches)
    return named if run.method.reduction == "mean" else f"{named}, summed"


# Views are told apart by their numbers, not by the names of their groups


def _views(before: Spec, after: Spec) -> Iterator[_Change]:
    old, new = before.augments(), after.augments()
    if type(before) is not type(after) or old is None or new is None:
        yield from _leaves(before, after)
        return
    if len(old) != len(new):
        yield "count", _count(old), _count(new)
    told: dict[_Change, list[int]] = {}
    both = range(min(len(old), len(new)))
    for number in both:
        for change in _leaves(old[number], new[number]):
            told.setdefault(change, []).append(number)
    for (name, was, is_now), views in told.items():
        whose = "" if views == list(both) else f" (view {', '.join(map(str, views))})"
        yield name, was, is_now + whose


def _count(views: Sequence[Any]) -> str:
    sizes = [view.crop.size for view in views]
    return " + ".join(f"{sizes.count(size)} of {size} px" for size in dict.fromkeys(sizes))
