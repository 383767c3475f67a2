"""A method without the trainer, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from contralex import progress
from contralex.api.arguments import checked
from contralex.api.recipes import resolve
from contralex.api.settings import PathLike, Sets

if TYPE_CHECKING:
    from contralex.lookup.step import LookUp


@checked
def build(
    recipe: PathLike,
    *,
    preset: str | None = None,
    data: PathLike | None = None,
    sets: Sets = None,
    dataset_size: int | None = None,
    labels: Sequence[int] | None = None,
    allow_code: bool = False,
) -> LookUp:
    """The method of a recipe as a ``torch.nn.Module``, with random weights that depend on ``train.seed`` alone.

    ``dataset_size``: the number of samples of your own training set, with their ``labels`` if the method needs them;
    without it, the recipe's data are read for it. Called with views by number, the samples' indices and the step, it
    returns the loss; ``method.update`` belongs behind the optimiser's step.

    >>> import contralex, torch
    >>> method = contralex.build("moco-v2", preset="digits", dataset_size=64, sets={"method.negatives.size": 64})
    >>> step = contralex.Step(contralex.Clock(step=0, total=10, per_epoch=2), seed=0, batch=32)
    >>> views = {0: torch.rand(32, 3, 32, 32), 1: torch.rand(32, 3, 32, 32)}
    >>> found = method(views, torch.arange(32), step)
    >>> found.loss.backward()
    >>> method.update(found.keys, step)
    """
    from contralex.training import build as builder

    resolved = resolve(recipe, preset=preset, data=data, sets=sets, allow_code=allow_code)
    if dataset_size is None:
        with progress.listening("stderr"):
            split = builder.read_source(resolved.run.data).train()
        dataset_size, labels = len(split), split.labels
    return builder.look_up(resolved.run, dataset_size, labels)
