"""Features that several evaluators of one moment share: in memory, while the encoder does not change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from contralex.data.base import Split, Subset, index_bytes
from contralex.data.fingerprints import digest
from contralex.data.loading import EvalDataset
from contralex.evaluation.encoding import Block, encode
from contralex.lookup import distributed

LIMIT = 1 << 30  # bytes of a process's features; a split that has more is encoded again


class FeatureStore(Protocol):
    """Where an evaluator gets features from."""

    def encode(
        self,
        function: Callable[[Tensor], Tensor],
        dataset: EvalDataset,
        which: str,
        batch_size: int,
        device: torch.device | str,
        workers: int,
    ) -> Iterator[Block]:
        """As :func:`contralex.evaluation.encoding.encode`. ``which``: the features' name, such as ``backbone``."""
        ...


class RememberedFeatures:
    """The features of one encoder, for as long as it does not change."""

    def __init__(self) -> None:
        self._kept: dict[Any, list[Block]] = {}
        self._splits: list[Split] = []  # held, so that no other object gets the identity of one
        self._room = LIMIT

    def encode(
        self,
        function: Callable[[Tensor], Tensor],
        dataset: EvalDataset,
        which: str,
        batch_size: int,
        device: torch.device | str,
        workers: int,
    ) -> Iterator[Block]:
        key = (which, *_identity(dataset.split))
        if key in self._kept:
            yield from self._kept[key]
            return
        blocks: list[Block] = []
        taken = 0
        for features, index in encode(function, dataset, batch_size, device, workers):
            taken += features.nbytes
            if taken <= self._room:
                blocks.append((features, index))
            else:
                blocks.clear()
            yield features, index
        fits = distributed.gather_objects([taken <= self._room])
        if all(fits):  # on all processes or on none, for they encode together
            self._kept[key] = blocks
            self._splits.append(dataset.split)
            self._room -= taken


def _identity(split: Split) -> tuple[Any, ...]:
    """Equal for splits that are the same items of the same object."""
    if isinstance(split, Subset):
        return (*_identity(split.split), digest([index_bytes(split.indices)]))
    return (id(split),)
