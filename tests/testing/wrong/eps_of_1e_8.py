"""The length is guarded by 1e-8, which in half precision is zero."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "half_precision"
REASON = r"constant input under fp16 is nan"


class Wrong(Spec):
    """A linear layer over the mean colour."""

    kind: Literal["eps_of_1e_8"] = "eps_of_1e_8"
    builds = ":make_part"
    needs = {"views": frozenset({"images"})}
    gives = frozenset({"one query a view", "unit length"})
    source = "made up"


def make_part() -> Any:
    from torch import nn

    from contralex.lookup.slots import Encoder

    class Part(Encoder):
        dim = 8

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 8, bias=False)

        def forward(self, views: Any) -> Any:
            out = {view: self.layer(self.features(images)) for view, images in views.items()}
            return {view: v / ((v * v).sum(dim=1, keepdim=True).sqrt().to(v.dtype) + 1e-8) for view, v in out.items()}

        def features(self, view: Any) -> Any:
            return view.mean(dim=(2, 3))

    return Part()


@hookimpl
def contralex_encoders() -> list[type[Spec]]:
    return [Wrong]
