"""SwAV's codes: which prototypes a view should find, with every prototype found equally often in the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from contralex.plugin import BuildContext, Dictionary, Match, Rows, Step, TargetGenerator, Targets

if TYPE_CHECKING:
    from contralex_swav.spec import Sinkhorn


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Scores (B, K) to codes (B, K) that sum to 1 over prototypes and to B/K over samples (SwAV, Eqs. 3 to 5)."""
    scores = scores.float() / epsilon
    codes = torch.exp(scores - scores.max())  # the factor goes away in the first normalisation
    samples, prototypes = codes.shape
    codes = codes / codes.sum()
    for _ in range(iterations):
        codes = codes / codes.sum(dim=0, keepdim=True) / prototypes
        codes = codes / codes.sum(dim=1, keepdim=True) / samples
    return codes * samples


class SinkhornTargets(TargetGenerator):
    """The target of a query is the code of its sample's key view.

    Keys are gathered from every process before they come here, so the codes of the global batch are computed
    whole on each process, and the official all-reduce of row sums is not needed.
    """

    filled: Tensor

    def __init__(self, spec: Sinkhorn, context: BuildContext) -> None:
        super().__init__()
        self.epsilon, self.iterations = spec.epsilon, spec.iterations
        self.queue = spec.queue
        self.views = context.key_views
        if self.queue is not None:
            self.register_buffer("filled", torch.zeros((), dtype=torch.long))
            for view in self.views:
                self.register_buffer(f"queue_{view}", torch.zeros(self.queue.size, context.dim))

    def forward(self, queries: Rows, keys: Rows, dictionary: Dictionary, match: Match, step: Step) -> Targets:
        wanted = keys.of_view(match.key)
        name = ("sinkhorn", match.key)
        if name not in step.cache:  # one code for a key view, however many crops look it up
            step.cache[name] = self._codes(wanted, dictionary, match.key)
        return Targets(weights=step.cache[name][queries.partners_in(wanted)])

    @torch.no_grad()
    def _codes(self, keys: Rows, dictionary: Dictionary, view: int) -> Tensor:
        prototypes = dictionary.key_shared.float()
        vectors = keys.vectors
        if self.queue is not None and self.filled >= self.queue.size:
            vectors = torch.cat([self.get_buffer(f"queue_{view}"), vectors])  # scored by today's prototypes
        return sinkhorn(vectors @ prototypes.T, self.epsilon, self.iterations)[-len(keys) :]

    def update(self, keys: Rows, step: Step) -> None:
        if self.queue is None or step.clock.epoch < self.queue.start_epoch:
            return
        size = self.queue.size
        count = 0
        for view in self.views:
            queue, newest = self.get_buffer(f"queue_{view}"), keys.of_view(view).vectors[-size:]
            count = len(newest)
            places = (self.filled + torch.arange(count, device=queue.device)) % size
            queue[places] = newest.to(queue)
        self.filled += count  # how many were ever written: both the pointer and whether it is full
