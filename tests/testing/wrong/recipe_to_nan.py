"""The loss overflows after the first step, so that a run of the recipe ends in NaN."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from contralex.plugin import Spec, hookimpl

FAILS = "trains"
REASON = r"nan"
RECIPES = {
    "recipe_to_nan": """\
schema: 1
name: recipe_to_nan
summary: A recipe.
method:
  views:
    kind: crops
    groups: {crops: {count: 2, augment: {order: [crop], crop: {size: 12, scale: [0.5, 1]}}}}
  encoder: {kind: image, backbone: {kind: conv, widths: [6, 8], strides: [2, 2]}}
  key_encoder: {kind: shared, gradient: true}
  negatives: {kind: none}
  targets: {kind: key_vector}
  loss: {kind: until_nan}
  matches: every
data: {kind: digits}
train: {epochs: 1, batch_size: 8, optimizer: {kind: sgd, lr: 0.05}}
presets:
  tiny: {train: {epochs: 1}}
""",
}


class Wrong(Spec):
    """Two minus two cosines, until the third step."""

    kind: Literal["until_nan"] = "until_nan"
    builds = ":make_part"
    needs = {"targets": frozenset({"vectors"}), "negatives": frozenset({"no entries"})}
    source = "made up"


def make_part() -> Any:
    from torch.nn import functional as F

    from contralex.lookup.slots import Loss

    class Part(Loss):
        def forward(self, queries: Any, dictionary: Any, targets: Any, step: Any) -> Any:
            loss = (2 - 2 * F.cosine_similarity(queries.vectors, targets.vectors, dim=1)).mean()
            return loss * float("nan") if step.clock.step == 2 else loss

    return Part()


@hookimpl
def contralex_losses() -> list[type[Spec]]:
    return [Wrong]


@hookimpl
def contralex_recipes() -> Traversable:
    return Path(__file__).with_name("recipe_to_nan_recipes")
