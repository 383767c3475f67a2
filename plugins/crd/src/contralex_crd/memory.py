"""A memory of every key view, of which a query sees samples of other classes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from contralex.plugin import (
    ContralexError,
    Dictionary,
    Match,
    MemoryBankSource,
    NegativeSource,
    Placement,
    Rows,
    Step,
    StoredIn,
    distributed,
    to_device,
)


class OtherClassesMemory(NegativeSource):
    """Entry 0 is the positive, and the rest is drawn, with replacement, from the samples whose class is another (CRD,
    section 3.2): the same samples for every match, so for the student and for the teacher.

    ``draws``: rows of other classes for each query. ``dim``: dimensions of a vector. ``positive``: what memory holds of
    the query's own sample (``exact``), or of any sample of its class (``relax``). ``momentum``: the weight of the
    remembered vector when it is renewed. ``placement`` and ``dtype``: how the memory of ``dataset_size`` samples and of
    the ``key_views`` is stored. ``labels`` (dataset_size,): the class of each sample.
    """

    labels: Tensor
    order: Tensor
    start: Tensor
    count: Tensor

    def __init__(
        self,
        draws: int,
        dim: int,
        dataset_size: int,
        labels: Tensor | None,
        key_views: tuple[int, ...],
        positive: Literal["exact", "relax"] = "exact",
        momentum: float = 0.5,
        placement: Placement = "replicated",
        dtype: StoredIn = "float32",
    ) -> None:
        super().__init__()
        self.draws = draws
        self.relax = positive == "relax"
        self.bank = MemoryBankSource(
            dataset_size, dim, draws, momentum=momentum, placement=placement, dtype=dtype, key_views=key_views
        )
        unlabelled = dataset_size if labels is None else int((labels < 0).sum())
        if labels is None or unlabelled:
            raise ContralexError(
                f"method.negatives needs the class of every sample, and {unlabelled} of {dataset_size} have none; "
                "leave them out of the data."
            )
        count = torch.bincount(labels)
        if int((count > 0).sum()) < 2:
            raise ContralexError(
                "method.negatives of kind other_classes draws from other classes, and the data have one; add others."
            )
        # They belong to the data, not to the run: sorted by class, a class is order[start : start + count].
        self.register_buffer("labels", labels.long(), persistent=False)
        self.register_buffer("order", torch.argsort(labels, stable=True), persistent=False)
        self.register_buffer("start", count.cumsum(0) - count, persistent=False)
        self.register_buffer("count", count, persistent=False)

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        own = self.bank.entries(match.key, self._draw_samples(queries.sample, step))  # (N, 1+K, D)
        return Dictionary(own=own, dataset_size=self.bank.dataset_size)

    def _draw_samples(self, sample: Tensor, step: Step) -> Tensor:
        """(N, 1+K) the samples that these queries are compared with."""
        chance = torch.rand(step.batch, 1 + self.draws, generator=step.generator("contralex-crd"), dtype=torch.float64)
        chance = to_device(chance[distributed.own_slice(len(sample))], sample.device)  # drawn for the global batch
        label = self.labels[sample]
        start, count = (table[label].unsqueeze(1) for table in (self.start, self.count))  # (N, 1) of its own class
        others = (chance[:, 1:] * (len(self.order) - count)).long()
        others = torch.where(others < start, others, others + count)  # steps over its own class
        own = self.order[start + (chance[:, :1] * count).long()] if self.relax else sample.unsqueeze(1)
        return torch.cat([own, self.order[others]], dim=1)

    def update(self, keys: Rows, step: Step) -> None:
        self.bank.update(keys, step)
