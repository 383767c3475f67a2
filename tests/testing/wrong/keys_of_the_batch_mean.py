"""Keys are centred on the mean of those that are encoded together, so that a micro-batch has others."""

from __future__ import annotations

from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "split_equals_whole"
REASON = r"split and whole differ in"


class Wrong(Spec):
    """A moving average of the encoder."""

    kind: Literal["keys_of_the_batch_mean"] = "keys_of_the_batch_mean"
    builds = ":make_part"
    gives = frozenset({"keys"})
    source = "MoCo, arXiv:1911.05722, Eq. 2"


def make_part(encoder: Any) -> Any:
    import copy
    from dataclasses import replace

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
                found = self.encoder.keys(self.encoder(views))
                rows = Rows.cat([Rows.from_view(v, sample, view, at) for view, (v, at) in found.items()])
                return replace(rows, vectors=rows.vectors - rows.vectors.mean(dim=0))

        def update(self, step: Any) -> None:
            pairs = zip(self.encoder.parameters(), self.online[0].parameters(), strict=True)
            for mine, theirs in pairs:
                mine.lerp_(theirs, 0.1)

    return Part()


@hookimpl
def contralex_key_encoders() -> list[type[Spec]]:
    return [Wrong]
