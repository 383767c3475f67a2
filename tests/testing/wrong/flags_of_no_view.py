"""It says of three views whether they are keys, and makes one."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "views_stack"
REASON = r"key_flags\(\) has 3 flags, and there are 1 views"


class Wrong(Spec):
    """One view of an image, in 8x8 pixels."""

    kind: Literal["flags_of_no_view"] = "flags_of_no_view"
    builds = ":make_part"
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images"})
    source = "SimCLR, arXiv:2002.05709, appendix A"

    def key_flags(self) -> list[bool]:
        return [True, True, False]


def make_part() -> Any:
    from torchvision.transforms.v2 import functional as V

    from contralex.data.views import Views

    class Part(Views):
        count = 1

        def make(self, item: Any, view: int) -> Any:
            return V.to_image(item.resize((8, 8))).float() / 255

        def plain(self, item: Any) -> Any:
            return V.to_image(item.resize((8, 8))).float() / 255

    return Part()


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [Wrong]
