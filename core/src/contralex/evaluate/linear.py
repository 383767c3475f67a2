"""A linear probe: how well one linear layer sorts classes by a frozen encoder's features.

Logistic regression by L-BFGS on features that are extracted once, as CLIP's probes (arXiv:2103.00020, appendix A.3).
The objective is convex, so there is one answer, with neither a learning rate nor a seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.data.base import Source
from contralex.evaluate.knn import features_of, labelled

if TYPE_CHECKING:
    from contralex.parts.base import Encoder
    from contralex.parts.views import Views
    from contralex.spec.run import LinearSpec

_ROWS = 8192  # that are in float64 at a time
_WIDE = 4096  # features, of which a square matrix is too large


@dataclass(frozen=True)
class LinearResult:
    """Shares of the test samples in [0, 1], and everything that the figures depend on."""

    top1: float
    top5: float
    protocol: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LinearClassifier:
    """What was fitted: ``weight`` (C, F) and ``bias`` (C,), on features less ``mean`` (F,), over ``scale`` (F,).

    ``classes`` (C,): the labels that the rows of ``weight`` stand for. ``converged``: whether the gradient vanished.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    classes: Tensor
    converged: bool

    def logits(self, features: Tensor) -> Tensor:
        """(N, F) to (N, C)."""
        return F.linear((features.to(self.mean.device).double() - self.mean) / self.scale, self.weight, self.bias)

    def hits(self, features: Tensor, labels: Tensor) -> tuple[int, int]:
        """How many of (N, F) features have their class first, and among the first five."""
        first = five = 0
        labels = labels.to(self.classes.device)
        for part, truth in zip(features.split(_ROWS), labels.split(_ROWS), strict=True):
            ranked = self.logits(part).topk(min(5, len(self.classes)), dim=1).indices
            hit = self.classes[ranked] == truth[:, None]
            first += int(hit[:, 0].sum())
            five += int(hit.any(dim=1).sum())
        return first, five


def evaluate_linear(
    encoder: Encoder | None,
    source: Source,
    views: Views,
    spec: LinearSpec,
    batch_size: int,
    device: torch.device | str,
    workers: int = 0,
) -> LinearResult:
    """Judges an encoder's features, or raw pixels where there is no encoder. :class:`NoLabels` if it cannot be.

    Processes share the extraction out. Each then has all features and fits the same classifier. All call this.
    """
    train, test = labelled(source)
    features, labels = features_of(encoder, train, views, spec.features, batch_size, device, workers)
    asked, truth = features_of(encoder, test, views, spec.features, batch_size, device, workers)
    fitted = fit(features, labels, spec.weight_decay, standardize=spec.standardize, iterations=spec.iterations)
    first, five = fitted.hits(asked, truth)
    protocol = {
        "classifier": "logistic regression",
        "objective": "mean cross-entropy + weight_decay/2 · ‖weight‖²",
        "weight_decay": spec.weight_decay,
        "standardize": spec.standardize,
        "solver": "L-BFGS",
        "iterations": spec.iterations,
        "converged": fitted.converged,
        "augment": False,
        "features": "pixels" if encoder is None else spec.features,
        "classes": len(fitted.classes),
        "train_samples": len(features),
        "test_samples": len(asked),
    }
    return LinearResult(first / len(asked), five / len(asked), protocol)


@torch.no_grad()
def fit(
    features: Tensor,
    labels: Tensor,
    weight_decay: float,
    *,
    standardize: bool = True,
    iterations: int = 1000,
    flat: float = 1e-6,
) -> LinearClassifier:
    """Multinomial logistic regression in float64, on (N, F) features and their labels (N,).

    Minimises mean cross-entropy + weight_decay/2 · ‖weight‖², with a bias that is free: scikit-learn's
    ``LogisticRegression(C=1 / (N · weight_decay))`` for three classes or more. For two it is C=2 / (N · weight_decay),
    as scikit-learn then has one row of weights, the difference of our two, whose squares are half of its own.
    ``flat``: the largest number of the gradient where it ends.
    """
    if features.device.type == "mps":  # which has no float64
        features, labels = features.cpu(), labels.cpu()
    classes, target = labels.unique(return_inverse=True)
    mean, scale = _moments(features)
    scale = scale if standardize else torch.ones_like(scale)  # the mean only moves the bias
    root = _curvature(features, mean, scale, weight_decay, len(classes))
    # What is solved for is weight · root, in which the objective is about as curved in every direction.
    solved = features.new_zeros(len(classes), features.shape[1], dtype=torch.float64).requires_grad_()
    bias = features.new_zeros(len(classes), dtype=torch.float64).requires_grad_()
    parts = list(zip(features.split(_ROWS), target.split(_ROWS), strict=True))
    kept = (features.double() - mean) / scale if len(parts) == 1 else None

    def objective() -> Tensor:
        """The loss. Its gradient is written out: (p - y)ᵀ x for each row, so that no graph holds all features."""
        weight = _over(solved, root)
        loss = weight_decay / 2 * weight.square().sum()
        slope, offset = weight_decay * weight, torch.zeros_like(bias)
        for rows, truth in parts:
            inputs = (rows.double() - mean) / scale if kept is None else kept  # (n, F)
            log_p = F.log_softmax(F.linear(inputs, weight, bias), dim=1)  # (n, C)
            loss = loss - log_p.gather(1, truth[:, None]).sum() / len(features)
            wrong = (log_p.exp() - F.one_hot(truth, len(classes))) / len(features)
            slope = slope + wrong.T @ inputs
            offset = offset + wrong.sum(dim=0)
        solved.grad, bias.grad = _over(slope, root, transposed=True).contiguous(), offset
        return loss

    solver = torch.optim.LBFGS(
        [solved, bias],
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=flat,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    solver.step(torch.no_grad()(objective))
    objective()
    assert solved.grad is not None and bias.grad is not None
    converged = max(float(solved.grad.abs().max()), float(bias.grad.abs().max())) <= 10 * flat
    return LinearClassifier(_over(solved, root).detach(), bias.detach(), mean, scale, classes, converged)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (F,). What is constant but for rounding is not blown up: its scale is 1."""
    total = features.new_zeros(features.shape[1], dtype=torch.float64)
    squares = total.clone()
    for rows in features.split(_ROWS):
        total += rows.double().sum(dim=0)
    mean = total / len(features)
    for rows in features.split(_ROWS):
        squares += (rows.double() - mean).square().sum(dim=0)
    spread = (squares / len(features)).sqrt()
    return mean, torch.where(spread > 1e-6 * mean.abs(), spread, torch.ones_like(spread))


def _curvature(features: Tensor, mean: Tensor, scale: Tensor, weight_decay: float, classes: int) -> Tensor:
    """A lower triangle (F, F) whose square is the objective's curvature at weight 0, but for what couples classes. Its
    diagonal (F,) alone where F is large. Correlated features, as pixels are, need many times the iterations without."""
    width = features.shape[1]
    moment = features.new_zeros((width, width) if width <= _WIDE else (width,), dtype=torch.float64)
    for rows in features.split(_ROWS):
        inputs = (rows.double() - mean) / scale
        moment += inputs.T @ inputs if width <= _WIDE else inputs.square().sum(dim=0)
    curvature = moment / (len(features) * classes)
    if width > _WIDE:
        return (curvature + weight_decay).sqrt()
    curvature.diagonal().add_(weight_decay)
    root: Tensor = torch.linalg.cholesky(curvature)
    return root


def _over(rows: Tensor, root: Tensor, transposed: bool = False) -> Tensor:
    """(C, F) rows · root⁻¹, or rows · root⁻ᵀ."""
    if root.dim() == 1:
        return rows / root
    triangle = root.T if transposed else root
    solved: Tensor = torch.linalg.solve_triangular(triangle, rows, upper=transposed, left=False)
    return solved
