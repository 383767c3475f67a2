"""The proximal term of InstDisc, which keeps a feature near its remembered self."""

from __future__ import annotations

from torch import Tensor

from contralex.plugin import Dictionary, Loss, Rows, Step, Targets


class ProximalLoss(Loss):
    """base + λ·‖v⁽ᵗ⁾ − v⁽ᵗ⁻¹⁾‖², the mean over queries (InstDisc, Eq. 10)."""

    def __init__(self, weight: float, base: Loss) -> None:
        super().__init__()
        self.base = base
        self.weight = weight

    def forward(self, queries: Rows, dictionary: Dictionary, targets: Targets, step: Step) -> Tensor:
        remembered = _remembered(dictionary, targets)
        distance = (queries.vectors - remembered.detach()).square().sum(dim=1)
        loss: Tensor = self.base(queries, dictionary, targets, step)
        return loss + self.weight * distance.mean()


def _remembered(dictionary: Dictionary, targets: Targets) -> Tensor:
    """(N, D): each query's own row of the memory, wherever the dictionary holds it."""
    if dictionary.has_own:
        return dictionary.read_own(0)
    return dictionary.shared[targets.index]
