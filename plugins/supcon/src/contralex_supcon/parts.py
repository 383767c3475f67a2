"""SupCon's targets and its loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import (
    ContralexError,
    Dictionary,
    Loss,
    Match,
    Rows,
    Schedule,
    Step,
    TargetGenerator,
    Targets,
    value_at,
)


class LabelTargets(TargetGenerator):
    """1/|P(i)| on each of the entries P(i) that have the query's label, and on its own sample's."""

    labels: Tensor

    def __init__(self, labels: Tensor | None) -> None:
        super().__init__()
        if labels is None:
            raise ContralexError(
                "method.targets of kind labels needs labelled data, and these data have no labels; "
                "use targets of kind instance, or images in one folder for each class."
            )
        self.register_buffer("labels", labels, persistent=False)  # they belong to the data, not to the run

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        entries = dictionary.rows
        mine, theirs = self.labels[queries.sample].unsqueeze(1), self.labels[entries.sample]
        right = (mine == theirs) & (mine >= 0) | (queries.sample.unsqueeze(1) == entries.sample)
        right &= entries.sample >= 0  # a queue's rows stand for no sample until they are written
        if dictionary.has_own:  # the query's own positive
            right = torch.cat([torch.ones_like(right[:, :1]), right], dim=1)
        if dictionary.has_mask:
            right &= dictionary.mask
        return Targets(weights=right / right.sum(dim=1, keepdim=True).clamp_min(1))


class SupConLoss(Loss):
    """outside: −Σ_p w_p·log softmax_p; inside: −log Σ_p w_p·softmax_p, p over the positives (SupCon, Eqs. 2 and 3).

    A query without a positive counts as 0.
    """

    def __init__(
        self,
        temperature: float | Schedule,
        positives: Literal["outside", "inside"] = "outside",
        base_temperature: float | None = None,
    ) -> None:
        super().__init__()
        self.temperature, self.base_temperature = temperature, base_temperature
        self.outside = positives == "outside"

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        temperature = value_at(self.temperature, step.clock)
        log_p = F.log_softmax(dictionary.scores(queries.vectors) / temperature, dim=1)  # (N, P+M)
        weights = targets.weights.to(log_p)
        if self.outside:
            loss = -(weights * log_p.masked_fill(weights == 0, 0.0)).sum(dim=1)
        else:
            absent = weights == 0
            log_wp = (log_p + weights.masked_fill(absent, 1.0).log()).masked_fill(absent, float("-inf"))
            loss = -torch.logsumexp(log_wp, dim=1).masked_fill(absent.all(dim=1), 0.0)  # exp() alone may underflow
        return loss.mean() * (1.0 if self.base_temperature is None else temperature / self.base_temperature)
