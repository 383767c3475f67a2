"""From a spec to its part: what a part's signature may ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import pytest
import torch

from contralex.plugin import Backbone, Slot, Spec


class TwinsSpec(Spec):
    kind: Literal["twins"] = "twins"
    builds = ":Twins"
    backbone: Annotated[Spec, Slot("backbone")]


class Twins:
    def __init__(self, backbone: Backbone, fresh_backbone: Callable[[], Backbone]) -> None:
        self.one, self.other = backbone, fresh_backbone()


class LonelySpec(TwinsSpec):
    builds = ":Lonely"


class Lonely:
    def __init__(self, backbone: Backbone, fresh_head: Callable[[], Backbone]) -> None: ...


BACKBONE = {"kind": "conv", "widths": (6, 8), "strides": (2, 2)}


def test_a_part_may_ask_for_another_part_of_a_block() -> None:
    twins = TwinsSpec.model_validate({"backbone": BACKBONE}).build()
    one, other = twins.one.module.state_dict(), twins.other.module.state_dict()
    assert twins.one.dim == twins.other.dim == 8 and one.keys() == other.keys()
    assert one["0.weight"].shape == other["0.weight"].shape and not torch.equal(one["0.weight"], other["0.weight"])


def test_another_part_of_a_block_that_is_not_there_is_an_authors_mistake() -> None:
    with pytest.raises(TypeError, match="asks for fresh_head, which is no field of LonelySpec"):
        LonelySpec.model_validate({"backbone": BACKBONE}).build()
