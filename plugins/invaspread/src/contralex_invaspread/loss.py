"""InvaSpread's loss: a maximum likelihood of all entries, not of the right one alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import Dictionary, Loss, Rows, Schedule, Step, Targets, value_at


class SpreadLoss(Loss):
    """−log P⁺ − m·Σ_j log(1 − P_j) over the wrong entries j, with P_j = e_j / (e⁺ + m·Σ e_k) and e = exp(q·k/τ)
    (InvaSpread, Eqs. 3 to 6, where m is 1).

    1 − P_j is what the other entries have, so it is summed from them where P_j may be near 1. Only the best-scoring
    wrong entry may: of two, neither has more than 1/2.
    """

    def __init__(self, temperature: float | Schedule, m: float = 1.0) -> None:
        super().__init__()
        self.temperature, self.m = temperature, m

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        scores = dictionary.scores(queries.vectors) / value_at(self.temperature, step.clock)  # (N, P+M)
        right = torch.zeros_like(scores, dtype=torch.bool).scatter(1, targets.index.unsqueeze(1), True)
        wrong = ~right & scores.isfinite()  # masked entries are none
        weighted = torch.where(right, scores, scores + math.log(self.m))
        total = torch.logsumexp(weighted, dim=1, keepdim=True)  # (N, 1)
        log_p = scores - total

        best = scores.detach().masked_fill(~wrong, float("-inf")).argmax(dim=1, keepdim=True)
        is_best = torch.zeros_like(right).scatter(1, best, True) & wrong  # nothing where a query has no wrong entry
        ordinary = torch.log1p(-log_p.masked_fill(~wrong | is_best, float("-inf")).exp()).sum(dim=1)
        # Without one of its m copies, the best entry is still there m − 1 times.
        fewer = scores + math.log(self.m - 1) if self.m > 1 else torch.full_like(scores, float("-inf"))
        without_best = torch.logsumexp(torch.where(is_best, fewer, weighted), dim=1) - total.squeeze(1)
        return F.nll_loss(log_p, targets.index) - self.m * (ordinary + without_best).mean()
