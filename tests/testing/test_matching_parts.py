"""The parts with which a part is tried are found slot by slot, and are those that a look at every choice finds."""

from __future__ import annotations

import itertools

import pytest

from contralex.plugins.hooks import METHOD_SLOTS
from contralex.plugins.registry import registry
from contralex.testing import matching_parts
from contralex.testing.plugin_contents import list_kinds


@pytest.mark.parametrize("name", ["contralex-barlow", "contralex-supcon"])
def test_all_choices_that_fit_are_found_in_their_order(name: str) -> None:
    own = list_kinds(registry().plugins[name])
    for kind in own:
        if kind.slot not in METHOD_SLOTS:
            continue
        slots = matching_parts._SLOTS
        choices = [[kind.example()] if slot == kind.slot else matching_parts._choices(slot, own) for slot in slots]
        fit = [
            dict(zip(slots, chosen, strict=True))
            for chosen in itertools.product(*choices)
            if all(wanted & chosen[slots.index(slot)].offers() for spec in chosen for slot, wanted in spec.requires())
        ]
        assert fit
        assert list(matching_parts.choose_parts(kind, own)) == fit
