"""Multi-crop on recipes that have none: a group of small crops that look the large ones up, and are no keys."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from contralex.lookup.step import LookUp
from contralex.recipes.layers import resolve
from contralex.training.run import train
from tests.train.tiny import TINY

MULTI_CROP = [
    "method.views.groups.locals={count: 3, key: false, like: crops, crop: {size: 16, scale: [0.2, 0.5]}}",
    "method.matches=every",
]


@pytest.mark.parametrize("recipe", ["moco-v2", "simclr-v1"])
def test_any_recipe_trains_with_small_crops(
    recipe: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[tuple[int, int]] = set()
    sizes: dict[int, int] = {}
    encode = LookUp.encode

    def watched(self: LookUp, views, sample, step):  # type: ignore[no-untyped-def]
        asked.update((match.query, match.key) for match in self.matches)
        sizes.update({view: images.shape[-1] for view, images in views.items()})
        return encode(self, views, sample, step)

    monkeypatch.setattr(LookUp, "encode", watched)
    few = ["method.negatives.size=24", "train.batch_norm=4"] if recipe == "moco-v2" else []
    resolved = resolve(recipe, preset="digits", data=str(images), sets=[*TINY, *MULTI_CROP, *few])
    train(resolved, tmp_path / "run")

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) >= 4 and all(math.isfinite(loss) for loss in losses)
    assert sizes == {0: 32, 1: 32, 2: 16, 3: 16, 4: 16}
    globals_, locals_ = {(0, 1), (1, 0)}, {(small, large) for small in (2, 3, 4) for large in (0, 1)}
    assert asked == globals_ | locals_
