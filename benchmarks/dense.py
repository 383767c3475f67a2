"""What it costs that DenseCL is two look-ups and not one: time and memory of its look-ups, forward and backward.

A step of 256 images asks 256 queries of images and 256·49 of places, each about its own positive and a queue of 65,536
keys of 128 dimensions. Three forms give the same losses and gradients:

* ``contralex``: a look-up for each queue, as the recipe ``densecl`` has it.
* ``block mask``: one look-up of a dictionary that holds both queues, whose mask hides the other queue from each query.
  It is answered tile by tile, too.
* ``block mask, all scores``: the same with a matrix of all scores, as one would write it by hand. At full size it needs
  more memory than most machines have, so its bytes are computed from those of the smaller case: they grow with the
  scores.

The network, which is the same in all three, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measuring import OURS, Case, Options, Peers, Report, Spread, compare_calls, main, peak_bytes, time_calls
from contralex.plugin import Dictionary

MASKED, PLAIN = "block mask", "block mask, all scores"
TEMPERATURE = 0.2


@dataclass(frozen=True)
class Size:
    images: int
    places: int
    """Of an image."""
    entries: int
    """Of each queue."""
    dim: int = 128

    @property
    def queries(self) -> int:
        return self.images * (1 + self.places)

    @property
    def masked_scores(self) -> int:
        """With both queues, and the positive."""
        return self.queries * (1 + 2 * self.entries)

    def __str__(self) -> str:
        return f"{self.images}·{1 + self.places} queries, 2·{self.entries:,} entries"


TINY, FITTING, FULL = Size(4, 9, 256, 16), Size(64, 49, 4096), Size(256, 49, 65536)


class Asked:
    """Queries (N, D) of images, then of places; their positives (N, D); and both queues (M, D)."""

    def __init__(self, size: Size, device: str) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(rows: int) -> Tensor:
            return F.normalize(torch.randn(rows, size.dim, generator=generator), dim=1).to(device)

        self.size = size
        self.queries = draw(size.queries).requires_grad_()
        self.positives = draw(size.queries)
        self.queues = draw(size.entries), draw(size.entries)
        self.parts = slice(0, size.images), slice(size.images, size.queries)
        self.zeros = torch.zeros(size.queries, dtype=torch.long, device=device)

    def two_look_ups(self) -> Tensor:
        losses = []
        for rows, queue in zip(self.parts, self.queues, strict=True):
            dictionary = Dictionary(own=self.positives[rows].unsqueeze(1), stored=queue)
            losses.append(dictionary.cross_entropy(self.queries[rows], self.zeros[rows], TEMPERATURE).mean())
        return self._descend(torch.stack(losses).mean())

    def one_with_a_mask(self) -> Tensor:
        dictionary = Dictionary(own=self.positives.unsqueeze(1), stored=torch.cat(self.queues), mask=self._make_mask())
        return self._average(dictionary.cross_entropy(self.queries, self.zeros, TEMPERATURE))

    def all_scores(self) -> Tensor:
        own = (self.queries * self.positives).sum(dim=1, keepdim=True)
        scores = torch.cat([own, self.queries @ torch.cat(self.queues).T], dim=1)
        scores = scores.masked_fill(~self._make_mask(), float("-inf")) / TEMPERATURE
        return self._average(F.cross_entropy(scores, self.zeros, reduction="none"))

    def _make_mask(self) -> Tensor:
        """(N, 1+2M) which entries a query may find: its positive and its own queue."""
        mask = torch.zeros(self.size.queries, 1 + 2 * self.size.entries, dtype=torch.bool, device=self.queries.device)
        mask[:, 0] = True
        for number, rows in enumerate(self.parts):
            mask[rows, 1 + number * self.size.entries :][:, : self.size.entries] = True
        return mask

    def _average(self, losses: Tensor) -> Tensor:
        return self._descend(torch.stack([losses[rows].mean() for rows in self.parts]).mean())

    def _descend(self, loss: Tensor) -> Tensor:
        """The gradient (N, D) of the loss."""
        (gradient,) = torch.autograd.grad(loss, self.queries)
        return gradient


def measure(options: Options, report: Report, peers: Peers) -> None:
    size = TINY if options.small else FITTING
    asked = Asked(size, options.device)
    calls = {OURS: asked.two_look_ups, MASKED: asked.one_with_a_mask, PLAIN: asked.all_scores}
    case = compare_calls(str(size), calls, options, with_memory=True)
    case.figures["tensors of all scores that live at once in the last form"] = tensors_of_scores(case, size)
    report.add(case)
    if not options.small:
        del asked, calls
        report.add(_measure_once(FULL, case, options))


def tensors_of_scores(case: Case, size: Size) -> float:
    """How many matrices of float32 the form with all scores has at once, its mask among them."""
    return case.bytes[PLAIN] / (4 * size.masked_scores)


def _measure_once(size: Size, smaller: Case, options: Options) -> Case:
    """A case that takes long: one repetition after a warm-up. What does not fit is computed from the ``smaller``."""
    case = Case(str(size))
    asked = Asked(size, options.device)
    calls: dict[str, Callable[[], Tensor]] = {OURS: asked.two_look_ups, MASKED: asked.one_with_a_mask}
    for side, call in calls.items():
        case.bytes[side] = peak_bytes(call, options.device)
        case.seconds[side] = Spread.over([time_calls(call, 1, options.device)])
    case.ratios[MASKED] = Spread.over([case.seconds[OURS].median / case.seconds[MASKED].median])
    case.bytes[f"{PLAIN} (computed)"] = int(4 * size.masked_scores * tensors_of_scores(smaller, FITTING))
    return case


if __name__ == "__main__":
    main(__doc__ or "", "dense", measure)
