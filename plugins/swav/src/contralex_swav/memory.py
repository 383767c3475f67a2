"""A remembered embedding for each training sample, clustered as epochs begin: what both DeepClusters rest on."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import BuildContext, Dictionary, NegativeSource, Rows, Step

if TYPE_CHECKING:
    from contralex_swav.spec import Clustering


class Clustered(Dictionary):
    """A dictionary of clusters, head after head, of ``heads`` clusterings of the same samples.

    ``assigned`` (N, H): the cluster of each query's sample, -1 where it is not known; ``sizes`` (H, K): how many
    samples each cluster has.
    """

    def __init__(self, *, heads: int, assigned: Tensor, sizes: Tensor, **parts: Any) -> None:
        super().__init__(**parts)
        self.heads, self.assigned, self.sizes = heads, assigned, sizes


class Clusters(NegativeSource):
    """The last embedding of every key view of every sample, and the cluster of each in every head.

    Head h clusters the embeddings of key view h mod V. Memory is the same on every process, and each clusters all of
    it, by the same deterministic computation. It starts as random unit vectors; :mod:`contralex_swav.fill` puts
    real ones in their place before the first step of a run, and what it does not reach has no cluster.

    ``keeps_old``: a sample that was not seen since the last clustering takes part with what was remembered before;
    else it has no cluster, as an epoch's incomplete last batch has none.
    """

    keeps_old = True
    seen: Tensor
    epoch: Tensor
    assigned: Tensor
    sizes: Tensor

    def __init__(self, spec: Clustering, context: BuildContext, heads: int) -> None:
        super().__init__()
        self.count, self.heads, self.iterations, self.reassign = spec.count, heads, spec.iterations, spec.reassign
        self.views = context.key_views
        for view in self.views:
            start = F.normalize(torch.randn(context.dataset_size, context.dim), dim=1)
            self.register_buffer(f"memory_{view}", start.to(getattr(torch, spec.dtype)))
        self.register_buffer("seen", torch.ones(context.dataset_size, dtype=torch.bool))
        self.register_buffer("epoch", torch.tensor(-1))  # of the last clustering
        self.register_buffer("assigned", torch.full((heads, context.dataset_size), -1))
        self.register_buffer("sizes", torch.zeros(heads, spec.count, dtype=torch.long))

    @abstractmethod
    def cluster(self, head: int, points: Tensor, generator: torch.Generator) -> Tensor:
        """(N,) the cluster of each point (N, D)."""

    def memory(self, view: int) -> Tensor:
        return self.get_buffer(f"memory_{view}")

    def forget(self) -> None:
        self.seen.fill_(False)

    @torch.no_grad()
    def prepare(self, step: Step) -> None:
        last = int(self.epoch)
        if last >= 0 and step.clock.epoch < last + self.reassign:
            return
        self.epoch.fill_(step.clock.epoch)
        known = self.seen.nonzero().flatten()
        if not len(known):  # every step since was left out
            return
        generator = step.generator("contralex-swav")  # of an epoch's first step, and so of the epoch
        self.assigned.fill_(-1)
        with torch.autocast(self.seen.device.type, enabled=False):
            for head in range(self.heads):
                memory = self.memory(self.views[head % len(self.views)])
                places = self.cluster(head, memory if len(known) == len(memory) else memory[known], generator)
                self.assigned[head, known] = places
                self.sizes[head] = torch.bincount(places, minlength=self.count)
        if not self.keeps_old:
            self.forget()

    def update(self, keys: Rows, step: Step) -> None:
        for view in self.views:
            memory, fresh = self.memory(view), keys.of_view(view)
            memory[fresh.sample] = fresh.vectors.to(memory)
            self.seen[fresh.sample] = True
