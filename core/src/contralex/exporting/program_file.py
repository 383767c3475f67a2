"""A file of ``torch.export``: the network as a graph, which torch opens without its Python code."""

from __future__ import annotations

from pathlib import Path

import torch

from contralex.exporting.formats import Written
from contralex.exporting.original import Kept, Original

_TOLERANCE = 1e-5


def write(original: Original, folder: Path, file: str) -> Written:
    program = torch.export.export(
        Kept(original.backbone).eval(), (original.images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
    )
    torch.export.save(program, folder / file)
    model = torch.export.load(folder / file).module()
    with torch.inference_mode():
        for images in (original.images[:1], original.images):  # any number of images
            features = model(images)
    return Written(
        original.compare(features, _TOLERANCE, "the exported program"),
        'import torch\nmodel = torch.export.load("{path}").module()\nfeatures = model(images)',
        "pytorch",
        "torch",
        f"It takes any number of images of {original.images.shape[3]} x {original.images.shape[2]} pixels.",
    )
