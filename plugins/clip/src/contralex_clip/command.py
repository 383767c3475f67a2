"""The command ``contralex zero-shot``. Imports no torch until it is called."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from contralex.cli.options import AllowCode, Checkpoint, Json, Sets, must_exist, path, print_json, print_table
from contralex.plugin import ContralexError, progress


def zero_shot(
    checkpoint: Checkpoint,
    classes: Annotated[
        Path | None,
        typer.Option(
            parser=path, help="A file of the classes' names, a line each, in the order of labels.", show_default=False
        ),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            parser=path,
            help="A file of sentences, a line each, in which {} stands for the class; their mean counts.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Other labelled images: a folder, or a kind such as cifar10.", show_default=False),
    ] = None,
    sets: Sets = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Classify images by the names of their classes, with a checkpoint that was trained on captions."""
    must_exist(checkpoint)
    progress.listen("stderr")
    names, sentences = _lines(classes, "--classes"), _lines(templates, "--templates")

    from contralex_clip.zero_shot import zero_shot as judge

    found = judge(checkpoint, data, sets or [], names, sentences, allow_code=allow_code)
    if as_json:
        print_json({who: asdict(result) for who, result in found.items()})
        return
    print_table(
        ["encoder", "top1", "top5"], [[who, f"{each.top1:.1%}", f"{each.top5:.1%}"] for who, each in found.items()]
    )
    protocol = next(iter(found.values())).protocol
    typer.echo("zero-shot: " + ", ".join(f"{name} {value}" for name, value in protocol.items()))


def _lines(path: Path | None, option: str) -> list[str] | None:
    if path is None:
        return None
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ContralexError(f"{option} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not lines:
        raise ContralexError(f"{option} {path} has no lines")
    return lines
