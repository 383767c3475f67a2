"""The command ``contralex eval zero-shot``. Imports no torch until it is called."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from contralex.plugin import ContralexError, commands, progress


def zero_shot(
    checkpoint: commands.Checkpoint,
    classes: Annotated[
        Path | None,
        typer.Option(
            parser=commands.path,
            help="A file of class names, a line each, in the order of the labels.",
            show_default=False,
        ),
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(
            parser=commands.path,
            help="A file of sentences, a line each, in which {} stands for the class. A class is their mean.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Other labelled images: a folder, or a kind such as cifar10.", show_default=False),
    ] = None,
    sets: commands.Sets = None,
    allow_code: commands.AllowCode = False,
    as_json: commands.Json = False,
) -> None:
    """Classify images by the names of their classes.

    The run must have been trained on captions.

    \b
    Examples:
      contralex eval zero-shot runs/clip
      contralex eval zero-shot runs/clip --data photos --classes names.txt
    """
    commands.must_exist(checkpoint)
    progress.listen("stderr")
    names, sentences = _lines(classes, "--classes"), _lines(templates, "--templates")

    from contralex_clip.zero_shot import zero_shot as evaluate

    results = evaluate(checkpoint, data, sets or [], names, sentences, allow_code=allow_code)
    if as_json:
        commands.print_json({who: asdict(result) for who, result in results.items()})
        return
    rows = [[who, f"{result.top1:.1%}", f"{result.top5:.1%}"] for who, result in results.items()]
    commands.print_table(["encoder", "top1", "top5"], rows)
    protocol = next(iter(results.values())).protocol
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
