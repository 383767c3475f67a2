"""The small parts, of the core and of the plugin itself, that fit a part and are tried with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from contralex.errors import ContralexError
from contralex.plugins.hooks import METHOD_SLOTS, PROJECT
from contralex.plugins.registry import registry
from contralex.plugins.spec import Spec
from contralex.recipes.documents import chain
from contralex.testing.check_errors import Failed, NotApplicable
from contralex.testing.plugin_contents import Kind, list_kinds

VARIED = ("key_encoder", "negatives")  # a part is tried with each of these that fits
_SLOTS = ("data", "views", *METHOD_SLOTS)

# In the order in which they are tried.
_SMALL: dict[str, list[dict[str, Any]]] = {
    "data": [{"kind": "image_folder", "root": "."}],
    "views": [{"kind": "crops"}, {"kind": "crops", "masks": {"patch": 4}}],
    "encoder": [{"kind": "image"}, {"kind": "image", "normalize": False}],
    "key_encoder": [
        {"kind": "shared", "gradient": True},
        {"kind": "shared", "gradient": False},
        {"kind": "momentum", "momentum": 0.9},
    ],
    "negatives": [
        {"kind": "in_batch", "views": "matched"},
        {"kind": "in_batch", "views": "all"},
        {"kind": "queue"},
        {"kind": "memory_bank"},
        {"kind": "none"},
        {"kind": "prototypes"},
        {"kind": "classes"},
    ],
    "targets": [{"kind": "instance"}, {"kind": "key_vector"}, {"kind": "class_label"}, {"kind": "teacher_logits"}],
    "loss": [
        {"kind": "info_nce"},
        {"kind": "nce"},
        {"kind": "cosine"},
        {"kind": "soft_cross_entropy"},
    ],
}


def choose_parts(kind: Kind, own: list[Kind]) -> Iterator[dict[str, Spec]]:
    """Every choice of other parts for a kind in which each gets what it needs; the plugin's own come first.

    Kinds of other plugins are used only where nothing else fits: a kind may be made for another plugin's.
    """
    found = False
    for slots in _list_choices(kind, own):
        found = True
        yield slots
    if not found:
        yield from _list_choices(kind, [*own, *_kinds_of_other_plugins(own)])


def small_kinds(slot: str) -> list[Kind]:
    """The kinds of the core with which others are tried."""
    return [Kind(slot, registry().get(slot, name)) for name in dict.fromkeys(each["kind"] for each in _SMALL[slot])]


def explain_misfit(kind: Kind, own: list[Kind]) -> str:
    everyone = [*own, *_kinds_of_other_plugins(own)]
    for slot, wanted in kind.example().requires():
        given = {feature for spec in _choices(slot, everyone) for feature in spec.offers()}
        if not wanted & given:
            return (
                f"it needs {' or '.join(sorted(wanted))} from {slot}, which none there gives; "
                f"there are {', '.join(sorted(given))}"
            )
    return "no choice of parts that are installed gives all that it needs, and takes what it gives"


def _list_choices(kind: Kind, own: list[Kind]) -> list[dict[str, Spec]]:
    """Every choice in which parts fit, made slot by slot: most are out after a few slots, and all are very many."""
    found: list[dict[str, Spec]] = [{}]
    for slot in _SLOTS:
        specs = [kind.example()] if slot == kind.slot else _choices(slot, own)
        found = [slots for chosen in found for spec in specs if _fit(slots := {**chosen, slot: spec})]
    return found


def _fit(slots: Mapping[str, Spec]) -> bool:
    """Whether each part gets what it needs from the others, as far as they are chosen."""
    needs = (need for spec in slots.values() for need in spec.requires())
    return all(wanted & slots[other].offers() for other, wanted in needs if other in slots)


def _kinds_of_other_plugins(own: list[Kind]) -> list[Kind]:
    usable = [plugin for plugin in registry().plugins.values() if plugin.usable and not plugin.code]
    return [kind for plugin in usable for kind in list_kinds(plugin) if kind not in own and plugin.name != PROJECT]


def _choices(slot: str, own: list[Kind]) -> list[Spec]:
    mine = [kind.example() for kind in own if kind.slot == slot and _usable(kind)]
    core = [_core(slot, values) for values in _SMALL[slot]]
    return list({str(spec.model_dump()): spec for spec in [*mine, *core]}.values())


def _usable(kind: Kind) -> bool:
    """Whether a kind can stand beside another. One that is wrong fails in its own cases."""
    try:
        kind.example()
    except Failed:
        return False
    return kind.slot != "data" or has_tiny_data(kind.cls)


def _core(slot: str, values: dict[str, Any]) -> Spec:
    cls = registry().get(slot, values["kind"])
    return cls.model_validate({**cls.example, **values})


def find_data_for(views: Spec) -> Spec | None:
    """An example of a data kind that can make a tiny set of what these views need."""
    for name in registry().kinds("data"):
        cls = registry().get("data", name)
        if has_tiny_data(cls) and all(wanted & cls.gives for slot, wanted in views.requires() if slot == "data"):
            return Kind("data", cls).example()
    return None


def write_tiny_data(spec: Spec, folder: str) -> Spec:
    """A data set of a few samples of the same kind, written into ``folder``; the spec itself where it needs none."""
    made = spec.tiny(folder)
    if made is None:
        raise NotApplicable(f"the data kind {spec.kind_name()} cannot make a tiny set (it has no classmethod tiny)")
    return made


def has_tiny_data(cls: type[Spec]) -> bool:
    """Whether a data kind writes a tiny set, which :class:`Spec` itself does not."""
    return any("tiny" in vars(base) for base in cls.__mro__ if issubclass(base, Spec) and base is not Spec)


def find_small_preset(recipe: str) -> str | None:
    """The preset that makes a recipe small enough to try: ``tiny``, or else ``digits``; its parents' count."""
    try:
        there = {name for layer in chain(recipe) for name in layer.presets}
    except ContralexError:
        return None  # the check `resolves` says what is wrong
    return next((name for name in ("tiny", "digits") if name in there), None)
