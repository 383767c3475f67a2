"""CLIP's and SigLIP's losses, whose scale is learned with everything else."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets


class ScaledLoss(Loss):
    """A loss that multiplies scores by exp(``log_scale``), which it learns."""

    log_scale: nn.Parameter

    @abstractmethod
    def learned(self) -> dict[str, Tensor]:
        """The learned numbers that are logged, by their names."""


class ClipLoss(ScaledLoss):
    """−log softmax of the positive among all entries, of scores that are multiplied by exp(t) (CLIP, Figure 3).

    ``log_scale`` is t. It is brought back to [0, log of the largest scale] before it is used: where a step has left
    that range, the gradient can lead it back, which it could not from beyond a clamp in the formula.
    """

    def __init__(self, temperature: float = 0.07, max_scale: float = 100.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.largest = math.log(max_scale)

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        temperature = dictionary.once("temperature of clip", self._temperature)
        return dictionary.cross_entropy(queries.vectors, targets.index, temperature).mean()

    def _temperature(self) -> Tensor:
        with torch.no_grad():
            self.log_scale.clamp_(0, self.largest)
        return (-self.log_scale).exp()

    def learned(self) -> dict[str, Tensor]:
        return {"logit_scale": self.log_scale.detach().exp()}


class SigmoidLoss(ScaledLoss):
    """−Σ_j log σ(z_ij·(exp(t')·q_i·k_j + b)), the mean over queries i; z is 1 for the query's own entry, and else −1
    (SigLIP, Eq. 3; Algorithm 1). ``log_scale`` is t', ``bias`` is b.

    The sum over all pairs is divided by the batch, not by the number of pairs.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        temperature = (-self.log_scale).exp()
        return dictionary.sigmoid_cross_entropy(queries.vectors, targets.index, temperature, self.bias).mean()

    def learned(self) -> dict[str, Tensor]:
        return {"logit_scale": self.log_scale.detach().exp(), "logit_bias": self.bias.detach().clone()}
