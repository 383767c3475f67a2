"""I-JEPA's loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets, at_least_float32


class SmoothL1(Loss):
    """The mean over queries and dimensions of x²/(2β) where |x| < β, and of |x| − β/2 elsewhere; x = q − target (code:
    ijepa train.py, ``loss_fn``).

    ``beta`` (β, above 0).
    """

    compares_samples = False

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        return F.smooth_l1_loss(at_least_float32(queries.vectors), at_least_float32(targets.vectors), beta=self.beta)
