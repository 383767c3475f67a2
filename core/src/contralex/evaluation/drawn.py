"""Random views of samples through a frozen encoder: several of each, as training draws them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from contralex.data.base import Split, Unreadable
from contralex.data.loading import EvalDataset, mix_seed
from contralex.data.skipped import Skipped
from contralex.data.views import Views
from contralex.evaluation.base import EvalContext
from contralex.evaluation.encoding import encode_part, skip_everywhere
from contralex.evaluation.features import Which, feature_function
from contralex.lookup.slots import Encoder
from contralex.lookup.view import pixels_of


class DrawnViews(EvalDataset):
    """(index, ``draws`` random views of an item (q, ...)); the fault in place of an unreadable item.

    Draw number d of a sample is what training sees of it in epoch d.
    """

    def __init__(self, split: Split, views: Views, view: int, draws: int, seed: int) -> None:
        super().__init__(split, views)
        self.view, self.draws, self.seed = view, draws, seed

    def __getitem__(self, index: int) -> tuple[int, Tensor | Unreadable]:
        before = torch.random.get_rng_state()
        try:
            item = self.split[index]
            return index, torch.stack([self._make(item, index, draw) for draw in range(self.draws)])
        except Unreadable as fault:
            return index, fault
        finally:
            torch.random.set_rng_state(before)

    def _make(self, item: object, index: int, draw: int) -> Tensor:
        torch.default_generator.manual_seed(mix_seed(self.seed, draw, index, self.views.draw(self.view)))
        return pixels_of(self.views.make(item, self.view))


def find_view(split: Split, views: Views) -> int | None:
    """The first view that an encoder may take where it takes what evaluation sees: it has as many dimensions, and as
    many channels. None where none is such, or nothing can be read."""
    for index in range(min(len(split), 100)):
        for view in range(views.count):
            made = DrawnViews(split, views, view, 1, 0)[index][1]
            plain = EvalDataset(split, views)[index][1]
            if isinstance(made, Tensor) and isinstance(plain, Tensor) and made[0].shape[:-2] == plain.shape[:-2]:
                return view
        if isinstance(plain, Tensor):
            return None
    return None


def encode_draws(
    encoder: Encoder, split: Split, context: EvalContext, which: Which, view: int, draws: int, seed: int
) -> Iterator[Tensor]:
    """Features (B, q, F) of some samples at a time."""
    function = feature_function(encoder, which)
    dataset = DrawnViews(split, context.views, view, draws, seed)
    unread = Skipped()
    size = max(context.batch_size // draws, 1)

    batches = encode_part(_Together(function), dataset, range(len(dataset)), size, context.device, context.workers)
    for features, _, faults in batches:
        for fault in faults:
            unread.add(fault.path, fault.reason)
        if features is not None:
            yield features
    skip_everywhere(dataset, unread)


class _Together(torch.nn.Module):
    """(B, q, ...) to (B, q, F), all views as one batch."""

    def __init__(self, function: torch.nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, views: Tensor) -> Tensor:
        features = self.function(views.flatten(0, 1))
        return features.view(*views.shape[:2], -1)  # type: ignore[no-any-return]
