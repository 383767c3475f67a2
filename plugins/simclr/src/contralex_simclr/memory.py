"""The dictionary of SimCLR v2 with a memory network: the batch, and the last keys of that network beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from contralex.plugin import BuildContext, Dictionary, InBatchSource, Match, NegativeSource, QueueSource, Rows, Step

if TYPE_CHECKING:
    from contralex_simclr import spec as specs


class BatchAndQueue(NegativeSource):
    """All keys of the batch but the query's own view (SimCLR), then the queue of the last keys (MoCo)."""

    def __init__(self, spec: specs.BatchAndQueue, context: BuildContext) -> None:
        super().__init__()
        self.batch = InBatchSource("all")
        self.queue = QueueSource(spec.size, context.dim)

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        batch = self.batch(queries, keys, match, step)
        stored = self.queue(queries, keys, match, step)
        # What is remembered of a sample is of no view: it is never taken for the positive, which is in the batch.
        no_view = torch.full_like(stored.rows.view, int(keys.view.max()) + 1)
        remembered = replace(stored.rows, vectors=stored.shared, view=no_view)
        rows = Rows.cat([batch.rows, remembered])
        entries = Dictionary(shared=rows.vectors, rows=rows)
        if not batch.has_mask:
            return entries
        seen = batch.mask.new_ones(len(queries), len(remembered))  # all that is remembered
        return entries.replace(mask=torch.cat([batch.mask, seen], dim=1))

    def update(self, keys: Rows, step: Step) -> None:
        self.queue.update(keys, step)
