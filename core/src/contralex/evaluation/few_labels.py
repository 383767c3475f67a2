"""Few labels on frozen features: a fraction of them, episodes of a few classes, and SVMs on a few images of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex import progress
from contralex.data.base import Split
from contralex.data.loading import mix_seed
from contralex.errors import ContralexError, remedy

COSTS = (0.01, 0.1)  # VISSL's defaults.yaml, SVM.costs.costs_list


@dataclass(frozen=True)
class Episodes:
    """``mean`` accuracy in [0, 1] and the half width of its 95 % ``interval``, over ``count`` episodes."""

    mean: float
    interval: float
    count: int


@torch.no_grad()
def few_shot(
    features: Tensor, labels: Tensor, *, ways: int, shots: int, queries: int, episodes: int, seed: int = 0
) -> Episodes:
    """Accuracy of the nearest class mean, over random episodes, on (N, F) features with labels (N,).

    An episode draws ``ways`` classes, and of each ``shots`` samples to learn from and ``queries`` others to classify.
    Features are unit vectors, and a query has the class whose mean is nearest: SimpleShot's L2N (Wang et al., 2019,
    arXiv:1911.04623, section 3). The interval is 1.96 · deviation / √episodes, as that of Vinyals et al., 2016 and all
    after them.
    """
    units = F.normalize(features.cpu(), dim=1)
    members = [(labels.cpu() == label).nonzero().flatten() for label in labels.unique().tolist()]
    members = [each for each in members if len(each) >= shots + queries]
    if len(members) < ways:
        raise ContralexError(
            f"episodes of {ways} classes with {shots} + {queries} images each: {len(members)} classes have as many. "
            f"Try fewer:{remedy('--queries', max(1, queries // 2))}"
        )
    accuracy = torch.empty(episodes, dtype=torch.float64)
    for number in progress.steps("Episodes", range(episodes), episodes):
        draw = torch.Generator().manual_seed(mix_seed(seed, ways, shots, number))
        chosen = torch.randperm(len(members), generator=draw)[:ways].tolist()
        each = [members[way][torch.randperm(len(members[way]), generator=draw)[: shots + queries]] for way in chosen]
        rows = units[torch.stack(each)]  # (ways, shots + queries, F)
        means = rows[:, :shots].mean(dim=1)  # (ways, F)
        nearest = torch.cdist(rows[:, shots:].flatten(0, 1), means).argmin(dim=1).view(ways, queries)
        accuracy[number] = (nearest == torch.arange(ways)[:, None]).double().mean()
    spread = float(accuracy.std()) if episodes > 1 else float("nan")
    return Episodes(float(accuracy.mean()), 1.96 * spread / math.sqrt(episodes), episodes)


def draw_shots(labels: Tensor, shots: int, seed: int) -> Tensor:
    """The indices of ``shots`` samples of each class, or of all that a class has; sorted."""
    drawn = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=torch.Generator().manual_seed(mix_seed(seed, shots, label)))
        drawn.append(members[order[:shots]])
    return torch.cat(drawn).sort().values


def low_shot_svm(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, costs: Sequence[float] = COSTS
) -> dict[float, float]:
    """The mean average precision over classes of one SVM each, by its cost C.

    As VISSL trains them (vissl/utils/svm_utils/svm_low_shot_trainer.py): features over their length + 1e-5, squared
    hinge loss, positives weighted twice, at most 2000 iterations. Average precision is scikit-learn's.
    """
    try:
        from sklearn.metrics import average_precision_score
        from sklearn.svm import LinearSVC
    except ImportError:
        raise ContralexError(
            "SVMs come with scikit-learn, which is not installed:" + remedy("pip", "install", "contralex[digits]")
        ) from None
    if len(train_labels.unique()) < 2:
        raise ContralexError("svm: the training images have one class alone, and an SVM tells one class from others")
    inputs, asked = (_scale(features) for features in (train, test))
    labels, truth = train_labels.cpu().numpy(), test_labels.cpu().numpy()
    classes = [label for label in np.unique(labels) if (truth == label).any()]
    found = {}
    for cost in costs:
        precisions = []
        for label in classes:
            machine = LinearSVC(
                C=cost,
                class_weight={1: 2, -1: 1},
                loss="squared_hinge",
                penalty="l2",
                tol=1e-4,
                dual=True,
                max_iter=2000,
                random_state=0,
            )
            machine.fit(inputs, np.where(labels == label, 1, -1))
            precisions.append(average_precision_score(truth == label, machine.decision_function(asked)))
        found[float(cost)] = float(np.mean(precisions))
    return found


def subset_by_file(split: Split, file: Path) -> list[int]:
    """The indices of the samples that a list names, one file in a line, as the official ImageNet lists of SimCLR do
    (``n01440764_10074.JPEG``). A name that the data do not have is refused."""
    try:
        names = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ContralexError(f"--subset {file}: it cannot be read ({reason})") from None
    where = {Path(split.item_name(index)).name: index for index in range(len(split))}
    missing = [name for name in names if Path(name).name not in where]
    if missing or not names:
        what = f"{missing[0]} and {len(missing) - 1:,} others of its {len(names):,}" if missing else "a single line"
        raise ContralexError(f"--subset {file}: the training images do not have {what}; give the data that it is of")
    return sorted({where[Path(name).name] for name in names})


def _scale(features: Tensor) -> Any:
    rows = features.cpu().double()
    return (rows / (rows.norm(dim=1, keepdim=True) + 1e-5)).numpy()
