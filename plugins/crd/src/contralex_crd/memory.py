"""A memory of student and teacher, of which a query sees samples of other classes; and the classes themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from contralex.plugin import (
    BuildContext,
    ContralexError,
    Dictionary,
    Match,
    MemoryBankSource,
    NegativeSource,
    Rows,
    Step,
    distributed,
)
from contralex_crd.encoder import DistilledEncoder

if TYPE_CHECKING:
    from contralex_crd.spec import OtherClasses


class OtherClassesMemory(NegativeSource):
    """For a match of two views, entry 0 is the positive and the rest is drawn, with replacement, from the samples whose
    class is another (CRD, section 3.2): the same samples for the student as for the teacher. For a match of a view with
    itself the entries are the classes' axes, so that the scores of a query are its logits."""

    axes: Tensor
    labels: Tensor
    order: Tensor
    start: Tensor
    count: Tensor

    def __init__(self, spec: OtherClasses, context: BuildContext) -> None:
        super().__init__()
        self.width, classes = embedding_and_classes(context)
        self.draws = spec.draws
        self.relax = spec.positive == "relax"
        self.bank = MemoryBankSource(
            context.dataset_size,
            self.width,
            spec.draws,
            momentum=spec.momentum,
            placement=spec.placement,
            dtype=spec.dtype,
            key_views=context.key_views,
        )
        labels = labels_of(context, classes)
        count = torch.bincount(labels, minlength=classes)
        if int((count > 0).sum()) < 2:
            raise ContralexError(
                "method.negatives of kind other_classes draws from other classes, and the data have one; add others."
            )
        # They belong to the data, not to the run: sorted by class, a class is order[start : start + count].
        self.register_buffer("labels", labels, persistent=False)
        self.register_buffer("order", torch.argsort(labels, stable=True), persistent=False)
        self.register_buffer("start", count.cumsum(0) - count, persistent=False)
        self.register_buffer("count", count, persistent=False)
        self.register_buffer("axes", torch.eye(classes), persistent=False)

    def forward(self, queries: Rows, keys: Rows, match: Match, step: Step) -> Dictionary:
        if match.query == match.key:
            return Dictionary(shared=self.axes, span=(self.width, self.width + len(self.axes)))
        own = self.bank.read(match.key, self._places(queries.sample, step))  # (N, 1+K, E)
        return Dictionary(own=own, dataset_size=self.bank.dataset_size, span=(0, self.width))

    def _places(self, sample: Tensor, step: Step) -> Tensor:
        """(N, 1+K) the samples that these queries are compared with."""
        shares = torch.rand(step.batch, 1 + self.draws, generator=step.generator("contralex-crd"), dtype=torch.float64)
        shares = shares[distributed.own_slice(len(sample))].to(sample.device)  # drawn for the global batch
        label = self.labels[sample]
        start, count = (table[label].unsqueeze(1) for table in (self.start, self.count))  # (N, 1) of its own class
        others = (shares[:, 1:] * (len(self.order) - count)).long()
        others = torch.where(others < start, others, others + count)  # steps over its own class
        own = self.order[start + (shares[:, :1] * count).long()] if self.relax else sample.unsqueeze(1)
        return torch.cat([own, self.order[others]], dim=1)

    def update(self, keys: Rows, step: Step) -> None:
        self.bank.update(replace(keys, vectors=keys.vectors[:, : self.width]), step)


def embedding_and_classes(context: BuildContext) -> tuple[int, int]:
    """How many numbers of a vector are its embedding, and how many its logits."""
    encoder = context.encoder
    assert isinstance(encoder, DistilledEncoder)  # no other gives "embedding and logits"
    return encoder.width, encoder.classes


def labels_of(context: BuildContext, classes: int) -> Tensor:
    """(dataset_size,) the class of each training sample, of which every one has one of the encoder's."""
    labels: Tensor | Sequence[int] = () if context.labels is None else context.labels
    labels = torch.as_tensor(labels, dtype=torch.long)
    without = int((labels < 0).sum()) if len(labels) else context.dataset_size
    if without:
        raise ContralexError(
            f"method.negatives needs the class of every sample, and {without} of {context.dataset_size} have none; "
            "leave them out of the data."
        )
    if int(labels.max()) >= classes:
        raise ContralexError(
            f"method.encoder.classes is {classes}, and the data have a class {int(labels.max())}, counted from 0; set "
            f"it to {int(labels.max()) + 1}."
        )
    return labels
