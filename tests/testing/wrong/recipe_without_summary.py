"""The recipe does not say what it is."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from pathlib import Path

from contralex.plugin import hookimpl

FAILS = "resolves"
REASON = r"it has no summary"
RECIPES = {
    "recipe_without_summary": """\
schema: 1
name: recipe_without_summary
method:
  views:
    kind: crops
    groups: {crops: {count: 2, augment: {order: [crop], crop: {size: 12, scale: [0.5, 1]}}}}
  encoder: {kind: image, backbone: {kind: conv, widths: [6, 8], strides: [2, 2]}}
  key_encoder: {kind: shared, gradient: true}
  negatives: {kind: none}
  targets: {kind: key_vector}
  loss: {kind: cosine}
  matches: every
data: {kind: digits}
train: {epochs: 1, batch_size: 8, optimizer: {kind: sgd, lr: 0.05}}
presets:
  tiny: {train: {epochs: 1}}
""",
}


@hookimpl
def contralex_recipes() -> Traversable:
    return Path(__file__).with_name("recipe_without_summary_recipes")
