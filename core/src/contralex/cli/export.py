"""``contralex export``: the encoder of a run for another library."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from contralex import progress
from contralex.cli.options import AllowCode, Checkpoint, Json, path, print_json


class To(StrEnum):
    TIMM = "timm"
    TORCHVISION = "torchvision"
    TRANSFORMERS = "transformers"
    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"


def export(
    run: Checkpoint,
    to: Annotated[To, typer.Option(help="The library or the format.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            parser=path,
            metavar="PATH",
            help="The folder to write, or a file: .safetensors or .pth, .onnx, .pt2.",
            show_default=False,
        ),
    ],
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Write the backbone for another library.

    It is opened again and compared with the encoder before it is put in its place. A card and the transform of images
    lie beside it.
    """
    from contralex.api import exporting

    progress.listen("stderr")
    made = exporting.export(run, to.value, out, allow_code=allow_code)
    if as_json:
        print_json(made.to_dict())
    else:
        typer.echo(made)
