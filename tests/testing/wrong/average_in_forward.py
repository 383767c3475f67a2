"""The teacher moves when it encodes, so once for each micro-batch."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "looks_up_before_it_writes"
REASON = r"encoding, and not update\(\), moved the key encoder"


class Wrong(Spec):
    """A moving average of the encoder."""

    kind: Literal["average_in_forward"] = "average_in_forward"
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
            self.encoder = copy.deepcopy(encoder).requires_grad_(False)
            self.online = (encoder,)

        def forward(self, encoder: Any, views: Any, embedded: Any, sample: Any, step: Any) -> Any:
            with torch.no_grad():
                pairs = zip(self.encoder.parameters(), self.online[0].parameters(), strict=True)
                for mine, theirs in pairs:
                    mine.lerp_(theirs, 0.1)
                found = self.encoder.keys(self.encoder(views))
                return Rows.cat([Rows.from_view(v, sample, view, at) for view, (v, at) in found.items()])

    return Part()


@hookimpl
def contralex_key_encoders() -> list[type[Spec]]:
    return [Wrong]
