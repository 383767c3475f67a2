"""A share of the labels of another data set, balanced over its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from contralex.data.base import Source, Split, Subset
from contralex.data.loading import mix
from contralex.errors import ContralexError

if TYPE_CHECKING:
    from contralex.kinds.datasets.specs import Labelled


class LabelledSource(Source):
    def __init__(self, spec: Labelled) -> None:
        inner: Any = spec.of
        self._source: Source = inner.build()
        self.items = self._source.items
        self.notes = self._source.notes
        everyone = self._source.train()
        chosen = share_of(everyone.labels or (), spec.share, spec.seed)
        if not chosen:
            raise ContralexError(
                "data of kind labelled: the training samples of data.of have no labels; use images in one folder for "
                "each class."
            )
        self._train = Subset(everyone, chosen)

    def train(self) -> Split:
        return self._train

    def test(self) -> Split | None:
        return self._source.test()


def share_of(labels: Sequence[int], share: float, seed: int) -> list[int]:
    """The places of a share of what has a label (-1 has none), in their order.

    The classes take turns, each in an order of its own, until there are enough; one that has no more is passed over.
    So classes have equally many, as far as they reach, and a larger share holds a smaller one.
    """
    every = torch.as_tensor(labels)
    classes = sorted({label for label in labels if label >= 0})
    turns = []
    for number, label in enumerate(classes):
        places = (every == label).nonzero().flatten()
        shuffled = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(mix(seed, number)))]
        first = mix(seed, number, 1)  # who is earlier in a round is drawn as well
        turns += [(turn, first, place) for turn, place in enumerate(shuffled.tolist())]
    wanted = max(len(classes), round(share * len(turns)))
    return sorted(place for _, _, place in sorted(turns)[:wanted])
