"""The cross-entropy of two relations."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets


class RelationalLoss(Loss):
    """−Σ p_k·log p_q over the entries of other samples, p_q = softmax(q·entries/τ_s); the mean over queries.

    The positive stands on neither side: the two views are compared by what else they resemble.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        scores = dictionary.scores(queries.vectors) / self.temperature  # (N, P+M), float32, -inf where masked
        scores = scores.scatter(1, targets.index.unsqueeze(1), float("-inf"))
        log_p = F.log_softmax(scores, dim=1).masked_fill(targets.weights == 0, 0.0)  # 0·log 0 counts as 0
        return -(targets.weights * log_p).sum(dim=1).mean()
