"""Negatives from this batch and from the batches before it."""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.plugin import Dictionary, Match, NegativeSource, Rows, Step


class CrossBatchMemory(NegativeSource):
    """The query's own positive, the batch's keys, and the last keys before them, first in, first out.

    Keys come gathered from every process, so the memory is the same on each of them. Entries of the query's own
    sample are masked: its other views, and its key of an earlier epoch, are no negatives.
    """

    vectors: Tensor
    sample: Tensor
    written: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        # Buffers, because what is remembered belongs in the checkpoint.
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("sample", torch.full((size,), -1))  # -1: not yet written
        self.register_buffer("written", torch.zeros((), dtype=torch.long))  # keys since the beginning

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        positive = keys.select_matching(queries, match).vectors  # (N, D)
        shared = torch.cat([keys.vectors, self.vectors])  # (M, D), a copy: update() writes into the memory
        sample = torch.cat([keys.sample, self.sample])  # (M,)
        others = (sample >= 0) & (sample != queries.sample.unsqueeze(1))  # (N, M)
        mask = torch.cat([torch.ones_like(others[:, :1]), others], dim=1)  # (N, 1+M): the positive is entry 0
        return Dictionary(own=positive.unsqueeze(1), shared=shared, mask=mask)

    def update(self, keys: Rows, step: Step) -> None:
        # A batch larger than the memory leaves its newest keys; one that crosses the end goes on at the start.
        size = len(self.vectors)
        newest = keys.vectors[-size:]
        index = (self.written + torch.arange(len(newest), device=self.vectors.device)) % size
        self.vectors[index] = newest.to(self.vectors)
        self.sample[index] = keys.sample[-size:]
        self.written += len(newest)
