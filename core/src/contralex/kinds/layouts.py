"""Whose names the published weights of backbones have: those of torchvision and timm, which are our backbones' own."""

from __future__ import annotations

from contralex.plugins.layouts import Layout, Rename

_CLASSIFIERS = ("fc.*", "classifier.*", "head.*", "heads.*", "head_drop.*")
LAYOUTS = [
    Layout(
        name="backbone",
        source="torchvision.models and timm, and whoever saves a model of theirs",
        renames=[Rename("*", "encoder.backbone.*")],
        left_out=dict.fromkeys(_CLASSIFIERS, "a classifier or head, of which the recipe has its own"),
    ),
]
