"""Whose names the published weights of backbones have: those of torchvision and timm, which are our backbones' own, and
those of DINOv2."""

from __future__ import annotations

from contralex.plugins.layouts import Layout, Rename

_CLASSIFIERS = ("fc.*", "classifier.*", "head.*", "heads.*", "head_drop.*")
# Of its blocks' layers, ours have timm's names.
_BLOCK = {"mlp.w12.*": "mlp.fc1.*", "mlp.w3.*": "mlp.fc2.*", "*": "*"}
_DINOV2 = {
    **{f"blocks.{{_}}.{{n}}.{theirs}": f"blocks.{{n}}.{ours}" for theirs, ours in _BLOCK.items()},
    **{f"blocks.{{n}}.{theirs}": f"blocks.{{n}}.{ours}" for theirs, ours in _BLOCK.items()},
    "register_tokens": "reg_token",
    **{name: name for name in ("cls_token", "pos_embed", "mask_token", "patch_embed.*", "norm.*")},
}
LAYOUTS = [
    Layout(
        name="backbone",
        source="torchvision.models and timm, and whoever saves a model of theirs",
        renames=[Rename("*", "encoder.backbone.*")],
        left_out=dict.fromkeys(_CLASSIFIERS, "a classifier or head, of which the recipe has its own"),
    ),
    Layout(
        name="dinov2",
        source="facebookresearch/dinov2, dinov2/models/vision_transformer.py: published backbones, and those of its "
        "training, whose blocks lie in chunks",
        renames=[
            Rename(f"{where}{theirs}", f"encoder.backbone.{ours}")
            for where in ("", "teacher/backbone.")
            for theirs, ours in _DINOV2.items()
        ],
        left_out={
            "mask_token": "the recipe hides no patches",
            "teacher/dino_head.*": "a head, of which the recipe has its own",
            "teacher/ibot_head.*": "a head, of which the recipe has its own",
        },
        inside=("model", "state_dict"),
        note="A backbone of DINOv2 is of kind vit with a layer_scale, and perhaps registers and feed_forward: swiglu.",
    ),
]
