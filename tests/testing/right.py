"""A plugin that keeps to everything: a queue of its own, targets in it and a loss that needs them."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from contralex.plugin import Spec, hookimpl

RECIPES = {
    "right": """\
schema: 1
name: right
summary: A recipe.
method:
  views:
    kind: crops
    groups: {crops: {count: 2, augment: {order: [crop], crop: {size: 12, scale: [0.5, 1]}}}}
  encoder: {kind: image, backbone: {kind: conv, widths: [6, 8], strides: [2, 2]}}
  key_encoder: {kind: shared, gradient: true}
  negatives: {kind: recent}
  targets: {kind: smoothed, rest: 0.1}
  loss: {kind: smooth}
  matches: every
data: {kind: digits}
train: {epochs: 1, batch_size: 8, optimizer: {kind: sgd, lr: 0.05}}
presets:
  tiny: {train: {epochs: 1}}
""",
}


class Recent(Spec):
    """The query's own positive, then the keys of the last steps."""

    kind: Literal["recent"] = "recent"
    builds = ":make_recent"
    size: int = Field(12, gt=0, description="keys")
    gives = frozenset({"entries", "positive", "recent keys"})
    source = "MoCo, arXiv:1911.05722, section 3.2"


def make_recent(dim: Any, size: Any) -> Any:
    import torch

    from contralex.plugin import Dictionary, NegativeSource

    class Part(NegativeSource):
        kept: torch.Tensor

        def __init__(self, size: int) -> None:
            super().__init__()
            self.register_buffer("kept", torch.nn.functional.normalize(torch.randn(size, dim), dim=1))

        def forward(self, queries: Any, keys: Any, match: Any, step: Any) -> Any:
            own = keys.select_matching(queries, match).vectors.unsqueeze(1)
            step.cache["right"] = keys.vectors.detach()  # which update() finds in step.caches
            return Dictionary(own=own, shared=self.kept.clone())

        def update(self, keys: Any, step: Any) -> None:
            fresh = [cache["right"] for cache in step.caches]
            self.kept.copy_(torch.cat([*fresh, self.kept])[: len(self.kept)])

    return Part(size)


class Smoothed(Spec):
    """Most of the weight on the positive, and the rest spread over all other entries."""

    kind: Literal["smoothed"] = "smoothed"
    builds = ":make_smoothed"
    rest: float = Field(0.1, gt=0, lt=1)
    needs = {"negatives": frozenset({"recent keys"})}
    gives = frozenset({"smoothed weights"})
    source = "label smoothing: Szegedy et al., arXiv:1512.00567, section 7"


def make_smoothed(rest: Any) -> Any:
    import torch

    from contralex.plugin import TargetGenerator, Targets

    class Part(TargetGenerator):
        def forward(self, queries: Any, keys: Any, dictionary: Any, match: Any, step: Any) -> Any:
            weights = torch.full_like(dictionary.scores(queries.vectors.detach()), rest / len(dictionary.shared))
            weights[:, 0] = 1 - rest
            return Targets(weights=weights)

    return Part()


class Smooth(Spec):
    """Cross-entropy between the targets' distribution and the softmax of the scores."""

    kind: Literal["smooth"] = "smooth"
    builds = ":make_smooth"
    needs = {"targets": frozenset({"smoothed weights"}), "negatives": frozenset({"entries"})}
    source = "SwAV, arXiv:2006.09882, Eq. 2"


def make_smooth() -> Any:
    from contralex.plugin import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            log_p = (dictionary.scores(queries.vectors) / 0.2).log_softmax(dim=1)
            return -(targets.weights * log_p).sum(dim=1).mean()

    return Part()


@hookimpl
def contralex_negative_sources() -> list[type[Spec]]:
    return [Recent]


@hookimpl
def contralex_target_generators() -> list[type[Spec]]:
    return [Smoothed]


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Smooth]


@hookimpl
def contralex_recipes() -> Traversable:
    return Path(__file__).with_name("right_recipes")
