"""Whose names checkpoints of BYOL in PyTorch have. The official code is JAX."""

from __future__ import annotations

from contralex.plugin import Layout, Rename

LAYOUTS = [
    Layout(
        name="byol-pytorch",
        source="lucidrains/byol-pytorch, byol_pytorch.py",
        recipes=("byol",),
        renames=[
            Rename("online_encoder.net.*", "encoder.backbone.*"),
            Rename("online_encoder.projector.*", "encoder.projector.*"),
            Rename("online_predictor.*", "encoder.predictor.*"),
            Rename("target_encoder.net.*", "key_encoder.encoder.backbone.*"),
            Rename("target_encoder.projector.*", "key_encoder.encoder.projector.*"),
        ],
        left_out={
            "net.*": "the same tensors as those of online_encoder.net",
            "online_encoder.net.fc.*": "the classifier",
            "target_encoder.net.fc.*": "the classifier",
        },
        note=(
            "The last layers of that code's MLPs have biases, which the paper's code has not: "
            "--set 'method.encoder.projector=[{width: 4096, norm: batch, activation: relu}, {width: 256}]', and the "
            "same for method.encoder.predictor."
        ),
    ),
]
