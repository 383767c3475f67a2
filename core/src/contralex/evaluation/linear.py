"""A linear probe: how well one linear layer sorts classes by a frozen encoder's features.

Logistic regression by L-BFGS on features that are extracted once, as CLIP's probes (arXiv:2103.00020, appendix A.3).
The objective is convex, so there is one answer, with neither a learning rate nor a seed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex import progress
from contralex.data.base import Source
from contralex.errors import remedy
from contralex.evaluation.base import Accuracy
from contralex.evaluation.features import Features, baseline_splits, describe_pixels, labelled_splits, split_features
from contralex.evaluation.hits import count_hits
from contralex.lookup import distributed

if TYPE_CHECKING:
    from contralex.data.views import Views
    from contralex.lookup.slots import Encoder
    from contralex.recipes.run_spec import LinearSpec

_log = logging.getLogger("contralex")
_ROWS = 8192  # that are in float64 at a time
_WIDE = 4096  # features, of which a square matrix is too large


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
        hits = torch.zeros(2, dtype=torch.long, device=self.classes.device)
        labels = labels.to(self.classes.device)
        for part, truth in zip(features.split(_ROWS), labels.split(_ROWS), strict=True):
            ranked = self.logits(part).topk(min(5, len(self.classes)), dim=1).indices
            hits += count_hits(self.classes[ranked] == truth[:, None])
        first, five = hits.tolist()
        return first, five


def evaluate_linear(
    encoder: Encoder | None,
    source: Source,
    views: Views,
    spec: LinearSpec,
    batch_size: int,
    device: torch.device | str,
    workers: int = 0,
    *,
    baseline: bool = False,
) -> Accuracy:
    """Evaluate an encoder's features, or raw pixels where there is no encoder. :class:`NoLabels` if it cannot be.

    ``baseline``: on at most 50,000 training and 10,000 test samples, as raw pixels always are. Processes share the
    samples out: each encodes its part and keeps its features, and all fit one classifier. All call this.
    """
    train, test = labelled_splits(source)
    of: dict[str, int] = {}
    if baseline or encoder is None:
        train, test, of = baseline_splits(train, test)
    features, asked = (
        split_features(encoder, split, views, spec.features, batch_size, device, workers, "eval.linear")
        for split in (train, test)
    )
    fitted = fit_features(features, spec.weight_decay, standardize=spec.standardize, iterations=spec.iterations)
    hits = [fitted.hits(rows, truth) for rows, truth in asked.blocks(_ROWS)]
    first, five = (sum(counts) for counts in zip(*distributed.gather_objects(hits), strict=True))
    protocol = {
        "classifier": "logistic regression",
        "objective": "mean cross-entropy + weight_decay/2 · ‖weight‖²",
        "weight_decay": spec.weight_decay,
        "standardize": spec.standardize,
        "solver": "L-BFGS",
        "iterations": spec.iterations,
        "converged": fitted.converged,
        "augment": False,
        "features": describe_pixels(test, views) if encoder is None else spec.features,
        "classes": len(fitted.classes),
        "train_samples": features.total,
        "test_samples": asked.total,
        **of,
        **features.precision(),
    }
    return Accuracy(first / asked.total, five / asked.total, protocol)


def fit(
    features: Tensor,
    labels: Tensor,
    weight_decay: float,
    *,
    standardize: bool = True,
    iterations: int = 1000,
    flat: float = 1e-6,
) -> LinearClassifier:
    """As :func:`fit_features`, on (N, F) features and their labels (N,)."""
    rows = Features(features, None, labels, features.device)
    return fit_features(rows, weight_decay, standardize=standardize, iterations=iterations, flat=flat)


@torch.no_grad()
def fit_features(
    features: Features,
    weight_decay: float,
    *,
    standardize: bool = True,
    iterations: int = 1000,
    flat: float = 1e-6,
) -> LinearClassifier:
    """Multinomial logistic regression in float64. Processes go over their own features, and add up what they find.

    Minimises mean cross-entropy + weight_decay/2 · ‖weight‖², with a bias that is free: scikit-learn's
    ``LogisticRegression(C=1 / (N · weight_decay))`` for three classes or more. For two it is C=2 / (N · weight_decay),
    as scikit-learn then has one row of weights, the difference of our two, whose squares are half of its own.
    ``flat``: the largest number of the gradient where it ends.
    """
    everyones = distributed.gather_unequal(features.labels.unique())
    classes = everyones.unique().to(_exact(features.device))
    mean, scale = _moments(features)
    scale = scale if standardize else torch.ones_like(scale)  # the mean only moves the bias
    root = _curvature(features, mean, scale, weight_decay, len(classes))
    # What is solved for is weight · root, in which the objective is about as curved in every direction.
    solved = mean.new_zeros(len(classes), features.width).requires_grad_()
    bias = mean.new_zeros(len(classes)).requires_grad_()
    kept = [((rows - mean) / scale, truth) for rows, truth in _blocks(features)] if len(features) <= _ROWS else None
    said = False

    def objective() -> Tensor:
        """The loss. Its gradient is written out: (p - y)ᵀ x for each row, so that no graph holds all features."""
        nonlocal said
        began = time.perf_counter()
        weight = _over(solved, root)
        loss, slope, offset = mean.new_zeros(()), torch.zeros_like(weight), torch.zeros_like(bias)
        for rows, truth in _blocks(features) if kept is None else kept:
            inputs = (rows - mean) / scale if kept is None else rows  # (n, F)
            target = torch.searchsorted(classes, truth)
            log_p = F.log_softmax(F.linear(inputs, weight, bias), dim=1)  # (n, C)
            loss -= log_p.gather(1, target[:, None]).sum() / features.total
            wrong = (log_p.exp() - F.one_hot(target, len(classes))) / features.total
            slope += wrong.T @ inputs
            offset += wrong.sum(dim=0)
        loss, slope, offset = (distributed.sum_over_processes(part) for part in (loss, slope, offset))
        slope = slope + weight_decay * weight
        solved.grad, bias.grad = _over(slope, root, transposed=True).contiguous(), offset
        total = loss + weight_decay / 2 * weight.square().sum()
        if not said:
            _say_how_long(features, float(total), time.perf_counter() - began, iterations)
        said = True
        return total

    solver = torch.optim.LBFGS(
        [solved, bias],
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=flat,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )
    with progress.during("Fitting the linear classifier"):
        solver.step(torch.no_grad()(objective))
    objective()
    assert solved.grad is not None and bias.grad is not None
    converged = max(float(solved.grad.abs().max()), float(bias.grad.abs().max())) <= 10 * flat
    return LinearClassifier(_over(solved, root).detach(), bias.detach(), mean, scale, classes, converged)


def _exact(device: torch.device) -> torch.device:
    """Where to compute in float64, which Apple's GPUs do not have."""
    return torch.device("cpu") if device.type == "mps" else device


def _blocks(features: Features) -> Iterator[tuple[Tensor, Tensor]]:
    device = _exact(features.device)
    for rows, labels in features.blocks(_ROWS):
        yield rows.to(device).double(), labels.to(device)


def _say_how_long(features: Features, loss: float, seconds: float, iterations: int) -> None:
    """Where the first of the passes over the features (``loss`` has waited for it) promises more than an hour."""
    if seconds * iterations > 3600 and distributed.rank() == 0:
        _log.warning(
            "The linear probe goes over %s features of %s dimensions up to %s times, %.0f s each time; so it may take "
            "%.1f hours. Fewer times, which the protocol says:%s",
            *(f"{number:,}" for number in (features.total, features.width, iterations)),
            seconds,
            seconds * iterations / 3600,
            remedy("--set", "eval.linear.iterations=100"),
        )


def _moments(features: Features) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (F,). What is constant but for rounding is not blown up: its scale is 1."""
    total = torch.zeros(features.width, dtype=torch.float64, device=_exact(features.device))
    squares = total.clone()
    for rows, _ in _blocks(features):
        total += rows.sum(dim=0)
    mean = distributed.sum_over_processes(total) / features.total
    for rows, _ in _blocks(features):
        squares += (rows - mean).square().sum(dim=0)
    spread = (distributed.sum_over_processes(squares) / features.total).sqrt()
    return mean, torch.where(spread > 1e-6 * mean.abs(), spread, torch.ones_like(spread))


def _curvature(features: Features, mean: Tensor, scale: Tensor, weight_decay: float, classes: int) -> Tensor:
    """A lower triangle (F, F) whose square is the objective's curvature at weight 0, but for what couples classes. Its
    diagonal (F,) alone where F is large. Correlated features, as pixels are, need many times the iterations without."""
    width = features.width
    moment = mean.new_zeros((width, width) if width <= _WIDE else (width,))
    for rows, _ in _blocks(features):
        inputs = (rows - mean) / scale
        moment += inputs.T @ inputs if width <= _WIDE else inputs.square().sum(dim=0)
    curvature = distributed.sum_over_processes(moment) / (features.total * classes)
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
