"""What evaluation sees is drawn, so a figure is another each time."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "views_follow_the_seed"
REASON = r"plain\(\) is random"


class Wrong(Spec):
    """One view of an image, in 8x8 pixels."""

    kind: Literal["plain_is_random"] = "plain_is_random"
    builds = ":make_part"
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images"})
    source = "SimCLR, arXiv:2002.05709, appendix A"


def make_part() -> Any:
    import torch
    from torchvision.transforms.v2 import functional as V

    from contralex.data.views import Views

    class Part(Views):
        count = 1

        def make(self, item: Any, view: int) -> Any:
            return V.to_image(item.resize((8, 8))).float() / 255

        def plain(self, item: Any) -> Any:
            return V.to_image(item.resize((8, 8))).float() / 255 + torch.rand(())

    return Part()


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [Wrong]
