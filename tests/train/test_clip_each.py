"""A run whose gradients are clipped, all together or each parameter's by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from contralex.recipes.layers import resolve
from contralex.training import build
from contralex.training.build import load_encoder
from contralex.training.run import train
from tests.train.tiny import TINY

CLIP = 0.01
SGD = "train.optimizer={kind: sgd, lr: 1.0, momentum: 0, weight_decay: 0, scaling: {rule: none}, groups: []}"
SETS = (*TINY, "train.epochs=1", "train.max_steps=1", f"train.clip={CLIP}", SGD)


@pytest.mark.parametrize("each", [False, True])
def test_a_step_is_as_long_as_clip_says(each: bool, tmp_path: Path, images: Path) -> None:
    sets = [*SETS, f"train.clip_each={str(each).lower()}"]
    resolved = resolve("simclr-v1", preset="digits", data=str(images), sets=sets)
    train(resolved, tmp_path / "run")
    ended = load_encoder(str(tmp_path / "run"))
    began = build.encoder(resolved.run)
    moved: list[Tensor] = [(p - q).detach().norm() for p, q in zip(ended.parameters(), began.parameters(), strict=True)]
    longest = [float(one) for one in moved]
    if each:
        assert max(longest) == pytest.approx(CLIP, rel=1e-3)
        assert sum(one > 0.9 * CLIP for one in longest) > 1
    else:
        assert sum(one**2 for one in longest) ** 0.5 == pytest.approx(CLIP, rel=1e-3)
