"""Transfer: nearest neighbours and a linear classifier on another data set, on a frozen encoder's features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from contralex.errors import ContralexError
from contralex.evaluation.base import EvalContext, Measurement, Measures
from contralex.evaluation.features import Features, Which, labelled_splits, read_features
from contralex.evaluation.knn import neighbour_accuracies
from contralex.evaluation.linear import LinearClassifier, fit_features
from contralex.kinds.datasets.labelled import choose_labelled
from contralex.lookup.slots import Encoder
from contralex.plugins.registry import registry
from contralex.plugins.spec import Spec
from contralex.recipes.run_spec import KNNSpec, LinearSpec, RunSpec

HELD_OUT = 0.2  # of the training samples, by which one of several weight decays is chosen
_ROWS = 8192


def data_spec(name: str, root: str, download: bool) -> Spec:
    """The spec of a data set by the name of its kind. What it has no field for is left out."""
    kind = registry().find("data", name)
    if kind is None:
        raise ContralexError(f"transfer to {name}: {registry().hint('data', name)}")
    values = {"root": root, "download": download}
    given = {field: value for field, value in values.items() if field in kind.model_fields}
    if not download or "download" not in given:
        given.pop("download", None)
    return kind.model_validate({"kind": name, **given})


class Transfer(Measurement):
    """Weighted kNN by the run's settings, and logistic regression, on the data that the context has.

    ``decays``: weight decays of the linear classifier. Of several, the one that is best on a fifth of the training
    samples is taken, and then learns from all (as Kornblith et al., 2019, arXiv:1805.08974, choose the
    regularisation). The accuracy is over samples, and as a mean over classes, which papers report for flowers, pets
    and aircraft.
    """

    name = "transfer"

    def __init__(self, features: Which = "backbone", decays: Sequence[float] = ()) -> None:
        if not all(0 < decay < math.inf for decay in decays):
            raise ContralexError("decays: a weight decay is a number above 0")
        self.features, self.decays = features, tuple(decays)

    def measure(self, encoder: Encoder, context: EvalContext, run: RunSpec) -> Measures:
        train, test = labelled_splits(context.source)
        bank, asked = (
            read_features(encoder, split, context, self.features, "eval transfer") for split in (train, test)
        )
        neighbours, linear = run.eval.knn or KNNSpec(), run.eval.linear or LinearSpec()
        k = min(neighbours.k, bank.total)
        classes = 1 + int(max(bank.labels.max(), asked.labels.max()))
        knn = neighbour_accuracies(bank, asked, k, neighbours.temperature, classes)
        decay, chosen = self._choose(bank, linear)
        fitted = _fit(bank, linear, decay)
        first, by_class = _accuracy(fitted, asked)
        figures = {"knn_top1": knn[0], "knn_top5": knn[1], "linear_top1": first, "linear_class_mean": by_class}
        protocol = {
            "features": self.features,
            "knn": f"k={k}, temperature {neighbours.temperature:g}, cosine",
            "linear": f"logistic regression, weight decay {decay:g}{', standardised' if linear.standardize else ''}",
            "weight_decay": chosen,
            "converged": fitted.converged,
            "classes": classes,
            "train_samples": bank.total,
            "test_samples": asked.total,
            **bank.precision(),
        }
        return Measures({**figures}, protocol)

    def sentence(self, figures: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
        return (
            f"Transfer of {protocol['features']} features: kNN ({protocol['knn']}) {figures['knn_top1']:.1%}, linear "
            f"({protocol['linear']}) {figures['linear_top1']:.1%}, as a mean over classes "
            f"{figures['linear_class_mean']:.1%}, {protocol['train_samples']:,} to learn from, "
            f"{protocol['test_samples']:,} to evaluate on"
        )

    def _choose(self, bank: Features, spec: LinearSpec) -> tuple[float, str]:
        """The weight decay, and how it was chosen."""
        if len(self.decays) < 2:
            return (self.decays or (spec.weight_decay,))[0], "given"
        held = set(choose_labelled(bank.labels.tolist(), HELD_OUT, seed=0))
        rest = bank.select(bank.index[[at for at in range(len(bank)) if at not in held]])
        asked = bank.select(bank.index[sorted(held)])
        if not len(rest):
            raise ContralexError("decays: to choose one of several takes more training images; give one")
        reached = {decay: _accuracy(_fit(rest, spec, decay), asked)[0] for decay in self.decays}
        best = max(reached, key=lambda decay: reached[decay])
        return best, f"the best of {', '.join(f'{decay:g}' for decay in self.decays)} on {HELD_OUT:.0%} of the training"


def _fit(features: Features, spec: LinearSpec, decay: float) -> LinearClassifier:
    return fit_features(features, decay, standardize=spec.standardize, iterations=spec.iterations)


def _accuracy(fitted: LinearClassifier, features: Features) -> tuple[float, float]:
    """Over samples, and as a mean over the classes that there are."""
    classes = 1 + int(features.labels.max())
    right, all_ = torch.zeros(classes), torch.zeros(classes)
    for rows, truth in features.blocks(_ROWS):
        found: Tensor = fitted.classes[fitted.logits(rows).argmax(dim=1)].to(truth.device) == truth
        right += torch.bincount(truth[found], minlength=classes).cpu()
        all_ += torch.bincount(truth, minlength=classes).cpu()
    there = all_ > 0
    return float(right.sum() / all_.sum()), float((right[there] / all_[there]).mean())
