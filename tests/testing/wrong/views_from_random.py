"""Views draw from Python's generator, which no seed of the run sets."""

from __future__ import annotations

import random
from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "views_follow_the_seed"
REASON = r"view 0 of one item is another with the same seed"


class Wrong(Spec):
    """One view of an image, in 8x8 pixels."""

    kind: Literal["views_from_random"] = "views_from_random"
    builds = ":make_part"
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images"})
    source = "SimCLR, arXiv:2002.05709, appendix A"


def make_part() -> Any:
    from torchvision.transforms.v2 import functional as V

    from contralex.data.views import Views

    class Part(Views):
        count = 1

        def make(self, item: Any, view: int) -> Any:
            return V.to_image(item.resize((8, 8))).float() / 255 + random.random()

        def plain(self, item: Any) -> Any:
            return V.to_image(item.resize((8, 8))).float() / 255

    return Part()


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [Wrong]
