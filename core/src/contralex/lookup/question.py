"""A question of a method: which entry of a dictionary each of its queries should find."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contralex.lookup.clock import Schedule
from contralex.lookup.dictionary import Dictionary
from contralex.lookup.names import IMAGE
from contralex.lookup.slots import Loss, NegativeSource, TargetGenerator
from contralex.lookup.twins import Twins
from contralex.lookup.values import Answer, Match, Rows, Step, Targets


class Question(nn.Module):
    """One look-up of a method: a dictionary, what should be found in it, and how wrong it was.

    ``matches``: which query view looks up which key view. ``reduction``: ``mean`` or ``sum`` over them. ``weight``:
    multiplies its loss, a number or a schedule. ``of``: the output of the encoder whose rows are looked up.
    """

    negatives: NegativeSource
    targets: TargetGenerator
    loss: Loss

    def __init__(
        self,
        negatives: NegativeSource,
        targets: TargetGenerator,
        loss: Loss,
        matches: Sequence[Match],
        reduction: str = "mean",
        weight: float | Schedule = 1.0,
        of: str = IMAGE,
    ) -> None:
        super().__init__()
        self._hold(negatives, targets, loss, matches, reduction, weight, of)

    def _hold(
        self,
        negatives: NegativeSource,
        targets: TargetGenerator,
        loss: Loss,
        matches: Sequence[Match],
        reduction: str,
        weight: float | Schedule,
        of: str,
    ) -> None:
        self.negatives = negatives
        self.targets = targets
        self.loss = loss
        self.matches = tuple(matches)
        self.loss_scale = len(self.matches) if reduction == "sum" else 1  # times the mean over the matches
        self.weight = weight
        self.of = of
        # In the order of the views: BatchNorm's running statistics end on the last view that is encoded, which in the
        # official codes is the last of the sample's.
        self.query_views = tuple(sorted({match.query for match in matches}))
        self.key_views = tuple(sorted({match.key for match in matches}))
        # Three products score the entries, forward and backward, for each view or for each match; where for each view,
        # two more average them for each target.
        more = 3 * (len(self.matches) - len(self.query_views))
        self.shares_answers = more > 2 * len(self.key_views)
        self.reads = tuple(dict.fromkeys(name for part in self.parts for name in part.reads if name != of))

    @property
    def parts(self) -> tuple[NegativeSource, TargetGenerator, Loss]:
        return self.negatives, self.targets, self.loss

    @property
    def compares_samples(self) -> bool:
        """Whether a query, or a statistic of it, meets the keys of other samples."""
        return any(part.compares_samples for part in self.parts)

    def ask(self, queries: Rows, keys: Rows, twins: Twins | None, step: Step) -> Answer:
        """Every query view looks its key view up. ``queries`` and ``keys`` are in at least
        float32, of this question's views."""
        step.output = self.of
        losses, hits = [], []
        for match in self.matches:
            asked = queries.select_view(match.query)
            dictionary = self.negatives(asked, keys, match, step)
            if twins is not None:
                dictionary.meet_twins(asked.vectors, twins)
            if self.shares_answers:
                dictionary.share_answers(step.cache)
            targets = self.targets(asked, keys, dictionary, match, step)
            losses.append(self.loss(asked, dictionary, targets, step))
            with torch.no_grad():
                hits.append(_measure_accuracy(asked, keys, dictionary, targets, match))
        total = _divide(add(losses), len(losses) / self.loss_scale)
        return Answer(total, _divide(add(hits), len(hits)), dictionary.size, keys, self.loss_scale)

    def follow_step(self, queries: Rows, keys: Rows, step: Step) -> None:
        """Update the state of its parts, once, after the optimiser's step."""
        for part in self.parts:
            part.follow(queries, keys, step)


def add(numbers: Sequence[Tensor]) -> Tensor:
    """The sum of scalars, in few operations where they are few."""
    if len(numbers) > 2:
        return torch.stack(list(numbers)).sum()
    return numbers[0] if len(numbers) == 1 else numbers[0] + numbers[1]


def _divide(number: Tensor, divisor: float) -> Tensor:
    return number if divisor == 1 else number / divisor


def _measure_accuracy(queries: Rows, keys: Rows, dictionary: Dictionary, targets: Targets, match: Match) -> Tensor:
    """The fraction of queries whose best-scoring entry is the one that they should find, a scalar."""
    if targets.has_weights:  # of several that are wanted most, any will do
        wanted = targets.tiled_weights.at(dictionary.find_best(queries.vectors))
        most = targets.tiled_weights.largest()  # 0: this query is to find nothing
        return ((wanted >= most) & (most > 0)).float().mean()
    if targets.has_vectors:  # regression: is the sample's own key the nearest of the batch's keys?
        matched = keys.select_view(match.key)
        normal = nn.functional.normalize
        asked, entries = normal(queries.vectors, dim=1), normal(matched.vectors, dim=1)
        index = queries.find_in(matched, same_view=False)
        per_sample = matched.per_sample
        if per_sample == 1:
            scores = asked @ entries.T
        else:  # of its own sample's keys alone: all patches against all patches would be larger than the network
            asked = asked.unflatten(0, (-1, queries.per_sample))  # (B, Q, D)
            its_sample = index.view(asked.shape[:2]).amax(dim=1) // per_sample  # of a query that has a key
            own = entries.unflatten(0, (-1, per_sample))[its_sample]  # (B, P, D)
            scores, index = (asked @ own.mT).flatten(0, 1), torch.where(index >= 0, index % per_sample, -1)
        return (scores.argmax(dim=1) == index).float().mean()
    return dictionary.finds(queries.vectors, targets.index).float().mean()
