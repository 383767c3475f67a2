"""The decoupled contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets


class DecoupledLoss(Loss):
    """−q·k⁺/τ + log Σ exp(q·k/τ) over every entry but the positive; the mean over this process's queries.

    In InfoNCE the positive is in that sum as well, and so an easy positive makes all gradients small.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        scores = dictionary.scores(queries.vectors) / self.temperature  # (N, P+M), float32, -inf where masked
        index = targets.index.unsqueeze(1)  # (N, 1)
        positive = scores.gather(1, index).squeeze(1)  # (N,)
        others = torch.logsumexp(scores.scatter(1, index, float("-inf")), dim=1)  # (N,)
        others = others.masked_fill(others.isneginf(), 0.0)  # a query without negatives is only attracted
        return (others - positive).mean()
