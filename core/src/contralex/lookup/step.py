"""Learning as looking a query up in a dictionary of keys: the values that flow, and the step.

Every method of contralex is this one step with other parts in its five slots. Nothing here knows a
method; nothing in a method's plugin repeats what is here.

The convention on several processes: each process computes the mean loss over *its own* queries against
keys from *every* process. A gather whose backward sums over the processes, followed by the mean that
DistributedDataParallel takes, then gives exactly the gradient that one process would give for the
whole batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from contralex.lookup.slots import Encoder, KeyEncoder, Loss, NegativeSource, TargetGenerator
from contralex.lookup.values import Dictionary, Found, Match, Rows, Step, Targets
from contralex.lookup.whole_state import sharded_buffers


class LookUp(nn.Module):
    """A method: the five slots, and the one step that joins them."""

    def __init__(
        self,
        encoder: Encoder,
        key_encoder: KeyEncoder,
        negatives: NegativeSource,
        targets: TargetGenerator,
        loss: Loss,
        matches: Sequence[Match],
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.key_encoder = key_encoder
        self.negatives = negatives
        self.targets = targets
        self.loss = loss
        self.matches = tuple(matches)
        self.added = len(self.matches) if reduction == "sum" else 1  # losses, in the loss of a step
        # In the order of the views: BatchNorm's running statistics end on the last view that is encoded, which in the
        # official codes is the last of the sample's.
        self.query_views = tuple(sorted({match.query for match in matches}))
        self.key_views = tuple(sorted({match.key for match in matches}))
        apart = list(sharded_buffers(self))
        if apart:  # where DistributedDataParallel broadcasts buffers, all would get the part of the first process
            self._ddp_params_and_buffers_to_ignore = apart

    def forward(self, views: Mapping[int, Tensor], sample: Tensor, step: Step) -> Found:
        queries, keys = self.encode(views, sample, step)
        return self.look_up(queries, keys, step)

    def encode(self, views: Mapping[int, Tensor], sample: Tensor, step: Step) -> tuple[Rows, Rows]:
        """The expensive half: this process's queries, and the keys of every process."""
        self.negatives.prepare(step)
        online = self.query_views
        if self.key_encoder.reads_queries:  # the same embedding serves both sides, so encode each view once
            online = tuple(sorted({*self.query_views, *self.key_views}))
        embedded = self.encoder({view: views[view] for view in online})
        found = self.encoder.queries({view: embedded[view] for view in self.query_views})
        queries = Rows.cat([Rows.of(v, sample, view, at) for view, (v, at) in found.items()])
        key_inputs = {view: views[view] for view in self.key_views}
        keys = self.key_encoder(self.encoder, key_inputs, embedded, sample, step)
        return queries, keys.gather(gradient=self.key_encoder.gradient)

    def look_up(self, queries: Rows, keys: Rows, step: Step) -> Found:
        """The cheap half, in float32: every query view looks its key view up."""
        losses, hits = [], []
        with torch.autocast(queries.vectors.device.type, enabled=False):
            queries = replace(queries, vectors=queries.vectors.float())
            keys = replace(keys, vectors=keys.vectors.float())
            for match in self.matches:
                asked = queries.of_view(match.query)
                dictionary = self.negatives(asked, keys, match, step)
                targets = self.targets(asked, keys, dictionary, match, step)
                losses.append(self.loss(asked, dictionary, targets, step))
                with torch.no_grad():
                    hits.append(_found(asked, keys, dictionary, targets, match))
        total = torch.stack(losses).sum() / (len(losses) / self.added)
        return Found(total, torch.stack(hits).mean(), keys.detach(), dictionary.size)

    @torch.no_grad()
    def update(self, keys: Rows, step: Step) -> None:
        """What changes after the optimiser's step, once: the key encoder, the dictionary, the targets' state.

        The dictionary is written *after* the look-up; before it, the positive would be among the negatives.
        """
        self.key_encoder.update(step)
        self.negatives.update(keys, step)
        self.targets.update(keys, step)


def _found(queries: Rows, keys: Rows, dictionary: Dictionary, targets: Targets, match: Match) -> Tensor:
    """The share of queries whose best-scoring entry is the one that they should find."""
    if targets.has_weights:  # of several that are wanted most, any will do
        best = dictionary.scores(queries.vectors).argmax(dim=1, keepdim=True)
        wanted = targets.weights.gather(1, best).squeeze(1)
        most = targets.weights.max(dim=1).values  # 0: this query is to find nothing
        return ((wanted >= most) & (most > 0)).float().mean()
    if targets.has_vectors:  # regression: is the sample's own key the nearest of the batch's keys?
        matched = keys.of_view(match.key)
        normal = nn.functional.normalize
        asked, entries = normal(queries.vectors, dim=1), normal(matched.vectors, dim=1)
        place = queries.places_in(matched, same_view=False)
        places = int((matched.sample == matched.sample[0]).sum())
        if places == 1:
            scores = asked @ entries.T
        else:  # of its own sample's keys alone: all patches against all patches would be larger than the network
            asked = asked.unflatten(0, (-1, int((queries.sample == queries.sample[0]).sum())))  # (B, Q, D)
            own = entries.unflatten(0, (-1, places))[place.view(asked.shape[:2])[:, 0] // places]  # (B, P, D)
            scores, place = (asked @ own.mT).flatten(0, 1), place % places
    else:
        scores, place = dictionary.scores(queries.vectors), targets.index
    return (scores.argmax(dim=1) == place).float().mean()
