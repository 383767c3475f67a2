"""A view keeps its crop's own size, so that views make no batch."""

from __future__ import annotations

import itertools
from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "views_stack"
REASON = r"view 0 has the shapes .*one is needed"


class Wrong(Spec):
    """One view of an image, in 8x8 pixels."""

    kind: Literal["views_of_many_shapes"] = "views_of_many_shapes"
    builds = ":make_part"
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images"})
    source = "SimCLR, arXiv:2002.05709, appendix A"


def make_part() -> Any:
    from torchvision.transforms.v2 import functional as V

    heights = itertools.count(8)

    from contralex.data.views import Views

    class Part(Views):
        count = 1

        def make(self, item: Any, view: int) -> Any:
            height = next(heights)
            return V.to_image(item.resize((8, height))).float() / 255

        def plain(self, item: Any) -> Any:
            return V.to_image(item.resize((8, 8))).float() / 255

    return Part()


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [Wrong]
