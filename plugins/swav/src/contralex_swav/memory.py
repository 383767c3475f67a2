"""A remembered embedding for each training sample, clustered as epochs begin: what both DeepClusters rest on."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.plugin import Dictionary, HostMirror, NegativeSource, Rows, Step, StoredIn


class ClusterDictionary(Dictionary):
    """A dictionary of clusters, head after head, of ``heads`` clusterings of the same samples.

    ``assigned`` (N, H): the cluster of each query's sample, -1 where it is not known; ``sizes`` (H, K): how many
    samples each cluster has.
    """

    def __init__(self, *, heads: int, assigned: Tensor, sizes: Tensor, **parts: Any) -> None:
        super().__init__(**parts)
        self.heads, self.assigned, self.sizes = heads, assigned, sizes


class ClusterMemory(NegativeSource):
    """The last embedding of every key view of every sample, and the cluster of each in every head.

    Head h clusters the embeddings of key view h mod V. Memory is the same on every process, and each clusters all of
    it, by the same deterministic computation. It starts as random unit vectors; :mod:`contralex_swav.initial_memory`
    puts real ones in their place before the first step of a run, and what it does not reach has no cluster.

    ``count`` clusters of each of ``heads`` heads are found by ``iterations`` rounds of k-means, every ``reassign``
    epochs. ``dtype``: what embeddings (``dataset_size`` of them, of ``dim`` dimensions, for each of ``key_views``) are
    remembered in.

    ``keeps_old``: a sample that was not seen since the last clustering takes part with what was remembered before;
    else it has no cluster, as an epoch's incomplete last batch has none.
    """

    keeps_old = True
    seen: Tensor
    epoch: Tensor
    assigned: Tensor
    sizes: Tensor

    def __init__(
        self,
        count: int,
        dim: int,
        dataset_size: int,
        key_views: tuple[int, ...],
        heads: int,
        iterations: int,
        reassign: int = 1,
        dtype: StoredIn = "float32",
    ) -> None:
        super().__init__()
        self.count, self.heads, self.iterations, self.reassign = count, heads, iterations, reassign
        self.views = key_views
        for view in self.views:
            start = F.normalize(torch.randn(dataset_size, dim), dim=1)
            self.register_buffer(f"memory_{view}", start.to(getattr(torch, dtype)))
        self.register_buffer("seen", torch.ones(dataset_size, dtype=torch.bool))
        self.register_buffer("epoch", torch.tensor(-1))  # of the last clustering
        self._known_epoch = HostMirror()
        self.register_buffer("assigned", torch.full((heads, dataset_size), -1))
        self.register_buffer("sizes", torch.zeros(heads, count, dtype=torch.long))

    @abstractmethod
    def cluster(self, head: int, points: Tensor, generator: torch.Generator) -> Tensor:
        """(N,) the cluster of each point (N, D)."""

    def memory(self, view: int) -> Tensor:
        """(dataset_size, dim) the remembered embeddings of a key view."""
        return self.get_buffer(f"memory_{view}")

    def forget(self) -> None:
        """Take every sample for unseen."""
        self.seen.fill_(False)

    @torch.no_grad()
    def prepare(self, step: Step) -> None:
        last = int(self._known_epoch.read(self.epoch)[0])
        if last >= 0 and step.clock.epoch < last + self.reassign:
            return
        self.epoch.fill_(step.clock.epoch)
        self._known_epoch.remember(self.epoch, [step.clock.epoch])
        known = self.seen.nonzero().flatten()
        if not len(known):  # every step since was left out
            return
        generator = step.generator("contralex-swav")  # of an epoch's first step, and so of the epoch
        self.assigned.fill_(-1)
        with torch.autocast(self.seen.device.type, enabled=False):
            for head in range(self.heads):
                memory = self.memory(self.views[head % len(self.views)])
                clusters = self.cluster(head, memory if len(known) == len(memory) else memory[known], generator)
                self.assigned[head, known] = clusters
                self.sizes[head] = torch.bincount(clusters, minlength=self.count)
        if not self.keeps_old:
            self.forget()

    def update(self, keys: Rows, step: Step) -> None:
        for view in self.views:
            memory, fresh = self.memory(view), keys.select_view(view)
            memory[fresh.sample] = fresh.vectors.to(memory)
            self.seen.index_fill_(0, fresh.sample, True)
