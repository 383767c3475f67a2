"""A linear probe: how well one linear layer sorts classes by a frozen encoder's features.

Logistic regression on features that are extracted once, as CLIP's probes (arXiv:2103.00020, appendix A.3). The
objective is convex, so there is one answer, with neither a learning rate nor a seed. L-BFGS in float32 comes near it,
and Newton's method, whose gradient is in float64, finds it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
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
    from contralex.evaluation.remembered import FeatureStore
    from contralex.lookup.slots import Encoder
    from contralex.recipes.run_spec import LinearSpec

_log = logging.getLogger("contralex")
_ROWS = 8192  # that are in float64 at a time, at most
_CACHED = 2**19  # numbers of such rows
_TINY = -60  # a logarithm: smaller probabilities change nothing, and lead to numbers that processors are slow with
_KEPT = 2**24  # probabilities that are kept while the curvature is asked for at one point
_WIDE = 4096  # features, of which a square matrix is too large
_SAMPLED = 4  # rows for each feature, of which the correlations are estimated, at least
_PAIRS = 20  # steps that L-BFGS remembers
_STALLED = 15  # steps without a flatter point, after which L-BFGS is given up
_RESERVE = 0.3  # of the gradient where it ends: what L-BFGS aims at, since it does not go further than it must


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
    cache: FeatureStore | None = None,
) -> Accuracy:
    """Evaluate an encoder's features, or raw pixels where there is no encoder. :class:`NoLabels` if it cannot be.

    ``baseline``: on at most 50,000 training and 10,000 test samples, as raw pixels always are. ``cache``: where
    features are kept. Processes share the samples out: each encodes its part and keeps its features, and all fit one
    classifier. All call this.
    """
    train, test = labelled_splits(source)
    of: dict[str, int] = {}
    if baseline or encoder is None:
        train, test, of = baseline_splits(train, test)
    features, asked = (
        split_features(encoder, split, views, spec.features, batch_size, device, workers, "eval.linear", cache)
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
        "solver": "L-BFGS, then Newton-CG",
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
    """Multinomial logistic regression. Processes go over their own features, and add up what they find.

    Minimises mean cross-entropy + weight_decay/2 · ‖weight‖², with a bias that is free: scikit-learn's
    ``LogisticRegression(C=1 / (N · weight_decay))`` for three classes or more. For two it is C=2 / (N · weight_decay),
    as scikit-learn then has one row of weights, the difference of our two, whose squares are half of its own.
    ``flat``: the largest number of the gradient where it ends.
    """
    everyones = distributed.gather_unequal(features.labels.unique())
    classes = everyones.unique().to(_exact(features.device))
    mean, scale = _moments(features)
    scale = scale if standardize else torch.ones_like(scale)  # the mean only moves the bias
    inverse = _curvature(features, mean, scale, weight_decay, len(classes))
    objective = _Objective(features, classes, mean, scale, inverse, weight_decay, iterations)
    with progress.during("Fitting the linear classifier"):
        weight, bias, steepness = _minimise(objective, *_approach(objective, _RESERVE * flat), flat)
    return LinearClassifier(weight, bias, mean, scale, classes, steepness <= 10 * flat)


def _approach(objective: _Objective, flat: float) -> tuple[Tensor, Tensor]:
    """A point (C, F + 1) where the gradient in float32 vanishes, or that is as near as its rounding allows, and how
    long the gradient was at the start: L-BFGS (Nocedal & Wright, Numerical Optimization, algorithm 7.5), whose every
    step is one pass over the features."""
    point = best = objective.start
    loss, slope = objective(point, torch.float32)
    first, least, since = slope.norm(), float(slope.abs().max()), 0
    pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=_PAIRS)
    while least > flat and since < _STALLED and objective.passes_left > 1:
        step = _quasi_newton_step(slope, pairs)
        descent = float((slope * step).sum())
        fraction = 1.0
        while objective.passes_left > 1:
            there = point + fraction * step
            new_loss, new_slope = objective(there, torch.float32)
            if new_loss <= loss + 1e-4 * fraction * descent + 1e-7 * abs(loss):
                break
            fraction /= 2
        else:
            break
        moved, turned = there - point, new_slope - slope
        if float((moved * turned).sum()) > 0:
            pairs.append((moved, turned))
        point, loss, slope = there, new_loss, new_slope
        steepest, since = float(slope.abs().max()), since + 1
        if steepest < least:
            best, least, since = point, steepest, 0
    return best, first


def _quasi_newton_step(slope: Tensor, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Down the slope, by the curvature along the last steps: ``pairs`` of a step and of what it did to the slope
    (Nocedal & Wright, algorithm 7.4)."""
    if not pairs:
        return -slope  # in coordinates in which the objective is about as curved in every direction
    step, along = -slope, []
    for moved, turned in reversed(pairs):
        along.append((moved * step).sum() / (moved * turned).sum())
        step = step - along[-1] * turned
    moved, turned = pairs[-1]
    step = step * ((moved * turned).sum() / turned.square().sum())
    for (moved, turned), size in zip(pairs, reversed(along), strict=True):
        step = step + (size - (turned * step).sum() / (moved * turned).sum()) * moved
    return step


def _minimise(objective: _Objective, point: Tensor, first: Tensor, flat: float) -> tuple[Tensor, Tensor, float]:
    """Weight, bias, and the largest number of the gradient there: Newton's method, each of whose steps is found by
    conjugate gradients, as exactly as pays (Nocedal & Wright, algorithm 7.1). ``first``: how long the gradient was at
    the start."""
    loss, slope = objective(point)
    while (steepest := float(slope.abs().max())) > flat and objective.passes_left > 0:
        exactness = max(min(0.25, float((slope.norm() / first).sqrt())), 0.3 * flat / steepest)
        objective.fix(point)
        step = _newton_step(objective, slope, exactness)
        descent = float((slope * step).sum())
        fraction = 1.0
        while objective.passes_left > 0:
            there = point + fraction * step
            new_loss, new_slope = objective(there)
            if new_loss <= loss + 1e-4 * fraction * descent + 1e-13 * abs(loss):
                break
            fraction /= 2
        else:
            break
        point, loss, slope = there, new_loss, new_slope
    weight, bias = objective.split(point)
    return weight, bias.contiguous(), float(slope.abs().max())


def _newton_step(objective: _Objective, slope: Tensor, exactness: float) -> Tensor:
    """The step to where the gradient is ``exactness`` of ``slope`` in length, as far as the curvature here says."""
    step, residual = torch.zeros_like(slope), -slope
    direction, squares = residual, residual.square().sum()
    enough = exactness**2 * squares
    while True:
        curved = objective.curve(direction)
        bend = (direction * curved).sum()
        if bend <= 0:  # of rounding; the objective is convex
            return step if step.any() else residual
        step = step + squares / bend * direction
        residual = residual - squares / bend * curved
        before, squares = squares, residual.square().sum()
        if squares <= enough or objective.passes_left <= 1:
            return step
        direction = residual + squares / before * direction


class _Objective:
    """The loss and its derivatives as functions of a point (C, F + 1), the bias in its last column.

    The rest of a point is weight · root (``inverse`` is root⁻¹), in which the objective is about as curved in every
    direction. Derivatives are written out, (p - y)ᵀ x for each row, so that no graph holds all features. The loss and
    the gradient, which say where the optimum is, are in float64 in the end; the curvature, which says how to get there,
    is in float32. ``passes_left``: how often the features may yet be gone over.
    """

    def __init__(
        self,
        features: Features,
        classes: Tensor,
        mean: Tensor,
        scale: Tensor,
        inverse: Tensor,
        weight_decay: float,
        passes: int,
    ) -> None:
        self.features, self.mean, self.scale, self.inverse = features, mean, scale, inverse
        self.weight_decay, self.passes, self.passes_left = weight_decay, passes, passes
        self.start = mean.new_zeros(len(classes), features.width + 1)
        self.classes = classes
        self._keeps = len(features) * len(classes) <= _KEPT
        self._point = self.start
        self._kept: list[Tensor] = []

    def split(self, point: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Weight (C, F) and bias (C,), from products in ``dtype``."""
        return _over(point[:, :-1], self.inverse, dtype), point[:, -1]

    def __call__(self, point: Tensor, dtype: torch.dtype = torch.float64) -> tuple[float, Tensor]:
        """The loss, and its gradient (C, F + 1), whose products over the features are in ``dtype``."""
        began = time.perf_counter()
        weight, bias = self.split(point, dtype)
        factor = (weight / self.scale).to(dtype)  # in place of the rows, of which there are more
        loss, slope = self.mean.new_zeros(()), torch.zeros_like(point)
        for inputs, labels in _centred(self.features, self.mean, dtype):  # (n, F), (n,)
            target = torch.searchsorted(self.classes, labels)[None]
            log_p = _log_p(inputs, factor, bias)
            loss -= log_p.gather(0, target).sum(dtype=torch.float64)
            wrong = log_p.clamp_(min=_TINY).exp_()
            wrong.scatter_add_(0, target, wrong.new_full(target.shape, -1.0))
            self._add(slope, wrong, inputs)
        total = float(distributed.sum_over_processes(loss)) / self.features.total
        total += self.weight_decay / 2 * float(weight.square().sum())
        if self.passes_left == self.passes:
            _say_how_long(self.features, total, time.perf_counter() - began, self.passes)
        self.passes_left -= 1
        return total, self._finished(slope, weight, dtype)

    def fix(self, point: Tensor) -> None:
        """From now on, :meth:`curve` is about the curvature at this point."""
        self._point, self._kept = point, []

    def curve(self, direction: Tensor) -> Tensor:
        """How the gradient changes along a direction (C, F + 1)."""
        weight, bias = self.split(direction, torch.float32)
        factor = (weight / self.scale).float()
        changed = torch.zeros_like(direction)
        for (inputs, _), p in zip(
            _centred(self.features, self.mean, torch.float32), self._probabilities(), strict=True
        ):
            weighted = p * _logits(inputs, factor, bias)
            self._add(changed, weighted - p * weighted.sum(dim=0), inputs)
        self.passes_left -= 1
        return self._finished(changed, weight, torch.float32)

    def _probabilities(self) -> Iterator[Tensor]:
        """(C, n) of the rows of each block, at the point that is fixed."""
        if self._kept:
            yield from self._kept
            return
        weight, bias = self.split(self._point, torch.float32)
        factor = (weight / self.scale).float()
        for inputs, _ in _centred(self.features, self.mean, torch.float32):
            p = _log_p(inputs, factor, bias).clamp_(min=_TINY).exp_()
            if self._keeps:
                self._kept.append(p)
            yield p

    @staticmethod
    def _add(slope: Tensor, each: Tensor, inputs: Tensor) -> None:
        slope[:, :-1] += each @ inputs
        slope[:, -1] += each.sum(dim=1, dtype=torch.float64)

    def _finished(self, slope: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """A sum over this process's rows as a mean over all, with the weight decay, in the coordinates of a point."""
        slope = distributed.sum_over_processes(slope) / self.features.total
        slope[:, :-1] = _over(
            slope[:, :-1] / self.scale + self.weight_decay * weight, self.inverse, dtype, transposed=True
        )
        return slope


def _exact(device: torch.device) -> torch.device:
    """Where to compute in float64, which Apple's GPUs do not have."""
    return torch.device("cpu") if device.type == "mps" else device


def _logits(inputs: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    """(C, n) of (n, F) rows. A row for each class: over few classes in the last dimension, processors are slow."""
    return torch.addmm(bias.to(inputs.dtype)[:, None], factor, inputs.T)


def _log_p(inputs: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    """(C, n): the logarithms of the probabilities of classes."""
    return F.log_softmax(_logits(inputs, factor, bias), dim=0)


def _rows(features: Features) -> int:
    """How many rows to take at a time: those that stay in a processor's cache while they are used several times."""
    numbers = _CACHED if features.device.type == "cpu" else 16 * _CACHED
    return max(min(_ROWS, numbers // features.width), 1)


def _blocks(features: Features) -> Iterator[tuple[Tensor, Tensor]]:
    device = _exact(features.device)
    for rows, labels in features.blocks(_rows(features)):
        yield rows.to(device), labels.to(device)


def _centred(features: Features, mean: Tensor, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of rows less their mean, all in the same memory: each is gone when the next is asked for."""
    mean = mean.to(dtype)
    room = mean.new_empty(_rows(features), features.width)
    for rows, labels in _blocks(features):
        yield torch.sub(rows, mean, out=room[: len(rows)]), labels


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
        total += rows.sum(dim=0, dtype=torch.float64)
    mean = distributed.sum_over_processes(total) / features.total
    for rows, _ in _centred(features, mean, torch.float64):
        squares += rows.square_().sum(dim=0)
    spread = (distributed.sum_over_processes(squares) / features.total).sqrt()
    return mean, torch.where(spread > 1e-6 * mean.abs(), spread, torch.ones_like(spread))


def _curvature(features: Features, mean: Tensor, scale: Tensor, weight_decay: float, classes: int) -> Tensor:
    """The inverse (F, F) of a lower triangle whose square is the objective's curvature at weight 0, but for what
    couples classes. The inverse (F,) of its diagonal alone where F is large. Correlated features, as pixels are, need
    many times the passes without. Only how long the way is depends on it, so it is of some of the rows, multiplied in
    float32."""
    width = features.width
    if width > _WIDE:
        squares = mean.new_zeros(width)
        for rows, _ in _centred(features, mean, torch.float32):
            squares += rows.square_().sum(dim=0, dtype=torch.float64)
        return (distributed.sum_over_processes(squares) / (features.total * classes) / scale**2 + weight_decay).rsqrt()
    moment, count = mean.new_zeros(width, width), mean.new_zeros(())
    every = max(features.total // (_SAMPLED * width), 1)
    for rows, _ in features.blocks(_ROWS):
        some = rows[::every].to(mean.device) - mean.float()
        moment += some.T @ some
        count += len(some)
    count = distributed.sum_over_processes(count)
    curvature = distributed.sum_over_processes(moment) / (count * classes) / scale / scale[:, None]
    if every > 1:
        curvature = _shrunk(curvature, float(count))
    # What float32 rounds off must not make it indefinite.
    curvature.diagonal().add_(weight_decay + 1e-5 * curvature.diagonal().mean())
    root = torch.linalg.cholesky(curvature).float()
    one = torch.eye(width, device=root.device)
    inverse: Tensor = torch.linalg.solve_triangular(root, one, upper=False)
    return inverse


def _shrunk(moment: Tensor, count: float) -> Tensor:
    """A moment (F, F) of ``count`` rows with its correlations as much smaller as chance made them larger: oracle
    approximating shrinkage (Chen et al., arXiv:0907.4698, equation 23 without 2/F) of the correlations towards none."""
    width, spread = len(moment), moment.diagonal().clamp(min=1e-30).sqrt()
    squares = float((moment / spread / spread[:, None]).square().sum())
    part = min((squares + width**2) / ((count + 1) * max(squares - width, 1e-12)), 1)
    shrunk = moment * (1 - part)
    shrunk.diagonal().copy_(moment.diagonal())
    return shrunk


def _over(rows: Tensor, inverse: Tensor, dtype: torch.dtype, transposed: bool = False) -> Tensor:
    """(C, F) rows · root⁻¹, or rows · root⁻ᵀ, in float64 from a product in ``dtype``."""
    if inverse.dim() == 1:
        return rows * inverse
    return (rows.to(dtype) @ (inverse.T if transposed else inverse).to(dtype)).double()
