"""SwAV's codes: which prototypes a view should find, with every prototype found equally often in the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from contralex.plugin import (
    Dictionary,
    HostMirror,
    Match,
    Rows,
    Step,
    TargetGenerator,
    Targets,
    at_least_float32,
    write_to_ring,
)
from contralex_swav.spec import CodeQueue


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Scores (B, K) to codes (B, K) that sum to 1 over prototypes and to B/K over samples (SwAV, Eqs. 3 to 5)."""
    scores = at_least_float32(scores) / epsilon
    codes = torch.exp(scores - scores.max())  # the factor goes away in the first normalisation
    samples, prototypes = codes.shape
    codes = codes / codes.sum()
    for _ in range(iterations):
        codes = codes / codes.sum(dim=0, keepdim=True) / prototypes
        codes = codes / codes.sum(dim=1, keepdim=True) / samples
    return codes * samples


class SinkhornTargets(TargetGenerator):
    """The target of a query is the code of its sample's key view.

    Keys are gathered from every process before they come here, so each process computes all codes of the global batch,
    and the official all-reduce of row sums is not needed.

    ``epsilon`` sharpens the codes, which ``iterations`` rounds of row and column normalisation make. ``queue``: earlier
    embeddings, of ``dim`` dimensions, of each of the ``key_views``, that codes are computed with; None: the batch's
    alone.
    """

    filled: Tensor

    def __init__(
        self,
        dim: int,
        key_views: tuple[int, ...],
        epsilon: float = 0.05,
        iterations: int = 3,
        queue: CodeQueue | None = None,
    ) -> None:
        super().__init__()
        self.epsilon, self.iterations = epsilon, iterations
        self.queue = queue
        self.views = key_views
        if self.queue is not None:
            self.register_buffer("filled", torch.zeros((), dtype=torch.long))
            self._written = HostMirror()
            for view in self.views:
                self.register_buffer(f"queue_{view}", torch.zeros(self.queue.size, dim))

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        wanted = keys.select_view(match.key)
        name: tuple[object, ...] = ("sinkhorn", match.key)
        if name not in step.cache:  # one code for a key view, however many crops look it up
            step.cache[name] = self._codes(wanted, dictionary, match.key)
        codes: Tensor = step.cache[name]
        rows = queries.find_slice_in(wanted)
        if rows is None:
            return Targets(weights=codes[queries.index_in(wanted)])
        name = (*name, rows.start, rows.stop)
        if name not in step.cache:  # and one target, of which what the crops share is known again
            step.cache[name] = Targets(weights=codes[rows])
        found: Targets = step.cache[name]
        return found

    @torch.no_grad()
    def _codes(self, keys: Rows, dictionary: Dictionary, view: int) -> Tensor:
        prototypes = at_least_float32(dictionary.key_shared)
        vectors = keys.vectors
        if self.queue is not None and self._written.read(self.filled)[0] >= self.queue.size:
            vectors = torch.cat([self.get_buffer(f"queue_{view}"), vectors])  # scored by today's prototypes
        return sinkhorn(vectors @ prototypes.T, self.epsilon, self.iterations)[-len(keys) :]

    def update(self, keys: Rows, step: Step) -> None:
        if self.queue is None or step.clock.epoch < self.queue.start_epoch:
            return
        before, written = self._written.read(self.filled)[0], 0
        for view in self.views:
            written = write_to_ring(self.get_buffer(f"queue_{view}"), keys.select_view(view).vectors, self.filled)
        self.filled += written  # how many were ever written: both the pointer and whether it is full
        self._written.remember(self.filled, [before + written])
