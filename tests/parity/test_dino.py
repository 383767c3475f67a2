"""DINO equals an independent implementation, in loss, gradients, centre and teacher, over several steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.lookup.step import LookUp
from tests.parity.test_methods import SAMPLE, B, embed, equal, images, made, normal, same, step

COUNT, STUDENT, TEACHER = 12, 0.1, 0.05
SETS = (
    f"method.negatives.count={COUNT}",
    f"method.targets.temperature={TEACHER}",
    "method.key_encoder.momentum=0.7",
    "train.clip=null",
    "train.clip_each=false",
)
VIT = "method.encoder.backbone={kind: vit, image_size: 16, patch: 8, width: 12, depth: 2, heads: 2, any_size: true}"


def crops() -> dict[int, Tensor]:
    """Two large crops and two small ones."""
    return {**images(2), **{view + 2: small for view, small in images(2, size=8).items()}}


def weights(layer: Any) -> tuple[Tensor, Tensor]:
    """(K, D) the directions v, and (K, 1) their gains g."""
    return layer.parametrizations.weight.original1, layer.parametrizations.weight.original0


def prototypes(layer: Any) -> Tensor:
    v, g = weights(layer)
    return torch.stack([g[k] * v[k] / v[k].pow(2).sum().sqrt() for k in range(COUNT)])


def scores(encoder: Any, layer: Any, views: dict[int, Tensor]) -> dict[int, Tensor]:
    """Of each crop (B, K). BatchNorm of the backbone sees crops of one size, and that of the head all crops."""
    features = [encoder.backbone(torch.cat([x for x in views.values() if x.shape[-1] == size])) for size in (16, 8)]
    z = normal(encoder.projector(torch.cat(features)[: B * len(views)]))
    return dict(zip(views, (z @ prototypes(layer).T).split(B), strict=True))


def student_scores(model: LookUp, views: dict[int, Tensor]) -> dict[int, Tensor]:
    return scores(model.encoder, model.negatives.layer, views)


@torch.no_grad()
def teacher_scores(model: Any, views: dict[int, Tensor]) -> list[Tensor]:
    encoder, twin = model.key_encoder.encoder, model.key_encoder.twins[0]
    z = normal(embed(encoder, torch.cat([views[0], views[1]])))
    return list((z @ prototypes(twin).T).split(B))


def oracle(model: LookUp, views: dict[int, Tensor], centre: Tensor) -> Tensor:
    student, total, pairs = student_scores(model, views), torch.zeros(()), 0
    for key, taught in enumerate(teacher_scores(model, views)):
        for query, asked in student.items():
            if query == key:
                continue
            for i in range(B):
                wanted = torch.exp((taught[i] - centre) / TEACHER)
                wanted = wanted / wanted.sum()
                log_p = asked[i] / STUDENT - torch.logsumexp(asked[i] / STUDENT, 0)
                total = total - (wanted * log_p).sum() / B
            pairs += 1
    assert pairs == 6
    return total / pairs


@pytest.mark.parametrize("gain", ["fixed", "trained"])
def test_dino(gain: str) -> None:
    model, views = made("dino", *SETS, f"method.negatives.gain={gain}"), crops()
    model.targets.centre.copy_(torch.randn(COUNT, generator=torch.Generator().manual_seed(4)) / 10)
    same(model, views, lambda: oracle(model, views, model.targets.centre))
    assert (weights(model.negatives.layer)[1].grad is not None) == (gain == "trained")


def test_dino_with_a_vision_transformer() -> None:
    pytest.importorskip("timm")
    head = "method.encoder.projector=[{width: 16, activation: gelu, init_std: 0.02}, {width: 8, init_std: 0.02}]"
    model, views = made("dino", *SETS, VIT, head), crops()
    same(model, views, lambda: oracle(model, views, model.targets.centre))


def test_centre_and_teacher_follow_after_the_step() -> None:
    """Three steps of ours, and of Algorithm 1 of the paper beside them."""
    model, other = made("dino", *SETS), made("dino", *SETS)
    centre = torch.zeros(COUNT)
    for number in range(3):
        views = {view: x + number / 10 for view, x in crops().items()}
        moment = step(number)
        found = model(views, SAMPLE, moment)
        model.zero_grad()
        found.loss.backward()

        loss = oracle(other, views, centre)
        equal(found.loss, loss, "the loss")
        other.zero_grad()
        loss.backward()
        taught = torch.cat(teacher_scores(other, views))
        with torch.no_grad():
            for each in (model, other):
                for p in each.parameters():
                    if p.grad is not None:
                        p -= 0.1 * p.grad
            student: list[Tensor] = [*other.encoder.parameters(), *other.negatives.layer.parameters()]
            teacher: list[Tensor] = [*other.key_encoder.encoder.parameters(), *other.key_encoder.twins[0].parameters()]
            for follower, leader in zip(teacher, student, strict=True):
                follower.copy_(0.7 * follower + 0.3 * leader)
        centre = 0.9 * centre + 0.1 * taught.mean(dim=0)
        model.update(found.keys, moment)
        equal(model.targets.centre, centre, "the centre")
        for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
            equal(mine, theirs, name)
