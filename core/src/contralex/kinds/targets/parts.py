"""The core's target generators: the sample itself, its key as a vector, its class, the class its teacher sees."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.kinds.datasets.labelled import choose_labelled
from contralex.lookup.clock import Schedule, value_at
from contralex.lookup.dictionary import Dictionary
from contralex.lookup.slots import TargetGenerator
from contralex.lookup.values import Match, Rows, Step, Targets


class InstanceTargets(TargetGenerator):
    """The index of the entry that stands for the query's own sample, in the matched view and at the same position
    (InstDisc, section 3.1).

    >>> import contralex
    >>> targets = contralex.InstanceTargets()
    """

    compares_samples = False

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        return Targets(index=dictionary.positives(queries, match))


class KeyVectorTargets(TargetGenerator):
    """The sample's own key (N, D), as a vector to regress on (BYOL, section 3.1; SimSiam, Algorithm 1)."""

    compares_samples = False

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        return Targets(vectors=keys.select_matching(queries, match).vectors)


class ClassLabelTargets(TargetGenerator):
    """The index of the entry of the sample's class (SimCLR v2, section 2, fine-tuning); with a ``share`` of the labels,
    weights (N, C) that are 1 there, and 0 everywhere for a sample whose label is none of these (Eq. 3).

    ``labels`` (M,): the class of each training sample, counted from 0; without a ``share`` every sample must have one.
    ``dim``: classes, which are as many as the queries have dimensions; None where the caller sees to that. ``share``,
    above 0 and at most 1, with ``seed``: the labels that data of kind ``labelled`` keep.
    """

    compares_samples = False

    labels: Tensor

    def __init__(
        self, labels: Tensor | None, dim: int | None = None, share: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        if labels is None or bool((labels < 0).all()):
            raise ContralexError(
                "method.targets of kind class_label needs labelled data, and these have no labels; use images in one "
                "folder for each class."
            )
        without = int((labels < 0).sum())
        if without and share is None:
            raise ContralexError(
                f"method.targets of kind class_label needs a label for every sample, and {without} of {len(labels)} "
                "have none; wrap the data, which leaves those out: data={kind: labelled, share: 1, of: ...}."
            )
        last = int(labels.max())
        if dim is not None and last >= dim:
            raise ContralexError(
                f"the data have a class {last}, counted from 0, and method.negatives {dim} classes; set "
                f"method.negatives.count, and the width of the encoder's last layer, to {last + 1}."
            )
        self.some = share is not None
        if share is not None:
            chosen = choose_labelled(labels.tolist(), share, seed)
            labels = torch.full_like(labels, -1).index_copy(0, torch.tensor(chosen), labels[chosen])
        self.register_buffer("labels", labels, persistent=False)  # they belong to the data, not to the run

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        label = self.labels[queries.sample]
        if not self.some:
            return Targets(index=label)
        classes = torch.arange(dictionary.size, device=label.device)
        return Targets(weights=(label.unsqueeze(1) == classes).to(queries.vectors.dtype))


class TeacherLogitsTargets(TargetGenerator):
    """P_T(y|x; τ): the softmax of the key's scores/τ, weights (N, C) over the classes (SimCLR v2, Eq. 2).

    ``temperature`` (τ, above 0) divides the teacher's logits. ``hard``: all weight on its first class (pseudo-labels).
    ``threshold``, between 0 and 1: the weights of a sample are 0 where its most likely class has less than this
    probability at temperature 1 (Noisy Student); None takes all samples.
    """

    compares_samples = False

    def __init__(self, temperature: float = 1.0, hard: bool = False, threshold: float | None = None) -> None:
        super().__init__()
        self.temperature, self.hard, self.threshold = temperature, hard, threshold

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        logits = dictionary.scores(keys.select_matching(queries, match).vectors)  # (N, C)
        weights = F.softmax(logits / self.temperature, dim=1)
        if self.hard:
            weights = torch.zeros_like(logits).scatter(1, logits.argmax(dim=1, keepdim=True), 1.0)
        if self.threshold is not None:
            sure = F.softmax(logits, dim=1).amax(dim=1, keepdim=True) >= self.threshold
            weights = weights * sure
        return Targets(weights=weights)


class KeySoftmaxTargets(TargetGenerator):
    """The key's own distribution over the entries, softmax(scores/τ), weights (N, M) (ReSSL, arXiv:2107.09282, Eqs. 2
    and 4); with ``sinkhorn`` iterations balanced over the batch, so that all entries are used alike (MSN,
    arXiv:2204.07141, section 3; code: msn_train.py, ``distributed_sinkhorn``).

    ``temperature`` (τ, above 0) divides the key's scores, and may be a schedule. MSN's softmax of .1, sharpened with
    T .25, is one of .025. ``sinkhorn``: 0 leaves the distributions as they are.
    """

    def __init__(self, temperature: float | Schedule, sinkhorn: int = 0) -> None:
        super().__init__()
        self.temperature, self.iterations = temperature, sinkhorn
        self.compares_samples = sinkhorn > 0

    @torch.no_grad()
    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        temperature = value_at(self.temperature, step.clock)
        if not self.iterations:
            scores = dictionary.scores(keys.select_matching(queries, match).vectors)
            return Targets(weights=F.softmax(scores / temperature, dim=1))
        everyone = keys.select_view(match.key)
        if match.key not in step.cache:  # several query views look one key view up
            weights = F.softmax(dictionary.scores(everyone.vectors) / temperature, dim=1)
            step.cache[match.key] = _balance(weights, self.iterations)
        return Targets(weights=step.cache[match.key][queries.with_view(match.key).index_in(everyone, same_view=True)])


def _balance(weights: Tensor, iterations: int) -> Tensor:
    """(N, M) distributions, of every process, such that each entry has nearly N/M of their weight (Sinkhorn-Knopp)."""
    for _ in range(iterations):
        weights = weights / weights.sum(dim=0).clamp(min=torch.finfo(weights.dtype).tiny)
        weights = weights / weights.sum(dim=1, keepdim=True)
    return weights
