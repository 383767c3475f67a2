"""The encoder takes the mean of those samples off that are encoded together, so that a micro-batch has others."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "split_equals_whole"
REASON = r"split and whole differ in loss"


class Wrong(Spec):
    """A linear layer over the mean colour."""

    kind: Literal["encoder_of_the_batch_mean"] = "encoder_of_the_batch_mean"
    builds = ":make_part"
    needs = {"views": frozenset({"images"})}
    gives = frozenset({"one query a view", "unit length"})
    source = "made up"


def make_part() -> Any:
    from torch import nn
    from torch.nn import functional as F

    from contralex.lookup.slots import Encoder

    class Part(Encoder):
        dim = 8

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 8, bias=False)

        def forward(self, views: Any) -> Any:
            out = {view: self.layer(self.features(images)) for view, images in views.items()}
            return {view: F.normalize((v - v.mean(dim=0)).float(), dim=1) for view, v in out.items()}

        def features(self, view: Any) -> Any:
            return view.mean(dim=(2, 3))

    return Part()


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [Wrong]
