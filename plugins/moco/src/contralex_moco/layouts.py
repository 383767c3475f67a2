"""Whose names the published checkpoints of MoCo have."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

LAYOUTS = [
    Layout(
        name="moco",
        source="facebookresearch/moco, moco/builder.py",
        recipes=("moco-v1",),
        renames=[
            *(
                rename
                for theirs, ours in (("encoder_q", "encoder"), ("encoder_k", "key_encoder.encoder"))
                for rename in (
                    Rename(f"{theirs}.fc.{{n}}.*", f"{ours}.projector.{{n}}.*"),  # v2
                    Rename(f"{theirs}.fc.*", f"{ours}.projector.0.*"),  # v1
                    Rename(f"{theirs}.*", f"{ours}.backbone.*"),
                )
            ),
            Rename("queue", "negatives.vectors", "transposed"),
            Rename("queue_ptr", "negatives.pointer", "reshaped"),
        ],
        note="A queue of another size begins with random keys where it is not read: --skip 'queue*'.",
    ),
    Layout(
        name="moco-v3",
        source="facebookresearch/moco-v3, moco/builder.py",
        recipes=("moco-v3",),
        renames=[
            *(
                rename
                for theirs, ours in (("base_encoder", "encoder"), ("momentum_encoder", "key_encoder.encoder"))
                for rename in (
                    Rename(f"{theirs}.fc.{{n}}.*", f"{ours}.projector.{{n}}.*"),  # ResNets
                    Rename(f"{theirs}.head.{{n}}.*", f"{ours}.projector.{{n}}.*"),  # ViTs
                    Rename(f"{theirs}.*", f"{ours}.backbone.*"),
                )
            ),
            Rename("predictor.*", "encoder.predictor.*"),
        ],
    ),
]
