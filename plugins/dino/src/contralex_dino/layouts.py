"""Whose names the published checkpoints of DINO have."""

from __future__ import annotations

from contralex.plugin import Adaptation, Layout, PublishedEncoder, Rename, rename_weight_norm


def _network(theirs: str, ours: str) -> list[Rename]:
    return [
        Rename(f"{theirs}/backbone.*", f"{ours}.backbone.*"),
        Rename(f"{theirs}/head.mlp.{{n}}.*", f"{ours}.projector.{{n}}.*"),
    ]


def _published(letter: str, name: str, patch: int) -> PublishedEncoder:
    """The teacher's backbone alone (hubconf.py)."""
    width, heads = {"s": (384, 6), "b": (768, 12)}[letter]
    backbone = {
        "kind": "vit",
        "patch": patch,
        "width": width,
        "depth": 12,
        "heads": heads,
        "any_size": True,
        "layer_scale": None,
        "feed_forward": "mlp",
        "frozen_patches": True,
    }
    return PublishedEncoder(
        name=f"dino-vit{letter}{patch}",
        file=f"dino_{name}{patch}_pretrain.pth",
        url=f"https://dl.fbaipublicfiles.com/dino/dino_{name}{patch}_pretrain/dino_{name}{patch}_pretrain.pth",
        recipes=("dino",),
        backbone=backbone,
    )


# The head is new. Some thousand images fill fewer prototypes, and some hundred steps need a teacher that moves.
_ADAPTATION = Adaptation(
    recipe="dino",
    settings={
        "method.negatives.count": 4096,
        "method.key_encoder.momentum": {"kind": "cosine", "start": 0.99, "end": 1.0},
        "method.targets.temperature": 0.04,
        "train.optimizer.lr": {"kind": "cosine", "start": 1e-4, "end": 1e-6, "warmup_epochs": 1},
        "train.optimizer.scaling": {"rule": "none"},
        "train.optimizer.weight_decay": 0.04,
        "train.optimizer.layer_decay": 0.75,
        "train.batch_norm": "local",
    },
    crops={
        "method.views.groups.globals.augment.crop.size": 1.0,
        "method.views.groups.second.augment.crop.size": 1.0,
        "method.views.groups.locals.augment.crop.size": 3 / 7,  # 96 of 224
    },
)

_SOURCE = "facebookresearch/dino, main_dino.py, vision_transformer.py"
LAYOUTS = [
    Layout(
        name="dino",
        source=_SOURCE,
        recipes=("dino",),
        renames=[
            *_network("student", "encoder"),
            *rename_weight_norm("student/head.last_layer", "negatives.layer"),
            *_network("teacher", "key_encoder.encoder"),
            *rename_weight_norm("teacher/head.last_layer", "key_encoder.twins.0"),
            Rename("dino_loss/center", "targets.centre", "reshaped"),
        ],
        published=[
            _published(letter, name, patch)
            for letter, name in (("s", "deitsmall"), ("b", "vitbase"))
            for patch in (16, 8)
        ],
        adaptations=[_ADAPTATION],
    ),
    Layout(
        name="dino-teacher",  # which DINO's own evaluation takes
        source=_SOURCE,
        recipes=("dino",),
        renames=[
            *_network("teacher", "encoder"),
            *rename_weight_norm("teacher/head.last_layer", "negatives.layer"),
        ],
        left_out={
            "student/*": "both sides begin as the teacher",
            "dino_loss/*": "the centre is found anew",
        },
    ),
]
