"""MAE's loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets, at_least_float32


class SquaredError(Loss):
    """(1/N)·Σ_i ‖q_i − k_i‖²/D over the queries i: in MAE the hidden patches alone."""

    compares_samples = False

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        return F.mse_loss(at_least_float32(queries.vectors), at_least_float32(targets.vectors))
