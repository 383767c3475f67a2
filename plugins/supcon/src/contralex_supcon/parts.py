"""SupCon's targets and its loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

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
    TiledWeights,
    value_at,
)


class LabelTargets(TargetGenerator):
    """1/|P(i)| on each of the entries P(i) that have the query's label, and on its own sample's."""

    classes: Tensor

    def __init__(self, labels: Tensor | None) -> None:
        super().__init__()
        if labels is None:
            raise ContralexError(
                "method.targets of kind labels needs labelled data, and these data have no labels; "
                "use targets of kind instance, or images in one folder for each class."
            )
        # A sample without a label is of a class of its own. They belong to the data, not to the run.
        classes = torch.where(labels < 0, -1 - torch.arange(len(labels), device=labels.device), labels)
        self.register_buffer("classes", classes, persistent=False)

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        entries = dictionary.rows
        mine = self.classes[queries.sample]
        nobody = -1 - len(self.classes)  # what stands for no sample: a queue's rows until they are written
        theirs = torch.where(entries.sample >= 0, self.classes[entries.sample], nobody)
        hides_many = dictionary.has_mask and not dictionary.has_hidden
        if not dictionary.has_own and not hides_many:
            hidden = dictionary.hidden if dictionary.has_hidden else None
            return Targets(weights=_SameClass(mine, theirs, hidden, queries.vectors.dtype))
        right = mine.unsqueeze(1) == theirs
        if dictionary.has_own:  # the query's own positive
            right = torch.cat([torch.ones_like(right[:, :1]), right], dim=1)
        if dictionary.has_mask:
            right &= dictionary.mask
        count = right.sum(dim=1, keepdim=True).clamp_min(1)
        return Targets(weights=right / count.to(queries.vectors.dtype))


class _SameClass(TiledWeights):
    """1/|P(i)| on each of the entries P(i) whose number is the query's, but for the one that is ``hidden`` (N,).

    ``dtype``: of the weights.
    """

    def __init__(self, mine: Tensor, theirs: Tensor, hidden: Tensor | None, dtype: torch.dtype) -> None:
        self.mine, self.theirs, self.hidden = mine, theirs, hidden
        self.shape = (len(mine), len(theirs))
        ordered = theirs.sort().values
        count = torch.searchsorted(ordered, mine, right=True) - torch.searchsorted(ordered, mine)
        if hidden is not None:
            count -= ((hidden >= 0) & (theirs[hidden.clamp_min(0)] == mine)).long()
        self.each = (count > 0) / count.clamp_min(1).to(dtype)  # (N,)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        weights = (self.mine[rows].unsqueeze(1) == self.theirs[columns]) * self.each[rows].unsqueeze(1)
        if self.hidden is not None:
            columns_here = torch.arange(columns.start, columns.stop, device=weights.device)
            weights.masked_fill_(self.hidden[rows].unsqueeze(1) == columns_here, 0.0)
        return weights

    def at(self, index: Tensor) -> Tensor:
        visible = self.mine == self.theirs[index]
        if self.hidden is not None:
            visible &= self.hidden != index
        return visible * self.each

    def largest(self) -> Tensor:
        return self.each


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
        asked, weights = queries.vectors, targets.tiled_weights
        if self.outside:
            loss = dictionary.soft_cross_entropy(asked, weights, temperature)
        else:
            right = dictionary.log_sum_exp(asked, temperature, weights)
            nothing = right == float("-inf")
            loss = dictionary.log_sum_exp(asked, temperature) - right.masked_fill(nothing, 0.0)
            loss = loss.masked_fill(nothing, 0.0)
        return loss.mean() * (1.0 if self.base_temperature is None else temperature / self.base_temperature)
