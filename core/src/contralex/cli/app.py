"""The commands and their help. Nothing here imports torch; ``train`` and ``eval`` do, once the spec is good."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from importlib import metadata
from typing import Annotated

import typer

from contralex.cli import (
    adapt,
    check,
    compare,
    doctor,
    embed,
    evaluate,
    explain,
    export,
    fork,
    import_weights,
    inspect,
    look,
    measure,
    new,
    plugins,
    report,
    run,
    runs,
    schema,
    search,
    views,
)
from contralex.cli.plugin_commands import EvalCommands, WithPlugins


def examples(*lines: str) -> str:
    """An epilog. The \\b keeps the lines as they are, where the help would flow them into a paragraph."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    name="contralex",
    cls=WithPlugins,
    help="Contrastive learning: a method is one spec of parts that plugins bring.",
    epilog=examples(
        "contralex methods                                 what is installed",
        "contralex train moco-v2 --data photos             on a folder of your own",
        "contralex train moco-v2 --preset digits --processes 2",
        "contralex diff moco-v1 moco-v2                    what MoCo v2 changed",
        "contralex eval knn runs/moco-v2-20250101-120000   how good it is",
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
evaluation = typer.Typer(
    cls=EvalCommands,
    help="Evaluate the encoder of a run.\n\nA plugin's evaluator is called by its name too: contralex eval NAME RUN.",
    epilog=examples("contralex eval knn runs/my-run", "contralex eval linear runs/my-run"),
    no_args_is_help=True,
    rich_markup_mode=None,
)
installed = typer.Typer(
    epilog=examples(
        "contralex plugins",
        "contralex plugins show contralex-moco   one of them, and why it fails",
        "CONTRALEX_PLUGINS=-contralex-swav contralex plugins",
    ),
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"contralex {metadata.version('contralex')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


TRAIN, USE, RECIPES = "Train", "Evaluate and use", "Look at recipes"
PARTS, MACHINE = "Plugins and your own parts", "This machine"

# The order here is that of the help.
app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        "contralex train moco-v2 --preset digits",
        "contralex train moco-v2 --data photos --preset photos --fit --out runs/mine",
        "contralex train mine.yaml --processes 8",
        "contralex train --resume --out runs/mine",
        "torchrun --nproc_per_node 2 -m contralex train moco-v2 --preset digits",
    ),
)(run.train)
app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        "contralex compare moco-v2 simclr-v1 byol --preset digits",
        "contralex compare all --preset digits --out runs/all",
        "contralex compare moco-v2 mine.yaml --preset digits --epochs 40 --seed 1",
        "contralex compare moco-v2 byol --preset digits --seeds 0,1,2",
        "contralex compare moco-v2 --preset digits --set train.epochs=20,40",
        "contralex compare all --preset digits --out runs/all --resume",
    ),
)(compare.compare)
app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        "contralex adapt dinov2-vits14 --data photos",
        "contralex adapt dinov2-vitb14-reg --data photos --weights vitb14_reg4.pth",
        "contralex adapt timm/vit_tiny_patch16_224 --data photos --weights FILE",
        "contralex adapt --resume --out runs/my-adaptation",
    ),
)(adapt.adapt)
app.command(
    rich_help_panel=TRAIN,
    epilog=examples(
        "contralex fork runs/mine@100 --set method.loss.temperature=0.1",
        "contralex fork runs/mine@100 --set train.optimizer.lr=0.01 --steps 50",
        "contralex fork runs/mine@100   unchanged: is it equal to the bit?",
    ),
)(fork.fork)
evaluation.command(
    epilog=examples(
        "contralex eval knn runs/mine",
        "contralex eval knn runs/mine/checkpoints/step-1000 --set eval.knn.k=20",
        "contralex eval knn runs/mine --data cifar10 --json",
    )
)(evaluate.knn)
_linear = examples(
    "contralex eval linear runs/mine",
    "contralex eval linear runs/mine --set eval.linear.weight_decay=1e-2",
    "contralex eval linear runs/mine --protocol moco-v2",
    "contralex eval linear runs/mine --protocol swav --no-crops --rates 0.1,1,10",
    "contralex eval linear runs/mine --data cifar10 --json",
)
evaluation.command(epilog=_linear)(evaluate.linear)
app.command(epilog=_linear, hidden=True)(evaluate.linear)  # an alias
evaluation.command(
    epilog=examples(
        "contralex eval classify runs/tuned",
        "contralex eval classify runs/tuned --data photos --json",
    )
)(evaluate.classify)
evaluation.command(
    epilog=examples(
        "contralex eval quality runs/mine",
        "contralex eval quality runs/mine --data photos --features embedding",
        "contralex eval quality runs/mine --draws 50 --json",
    )
)(measure.quality)
evaluation.command(
    epilog=examples(
        "contralex eval retrieval runs/mine",
        "contralex eval retrieval runs/mine --data cifar10 --gallery train",
        "contralex eval retrieval runs/mine --recall 1,2,4,8 --json",
    )
)(measure.retrieval)
evaluation.command(
    "few-label",
    epilog=examples(
        "contralex eval few-label runs/mine",
        "contralex eval few-label runs/mine --data imagenet --subset 1percent.txt",
        'contralex eval few-label runs/mine --fractions "" --shots "" --svm 1,4,16',
    ),
)(measure.few_label)
evaluation.command(
    epilog=examples(
        "contralex eval transfer runs/mine --to cifar10,dtd --root data",
        "contralex eval transfer runs/mine --to flowers102 --download",
        "contralex eval transfer runs/mine --decays 1e-4,1e-3,1e-2 --json",
    )
)(measure.transfer)
evaluation.command(
    epilog=examples(
        "contralex eval segmentation runs/mine --data voc",
        "contralex eval segmentation runs/mine --data voc --positions 500000 --json",
    )
)(measure.segmentation)
app.add_typer(evaluation, name="eval", rich_help_panel=USE)
app.command(
    rich_help_panel=USE,
    epilog=examples(
        "contralex report runs/mine",
        "contralex report runs/one runs/two --out both.html",
        "contralex report runs/mine --data photos --images 500",
    ),
)(report.report)
app.command(
    rich_help_panel=USE,
    epilog=examples(
        "contralex embed runs/mine photos --out features.safetensors",
        "contralex embed runs/mine photos --out features.parquet --which embedding",
    ),
)(embed.embed)
app.command(
    rich_help_panel=USE,
    epilog=examples(
        "contralex export runs/mine --to timm --out my-model",
        "contralex export runs/mine --to torchvision --out resnet50.safetensors",
        "contralex export runs/mine --to onnx --out encoder.onnx",
    ),
)(export.export)
app.command(
    "import",
    rich_help_panel=USE,
    epilog=examples(
        "contralex import moco_v2_800ep.pth.tar --as moco-v2 --dry-run",
        "contralex import moco_v2_800ep.pth.tar --as moco-v2 --out runs/moco-v2",
        "contralex import resnet50.pth --as simclr-v1 --out runs/begin",
    ),
)(import_weights.import_weights)
app.command(
    rich_help_panel=USE,
    epilog=examples(
        "contralex runs",
        "contralex runs runs/compare-20250101-120000 --sort knn",
        "contralex runs --json",
    ),
)(runs.runs)
app.command(
    rich_help_panel=USE,
    epilog=examples(
        "contralex search runs/mine cat.jpg --in photos",
        "contralex search runs/mine a.jpg b.jpg --in photos -k 20 --picture found.png",
        "contralex search runs/mine cat.jpg --in photos --json",
    ),
)(search.search)
app.command(
    rich_help_panel=USE,
    epilog=examples(
        "contralex cluster runs/mine photos",
        "contralex cluster runs/mine photos --clusters 12 --picture clusters.html",
        "contralex cluster runs/mine photos --by hdbscan --min-size 10 --json",
    ),
)(search.cluster)
app.command(
    rich_help_panel=USE,
    epilog=examples(
        "contralex duplicates runs/mine photos",
        "contralex duplicates runs/mine photos --threshold 0.98 --picture found.png",
        "contralex duplicates runs/mine photos --json",
    ),
)(search.duplicates)
app.command(
    rich_help_panel=USE,
    epilog=examples(
        "contralex inspect runs/mine",
        "contralex inspect runs/mine/checkpoints/step-1000 --tensors",
        "contralex inspect runs/mine --json",
    ),
)(inspect.inspect)
app.command(rich_help_panel=RECIPES, epilog=examples("contralex methods", "contralex methods --json"))(look.methods)
app.command(
    rich_help_panel=RECIPES,
    epilog=examples(
        "contralex show moco-v2",
        "contralex show moco-v2 --preset digits --set method.loss.temperature=0.1",
        "contralex show moco-v2 > mine.yaml   a recipe of your own to begin with",
    ),
)(look.show)
app.command(
    rich_help_panel=RECIPES,
    epilog=examples(
        "contralex diff moco-v1 moco-v2",
        "contralex diff moco-v2 mine.yaml",
        "contralex diff runs/a/spec.yaml runs/b/spec.yaml",
    ),
)(look.diff)
app.command(
    rich_help_panel=RECIPES,
    epilog=examples(
        "contralex explain moco-v2",
        "contralex explain moco-v2 --svg moco-v2.svg         as a picture",
    ),
)(explain.explain)
app.command(
    rich_help_panel=RECIPES,
    epilog=examples(
        "contralex views moco-v2 --data photos --preset photos",
        "contralex views dino --preset digits --out views.html",
        "contralex views mine.yaml --set method.views.groups.crops.augment.gray.p=1",
    ),
)(views.views)
app.command(
    rich_help_panel=RECIPES,
    epilog=examples(
        "contralex why moco-v2 method.loss.temperature",
        "contralex why moco-v2 method.encoder                every value of a block",
        "contralex why moco-v2 train --preset digits --set train.epochs=5",
    ),
)(look.why)
app.command(
    rich_help_panel=RECIPES,
    epilog=examples(
        "contralex schema --out contralex.schema.json   beside your recipes",
    ),
)(schema.schema)
installed.callback(invoke_without_command=True)(plugins.plugins)
installed.command(
    epilog=examples(
        "contralex plugins show contralex-moco",
        "contralex plugins show --kind targets.key_vector   fields and bounds",
        "contralex plugins show contralex-moco --json",
    )
)(plugins.show)
app.add_typer(installed, name="plugins", rich_help_panel=PARTS)
app.command(
    rich_help_panel=PARTS,
    epilog=examples(
        "contralex new my-method   targets and a loss of its own, and a recipe",
        "contralex new my-loss --as loss --out ~/code/my-loss",
        "contralex new my-net --as encoder,negatives,loss   one recipe uses all three",
    ),
)(new.new)
app.command(
    rich_help_panel=PARTS,
    epilog=examples(
        "contralex check contralex-moco",
        "contralex check contralex-mine --only two_equal_one",
        "contralex check contralex-mine --json",
    ),
)(check.check)
app.command(
    rich_help_panel=MACHINE,
    epilog=examples(
        "contralex doctor",
        "contralex doctor runs/mine   has it collapsed, does it stand still?",
        "contralex doctor --json",
    ),
)(doctor.doctor)


def narrow(words: Sequence[str]) -> typer.Typer:
    """The app for this command line: with the one command of ours that its first word names, or with all of them.

    typer makes the options of every command that an app has, which takes longer than most commands take to answer.
    """
    name = words[0] if words else ""
    commands = [command for command in app.registered_commands if _name(command) == name]
    groups = [group for group in app.registered_groups if group.name == name]
    if not commands and not groups:
        return app
    narrowed = copy(app)
    narrowed.registered_commands, narrowed.registered_groups = commands, groups
    return narrowed


def _name(command: typer.models.CommandInfo) -> str | None:
    """As typer calls a command."""
    return command.name or (command.callback.__name__.replace("_", "-") if command.callback else None)
