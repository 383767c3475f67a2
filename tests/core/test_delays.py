"""What counts from the beginning of a run, beside how long the run is."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from contralex import resolve
from contralex.plugins.registry import registry
from contralex.recipes import delays
from contralex.recipes.documents import chain
from contralex.training.run import train


def warnings(recipe: str, *sets: str, preset: str | None = None, epochs: float | None = None) -> list[str]:
    run = resolve(recipe, preset=preset, sets=sets).run
    return delays.too_long(run, run.train.epochs if epochs is None else epochs)


def test_no_recipe_warns_of_its_own_settings() -> None:
    for recipe in registry().recipes():
        presets = {name for parent in chain(recipe) for name in parent.presets}
        for preset in (None, *presets):
            assert warnings(recipe, preset=preset) == [], (recipe, preset)


@pytest.mark.parametrize(
    ("recipe", "sets", "sentence"),
    [
        (
            "simclr-v1",
            ["train.epochs=5"],
            "train.optimizer.lr.warmup_epochs is 10, which is more than the 5 epochs of this run: until then the value "
            "is still warming up.",
        ),
        (
            "dino",
            ["train.epochs=5"],
            "train.optimizer.groups.0.frozen_epochs is 1, which is 20% of the 5 epochs of this run: until then "
            "negatives.layer.* does not move.",
        ),
        (
            "dino",
            ["train.epochs=20"],
            "method.targets.temperature.epochs is 29, which is more than the 20 epochs of this run: the end of the "
            "line is never reached.",
        ),
        (
            "swav-small-batch",
            ["train.epochs=15"],
            "method.targets.queue.start_epoch is 15, which is all of the 15 epochs of this run: until then the queue "
            "is empty and codes are the batch's.",
        ),
        (
            "moco-v1",
            ["train.epochs=150"],
            "train.optimizer.lr.at.1 is 160, which is more than the 150 epochs of this run: the value never "
            "changes there.",
        ),
    ],
)
def test_what_takes_too_much_of_a_run_is_said_with_what_fits(recipe: str, sets: list[str], sentence: str) -> None:
    (found,) = [each for each in warnings(recipe, *sets) if each.startswith(sentence[:40])]
    said, remedy = found.split("\n")
    assert said == f"{sentence} Train for longer, or try:"
    option, setting = shlex.split(remedy)
    assert option == "--set"
    assert not [each for each in warnings(recipe, *sets, setting) if each.startswith(sentence[:40])]


def test_a_run_that_ends_before_its_epochs_do_is_as_long_as_its_steps() -> None:
    assert warnings("dino", epochs=50) == []
    assert [each.split(" ")[0] for each in warnings("dino", epochs=5)] == [
        "method.targets.temperature.epochs",
        "train.optimizer.lr.warmup_epochs",
        "train.optimizer.groups.0.frozen_epochs",
    ]


def test_prototypes_move_after_the_first_epoch_of_any_data(tmp_path: Path) -> None:
    sets = (
        "method.encoder.backbone={kind: conv, widths: [4, 8], strides: [2, 2]}",
        "method.negatives.count=10",
        "train.batch_size=479",  # 3 steps an epoch
        "train.epochs=2",
        "train.workers=0",
        "train.precision=fp32",
        "train.checkpoint={every_steps: 1, keep_last: 6}",
        "eval={knn: null}",
    )
    results = train(resolve("swav", preset="digits", sets=sets), tmp_path)
    (warning,) = [each for each in results["warnings"] if "frozen_epochs" in each]
    assert "frozen_epochs is 1, which is 50% of the 2 epochs" in warning
    saved = [load_file(tmp_path / f"checkpoints/step-{step}/model.safetensors") for step in range(1, 7)]
    first, *later = [F.normalize(tensors["negatives.layer.weight"], dim=1) for tensors in saved]
    moved = [not torch.allclose(first, weights, atol=1e-6) for weights in later]
    assert moved == [False, False, True, True, True]
