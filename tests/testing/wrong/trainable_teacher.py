"""The teacher's parameters are trainable, so that the optimiser's weight decay moves them."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "gradients_arrive"
REASON = r"key_encoder\.encoder\..* is trainable"


class Wrong(Spec):
    """A moving average of the encoder."""

    kind: Literal["trainable_teacher"] = "trainable_teacher"
    builds = ":make_part"
    gives = frozenset({"keys"})
    source = "MoCo, arXiv:1911.05722, Eq. 2"


def make_part(encoder: Any) -> Any:
    import copy

    import torch

    from contralex.lookup.slots import KeyEncoder
    from contralex.lookup.values import Rows

    class Part(KeyEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = copy.deepcopy(encoder)
            self.online = (encoder,)

        def forward(self, encoder: Any, views: Any, embedded: Any, sample: Any, step: Any) -> Any:
            with torch.no_grad():
                found = self.encoder.keys(self.encoder(views))
                return Rows.cat([Rows.from_view(v, sample, view, at) for view, (v, at) in found.items()])

        def update(self, step: Any) -> None:
            pairs = zip(self.encoder.parameters(), self.online[0].parameters(), strict=True)
            for mine, theirs in pairs:
                mine.lerp_(theirs, 0.1)

    return Part()


@hookimpl
def contralex_key_encoders() -> list[type[Spec]]:
    return [Wrong]
