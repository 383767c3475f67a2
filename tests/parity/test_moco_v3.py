"""MoCo v3 equals an independent implementation, with a ResNet's head and with a Vision Transformer's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.lookup.step import LookUp
from tests.parity.test_methods import SAMPLE, B, embed, images, made, normal, same, step

HEAD = "[{width: 16, bias: false, norm: batch, activation: relu}, {width: 10, bias: false, norm: batch, affine: none}]"
VIT = (
    "method.encoder.backbone={kind: vit, image_size: 16, patch: 8, width: 12, depth: 2, heads: 2, positions: sincos, "
    "frozen_patches: true, init: xavier}"
)


def oracle(model: LookUp, views: dict[int, Tensor], temperature: float) -> Tensor:
    """Algorithm 1 of the paper, one query after the other; keys are constants."""
    encoder, total = model.encoder, torch.zeros(())
    teacher: Any = model.key_encoder.encoder
    for query, key in ((0, 1), (1, 0)):
        q = normal(encoder.predictor(embed(encoder, views[query])))
        with torch.no_grad():
            k = normal(embed(teacher, views[key]))
        for i in range(B):
            scores = torch.stack([q[i] @ k[j] for j in range(B)]) / temperature
            total = total + 2 * temperature * (torch.logsumexp(scores, 0) - scores[i]) / B
    return total


@pytest.mark.parametrize(
    ("recipe", "sets", "temperature"),
    [
        ("moco-v3", ("method.loss={temperature: 1.0, weight: 2.0}",), 1.0),
        ("moco-v3-vit", ("method.loss={temperature: 0.2, weight: 0.4}", VIT), 0.2),
    ],
)
def test_moco_v3(recipe: str, sets: tuple[str, ...], temperature: float) -> None:
    if "vit" in recipe:
        pytest.importorskip("timm")
    heads = (f"method.encoder.projector={HEAD}", f"method.encoder.predictor={HEAD}")
    # In float64, because BatchNorm over a few samples multiplies rounding.
    model, views = made(recipe, *sets, *heads).double(), {view: each.double() for view, each in images(2).items()}
    with torch.no_grad():  # at the start the key encoder equals the query encoder, which would hide which one is used
        for p in model.key_encoder.parameters():
            p.mul_(1.1)
    same(model, views, lambda: oracle(model, views, temperature))


def test_keys_move_by_the_schedule_and_carry_no_gradient() -> None:
    model, views = made("moco-v3", "method.key_encoder.momentum={kind: cosine, start: 0.9, end: 1.0}"), images(2)
    moment = step(50)  # half of the run, where the cosine is half way
    found = model(views, SAMPLE, moment)
    found.loss.backward()
    assert all(p.grad is None for p in model.key_encoder.parameters())
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    teacher: Any = model.key_encoder.encoder
    before = [p.clone() for p in teacher.parameters()]
    model.update(found.keys, moment)
    online = list(model.encoder.parameters())
    for mine, old, new in zip(teacher.parameters(), before, online, strict=True):
        torch.testing.assert_close(mine, 0.95 * old + 0.05 * new)
