"""The dictionary of SimCLR v2 with a memory network: the batch, and the last keys of that network beside it."""

from __future__ import annotations

from contralex.plugin import Dictionary, InBatchSource, Match, NegativeSource, QueueSource, Rows, Step


class BatchAndQueue(NegativeSource):
    """All keys of the batch but the query's own view (SimCLR), then the queue of the last keys (MoCo).

    ``size``: keys in the queue. ``dim``: dimensions of a key.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.batch = InBatchSource(views="all")
        self.queue = QueueSource(size, dim)

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        batch = self.batch(queries, keys, match, step)
        stored = self.queue(queries, keys, match, step)
        # A remembered key is of no view: it is never taken for the positive, which is in the batch.
        remembered = Rows.from_view(stored.shared, stored.rows.sample, max(keys.views) + 1)
        rows = Rows.cat([batch.rows, remembered])
        entries = Dictionary(shared=rows.vectors, rows=rows)
        return entries.replace(hidden=batch.hidden) if batch.has_hidden else entries

    def update(self, keys: Rows, step: Step) -> None:
        self.queue.update(keys, step)
