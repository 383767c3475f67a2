"""What a batch draws together comes from torch's global generator, which differs between processes."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "views_follow_the_seed"
REASON = r"draw_for_batch\(\) draws from the generator that it is given, and from no other"


class Wrong(Spec):
    """Crops at an offset that a batch shares."""

    kind: Literal["shares_from_the_global_generator"] = "shares_from_the_global_generator"
    builds = ":make_part"
    needs = {"data": frozenset({"images"})}
    gives = frozenset({"images"})
    source = "made up"

    def key_flags(self) -> list[bool]:
        return [True]


def make_part() -> Any:
    import torch
    from torchvision.transforms import v2

    from contralex.plugin import Views, to_tensor_steps

    class Part(Views):
        count = 1
        fixed = v2.Compose([v2.Resize((8, 8)), *to_tensor_steps()])

        def make(self, item: Any, view: int) -> Any:
            return self.make_alone(item, view)

        def draw_for_batch(self, size: int, generator: torch.Generator) -> Any:
            return [float(torch.rand(()))] * size

        def draw_with_share(self, item: Any, view: int, share: float) -> Any:
            return self.fixed(item) + share

        def plain(self, item: Any) -> Any:
            return self.fixed(item)

    return Part()


@hookimpl
def contralex_views() -> list[type[Spec]]:
    return [Wrong]
