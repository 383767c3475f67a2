"""A fraction of the labels of another data set, balanced over its classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from contralex.data.base import Source, Split, Subset
from contralex.data.loading import mix_seed
from contralex.errors import ContralexError


class LabelledSource(Source):
    """Some of the labelled training samples of another source; its test split stays as it is.

    ``of``: that source. ``share``: the fraction of its labelled samples that is kept, at least one of each class, with
    as many of each as there are. ``seed`` draws which (SimCLR v2, arXiv:2006.10029, section 3).
    """

    def __init__(self, of: Source, share: float, seed: int = 0) -> None:
        self._source = of
        self.items, self.notes = of.items, of.notes
        everyone = of.train()
        chosen = choose_labelled(everyone.labels or (), share, seed)
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


def choose_labelled(labels: Sequence[int], fraction: float, seed: int) -> list[int]:
    """The indices of a fraction of what has a label (-1 has none), in their order.

    The classes take turns, each in an order of its own, until there are enough; one that has no more is passed over.
    So classes have equally many, as far as they reach, and a larger fraction holds a smaller one.
    """
    every = torch.as_tensor(labels)
    classes = sorted({label for label in labels if label >= 0})
    turns = []
    for number, label in enumerate(classes):
        indices = (every == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(mix_seed(seed, number))
        shuffled = indices[torch.randperm(len(indices), generator=generator)]
        first = mix_seed(seed, number, 1)  # who is earlier in a round is drawn as well
        turns += [(turn, first, index) for turn, index in enumerate(shuffled.tolist())]
    wanted = max(len(classes), round(fraction * len(turns)))
    return sorted(index for _, _, index in sorted(turns)[:wanted])
