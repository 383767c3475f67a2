"""``contralex finetune`` and ``contralex distill``: they write the spec that follows from a run's, and train it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contralex.plugin import commands, progress, train_resolved

FromLayer = Annotated[
    int | None,
    typer.Option(
        "--from-layer",
        min=0,
        help="How many layers of the projector stay below the classifier. Without it: the first, where there are "
        "several and not all labels are used.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(parser=commands.path, help="The run's folder. Without it: runs/NAME-TIME.", show_default=False),
]
Processes = Annotated[int, typer.Option(min=1, help="Processes to start, as for `contralex train`.")]


def finetune(
    run: Annotated[
        Path,
        typer.Argument(
            parser=commands.path, metavar="RUN", help="A run's folder, or one checkpoint's.", show_default=False
        ),
    ],
    labels: Annotated[
        float, typer.Option(help="The fraction of the labels to use, in (0, 1]; the same number of each class.")
    ] = 0.1,
    from_layer: FromLayer = None,
    data: commands.Data = None,
    epochs: commands.Epochs = None,
    sets: commands.Sets = None,
    out: Out = None,
    processes: Processes = 1,
    allow_code: commands.AllowCode = False,
) -> None:
    """Train a run's encoder as a classifier.

    It learns from some of the labels. The settings are SimCLR v2's where there are labels enough for its batches of
    1024, and SGD with small batches elsewhere. To train the same from random weights: --set init=null

    \b
    Examples:
      contralex finetune runs/mine --labels 0.1          on a tenth of the labels
      contralex finetune runs/mine --labels 1 --from-layer 0
      contralex finetune runs/mine --labels 0.01 --epochs 60
    """
    from contralex_simclr.resolving import resolve_finetuning

    progress.listen("stdout")
    commands.must_exist(run)
    resolved = resolve_finetuning(run, labels, from_layer, data, commands.with_epochs(sets, epochs), allow_code)
    train_resolved(resolved, out, processes, allow_code)


def distill(
    teacher: Annotated[
        Path,
        typer.Argument(
            parser=commands.path,
            metavar="TEACHER",
            help="The folder of a run that `contralex finetune` made, or one checkpoint's.",
            show_default=False,
        ),
    ],
    student: Annotated[
        str,
        typer.Option(
            help="The student: `self` for the teacher's backbone from random weights, a run whose encoder is trained "
            "further, or a recipe whose encoder starts from random weights."
        ),
    ] = "self",
    preset: Annotated[str | None, typer.Option(help="A preset of the student's recipe.", show_default=False)] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Divides both sides' logits. Without it: 0.1 for self, 1 for others.", show_default=False),
    ] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Teach the most likely class alone.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Leave images out whose most likely class has a lower probability.", show_default=False),
    ] = None,
    noisy: Annotated[
        bool, typer.Option("--noisy", help="Noisy Student: strong augmentation for the student, none for the teacher.")
    ] = False,
    alpha: Annotated[
        float,
        typer.Option(
            help="The weight of the teacher's answers, in (0, 1]. The labels that the teacher learned from have the "
            "rest."
        ),
    ] = 1.0,
    from_layer: FromLayer = None,
    data: commands.Data = None,
    epochs: commands.Epochs = None,
    sets: commands.Sets = None,
    out: Out = None,
    processes: Processes = 1,
    allow_code: commands.AllowCode = False,
) -> None:
    """Train a student on a fine-tuned run's answers.

    The student learns the probabilities that the teacher gives to all images. With --alpha below 1 it learns from
    labels as well.

    \b
    Examples:
      contralex distill runs/tuned                       into the same network
      contralex distill runs/tuned --student runs/small  into the encoder of a run
      contralex distill runs/tuned --student simclr-v1 --noisy --threshold 0.3
      contralex distill runs/tuned --alpha 0.7
    """
    from contralex_simclr.resolving import resolve_distillation

    progress.listen("stdout")
    commands.must_exist(teacher)
    resolved = resolve_distillation(
        teacher,
        student,
        preset,
        temperature,
        hard,
        threshold,
        noisy,
        alpha,
        from_layer,
        data,
        commands.with_epochs(sets, epochs),
        allow_code,
    )
    train_resolved(resolved, out, processes, allow_code)
