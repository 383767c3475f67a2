"""The decoupled contrastive loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets

if TYPE_CHECKING:
    from contralex_IDENTIFIER.spec import Decoupled


class DecoupledLoss(Loss):
    """−q·k⁺/τ + log Σ exp(q·k/τ) over every entry but the positive; the mean over this process's queries.

    In InfoNCE the positive is in that sum as well, and so an easy positive makes all gradients small.
    """

    def __init__(self, spec: Decoupled) -> None:
        super().__init__()
        self.temperature = spec.temperature

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        scores = dictionary.scores(queries.vectors) / self.temperature  # (N, P+M), float32, -inf where masked
        place = targets.index.unsqueeze(1)  # (N, 1)
        positive = scores.gather(1, place).squeeze(1)  # (N,)
        others = torch.logsumexp(scores.scatter(1, place, float("-inf")), dim=1)  # (N,)
        others = others.masked_fill(others.isneginf(), 0.0)  # a query without negatives is only attracted
        return (others - positive).mean()
