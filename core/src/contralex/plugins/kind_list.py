"""``contralex.kinds("losses")``: the kinds that are installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from contralex.errors import ContralexError
from contralex.plugins.hooks import SLOTS
from contralex.plugins.registry import registry


@dataclass(frozen=True)
class Kind:
    """A kind of a slot: its name in YAML, a summary, the paper, and the plugin that brings it."""

    slot: str
    kind: str
    summary: str
    source: str
    plugin: str


class Kinds(Sequence[Kind]):
    """Kinds in the order of the slots and of their names. It prints as a list of lines."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._kinds = tuple(kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, index: int) -> Kind: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Kind]: ...

    def __getitem__(self, index: int | slice) -> Kind | Sequence[Kind]:
        return self._kinds[index]

    def __repr__(self) -> str:
        names = [f"{kind.slot}.{kind.kind}" for kind in self]
        width = max(map(len, names), default=0)
        return "\n".join(f"{name:{width}}  {kind.summary}" for name, kind in zip(names, self, strict=True))


def list_kinds(slot: str | None = None) -> Kinds:
    """The kinds of a slot that are installed, such as ``"losses"`` or ``"loss"``; without one, of all slots."""
    slots = list(SLOTS) if slot is None else [_slot(slot)]
    return Kinds(
        [
            Kind(each, spec.kind_name(), summary(spec), spec.source, plugin.name)
            for each in slots
            for plugin in registry().plugins.values()
            for spec in sorted(plugin.kinds.get(each, ()), key=lambda spec: spec.kind_name())
            if plugin.usable
        ]
    )


def summary(spec: type) -> str:
    """The first line of a spec's docstring. (``__doc__``, because ``inspect.getdoc`` would find a parent's.)"""
    lines = (spec.__doc__ or "").strip().splitlines()
    return lines[0] if lines else ""


def _slot(name: str) -> str:
    names = {**{_plural(slot): slot for slot in SLOTS}, **{slot: slot for slot in SLOTS}}
    if name not in names:
        raise ContralexError(f"there is no slot {name!r}; the slots are {', '.join(SLOTS)}")
    return names[name]


def _plural(slot: str) -> str:
    """As the folders of :mod:`contralex.kinds` are called."""
    if slot == "data":
        return "datasets"
    return slot + "es" if slot.endswith("ss") else slot if slot.endswith("s") else slot + "s"
