"""Whose names the published checkpoints of DINO have."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

_GAIN, _DIRECTION = (f"parametrizations.weight.original{part}" for part in (0, 1))


def _last_layer(theirs: str, ours: str) -> list[Rename]:
    """Of torch's weight norm as it was, and as a parametrisation."""
    return [
        Rename(f"{theirs}.weight_g", f"{ours}.{_GAIN}"),
        Rename(f"{theirs}.weight_v", f"{ours}.{_DIRECTION}"),
        Rename(f"{theirs}.parametrizations.*", f"{ours}.parametrizations.*"),
    ]


def _network(theirs: str, ours: str) -> list[Rename]:
    return [
        Rename(f"{theirs}/backbone.*", f"{ours}.backbone.*"),
        Rename(f"{theirs}/head.mlp.{{n}}.*", f"{ours}.projector.{{n}}.*"),
    ]


_SOURCE = "facebookresearch/dino, main_dino.py, vision_transformer.py"
LAYOUTS = [
    Layout(
        name="dino",
        source=_SOURCE,
        recipes=("dino",),
        renames=[
            *_network("student", "encoder"),
            *_last_layer("student/head.last_layer", "negatives.layer"),
            *_network("teacher", "key_encoder.encoder"),
            *_last_layer("teacher/head.last_layer", "key_encoder.twins.0"),
            Rename("dino_loss/center", "targets.centre", "reshaped"),
        ],
    ),
    Layout(
        name="dino-teacher",  # which DINO's own evaluation takes
        source=_SOURCE,
        recipes=("dino",),
        renames=[
            *_network("teacher", "encoder"),
            *_last_layer("teacher/head.last_layer", "negatives.layer"),
        ],
        left_out={
            "student/*": "both sides begin as the teacher",
            "dino_loss/*": "the centre is found anew",
        },
    ),
]
