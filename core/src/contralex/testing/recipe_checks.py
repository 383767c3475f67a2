"""Checks on a plugin's recipes."""

from __future__ import annotations

import math
import tempfile
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from contralex.recipes.documents import chain
from contralex.recipes.layers import resolve, resolve_data
from contralex.testing import matching_parts
from contralex.testing.check_errors import Failed, NotApplicable
from contralex.testing.plugin_contents import RecipeFile

_STEPS, _BATCH = 3, 8


def resolves(recipe: RecipeFile) -> None:
    """The recipe is valid as it is and with each of its presets, says what it is, and has a stable digest."""
    presets = {name for layer in chain(recipe.name) for name in layer.presets}
    for preset in (None, *sorted(presets)):
        found = resolve(recipe.name, preset=preset)
        again = resolve_data(found.data)
        if again.digest != found.digest:
            raise Failed(f"read again, its text has another digest (preset {preset})")
    if not found.run.summary:
        raise Failed("it has no summary, which `contralex methods` shows")


def trains(recipe: RecipeFile) -> None:
    """Three steps of a real run on a tiny data set end with finite losses and a checkpoint that can be opened."""
    from contralex.training.build import load_encoder
    from contralex.training.run import train

    preset = matching_parts.find_small_preset(recipe.name)
    if preset is None:
        raise NotApplicable("it has no preset `tiny` or `digits` that would make it small")
    steps = [f"train.max_steps={_STEPS}", f"train.epochs={_STEPS}"]  # an epoch of a tiny set may have one step
    small = [*steps, f"train.batch_size={_BATCH}", "train.batch_norm=sync", "train.precision=fp32"]
    quiet = ["train.workers=0", "train.log_every=1", "train.trackers=[]", "eval.knn=null", "eval.linear=null"]
    found = resolve(recipe.name, preset=preset, sets=[*small, *quiet])
    with tempfile.TemporaryDirectory() as folder:
        data: dict[str, Any] = {**found.data}
        with suppress(NotApplicable):  # then the preset's own data, if they are at hand
            data["data"] = matching_parts.write_tiny_data(found.run.data, str(Path(folder) / "data")).model_dump(
                mode="json"
            )
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # a check says what it found, and no more
            results = train(resolve_data(data), Path(folder) / "run")
        if results["steps"] != _STEPS or not math.isfinite(results["last_loss"]):
            raise Failed(f"after {results['steps']} steps of {_STEPS} the loss is {results['last_loss']}")
        load_encoder(Path(folder) / "run")
