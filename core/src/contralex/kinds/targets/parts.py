"""Target generators of the general vocabulary: the instance itself, its key as a vector, its class, its teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.lookup.slots import TargetGenerator
from contralex.lookup.values import Dictionary, Match, Rows, Step, Targets
from contralex.plugins.building import BuildContext

if TYPE_CHECKING:
    from contralex.kinds.targets import specs


class Instance(TargetGenerator):
    """The entry that stands for the query's own sample, seen in the matched view, at the same position."""

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        return Targets(index=dictionary.positives(queries, match))


class KeyVector(TargetGenerator):
    """The sample's own key, as a vector to regress on (BYOL, SimSiam)."""

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        return Targets(vectors=keys.matching(queries, match).vectors)


class ClassLabel(TargetGenerator):
    """The entry of the sample's class."""

    labels: Tensor

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        labels = context.labels
        if labels is None:
            raise ContralexError(
                "method.targets of kind class_label needs labelled data, and these have no labels; use images in one "
                "folder for each class."
            )
        without = int((labels < 0).sum())
        if without:
            raise ContralexError(
                f"method.targets of kind class_label needs a label for every sample, and {without} of {len(labels)} "
                "have none; wrap the data, which leaves those out: data={kind: labelled, share: 1, of: ...}."
            )
        last = int(labels.max())
        if last >= context.dim:
            raise ContralexError(
                f"the data have a class {last}, counted from 0, and method.negatives {context.dim} classes; set "
                f"method.negatives.count, and the width of the encoder's last layer, to {last + 1}."
            )
        self.register_buffer("labels", labels, persistent=False)  # they belong to the data, not to the run

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        return Targets(index=self.labels[queries.sample])


class TeacherLogits(TargetGenerator):
    """P_T(y|x; τ) = softmax of the key's scores/τ (SimCLR v2, Eq. 2); or its mode alone; 0 where it is unsure."""

    def __init__(self, spec: specs.TeacherLogits) -> None:
        super().__init__()
        self.temperature, self.hard, self.threshold = spec.temperature, spec.hard, spec.threshold

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        logits = dictionary.scores(keys.matching(queries, match).vectors)  # (N, C)
        weights = F.softmax(logits / self.temperature, dim=1)
        if self.hard:
            weights = F.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits)
        if self.threshold is not None:
            sure = F.softmax(logits, dim=1).amax(dim=1, keepdim=True) >= self.threshold
            weights = weights * sure
        return Targets(weights=weights)
