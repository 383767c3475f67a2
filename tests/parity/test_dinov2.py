"""DINOv2 equals an independent implementation, in loss, gradients and the teacher, over several steps, in
float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.lookup.step import LookUp
from tests.parity.test_dino import prototypes
from tests.parity.test_ibot import shown as views_of_ibot
from tests.parity.test_ibot import tokens
from tests.parity.test_methods import B, made, take_equal_steps

pytest.importorskip("timm")
COUNT, PATCHES, ITERATIONS = 12, 16, 3
STUDENT, TEACHER, PATCH_TEACHER, SPREAD = 0.1, 0.5, 0.6, 0.1
SETS = (
    "method.encoder.backbone={kind: vit, image_size: 16, patch: 4, width: 12, depth: 2, heads: 2, any_size: true, "
    "mask_token: true, layer_scale: 0.9}",
    "method.encoder.projector=[{width: 16, activation: gelu}, {width: 8}]",
    "method.encoder.outputs.patches.projector=[{width: 16, activation: gelu}, {width: 6}]",
    "method.views.groups.globals.augment.crop.size=16",
    "method.views.groups.second.augment.crop.size=16",
    "method.views.groups.locals.augment.crop.size=8",
    f"method.negatives.count={COUNT}",
    f"method.look_ups.patches.negatives.count={COUNT}",
    f"method.targets.temperature={TEACHER}",
    f"method.look_ups.patches.targets.temperature={PATCH_TEACHER}",
    "method.key_encoder.momentum=0.7",
)


def unit(x: Tensor) -> Tensor:
    return x / x.pow(2).sum(dim=-1, keepdim=True).sqrt()


def sinkhorn(scores: Tensor, temperature: float) -> Tensor:
    """(N, K), as dino_clstoken_loss.py has it: prototypes by keys, one division after the other."""
    q = torch.exp(scores / temperature).T
    keys, count = q.shape[1], q.shape[0]
    q = q / q.sum()
    for _ in range(ITERATIONS):
        q = q / q.sum(dim=1, keepdim=True) / count
        q = q / q.sum(dim=0, keepdim=True) / keys
    return (q * keys).T


class Official:
    """ssl_meta_arch.py, by loops."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @torch.no_grad()
    def teach(self, views: dict[int, Any]) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Of the class tokens of both large crops, and of the hidden patches of each image of each."""
        encoder, (image, patch) = self.model.key_encoder.encoder, self.model.key_encoder.twins
        both = [tokens(encoder.backbone, views[view].pixels) for view in (0, 1)]
        cls = torch.cat([unit(encoder.projector(cls)) for cls, _ in both]) @ prototypes(image).T
        hidden = [
            unit(encoder.heads["patches"].projector(both[v][1][row, p])) @ prototypes(patch).T
            for v in (0, 1)
            for row in range(B)
            for p in range(PATCHES)
            if views[v].mask[row, p]
        ]
        assigned = iter(sinkhorn(torch.stack(hidden), PATCH_TEACHER))
        by_image = [
            [
                torch.stack([next(assigned) for _ in range(int(views[v].mask[row].sum()))] or [torch.empty(COUNT)])
                for row in range(B)
            ]
            for v in (0, 1)
        ]
        return list(sinkhorn(cls, TEACHER).split(B)), by_image

    def loss(self, views: dict[int, Any]) -> Tensor:
        encoder = self.model.encoder
        image, patch = (
            prototypes(self.model.negatives.layer),
            prototypes(self.model.look_ups["patches"].negatives.layer),
        )
        taught, taught_patches = self.teach(views)
        student = [tokens(encoder.backbone, views[view].pixels, views[view].mask) for view in (0, 1)]
        student += [tokens(encoder.backbone, views[view]) for view in (2, 3)]
        scores = [unit(encoder.projector(cls)) @ image.T / STUDENT for cls, _ in student]
        dino, terms = torch.zeros(()), 0
        for q, wanted in enumerate(taught):
            for v, asked in enumerate(scores):
                if v != q:
                    dino = dino - (wanted * torch.log_softmax(asked, dim=1)).sum(dim=1).mean()
                    terms += 1
        ibot = torch.zeros(())
        for v in (0, 1):
            for row in range(B):
                places = [p for p in range(PATCHES) if views[v].mask[row, p]]
                for wanted, p in zip(taught_patches[v][row], places, strict=False):
                    vector = unit(encoder.heads["patches"].projector(student[v][1][row, p]))
                    log_p = torch.log_softmax(vector @ patch.T / STUDENT, dim=0)
                    ibot = ibot - (wanted * log_p).sum() / len(places) / (2 * B)
        koleo = torch.zeros(())
        for v in (0, 1):
            x = unit(student[v][0])
            for row in range(B):
                others = [
                    (x[row] - x[other]).detach().norm() if other != row else torch.tensor(9.0) for other in range(B)
                ]
                nearest = int(torch.stack(others).argmin())
                koleo = koleo - torch.log((x[row] - x[nearest] + 1e-8).norm() + 1e-8) / B
        return dino / terms + ibot + SPREAD * koleo

    @torch.no_grad()
    def follow(self) -> None:
        model = self.model
        layers = [model.negatives.layer, model.look_ups["patches"].negatives.layer]
        student: list[Tensor] = [*model.encoder.parameters(), *(p for each in layers for p in each.parameters())]
        twins = [p for each in model.key_encoder.twins for p in each.parameters()]
        for follower, leader in zip([*model.key_encoder.encoder.parameters(), *twins], student, strict=True):
            follower.copy_(0.7 * follower + 0.3 * leader)


def dinov2(*sets: str) -> LookUp:
    return made("dinov2", *SETS, *sets)


def test_three_steps_equal_the_official_code() -> None:
    ours, theirs = dinov2(), dinov2()
    official = Official(theirs)
    for _, mine in take_equal_steps(ours, theirs, views_of_ibot, official.loss, rate=0.002):
        assert "encoder.backbone.mask_token" in mine
        official.follow()


def test_the_heads_and_the_prototypes_are_untied() -> None:
    names = set(dict(dinov2().named_parameters()))
    assert {"encoder.heads.patches.projector.0.weight", "encoder.projector.0.weight"} <= names
    assert sum(name.endswith("original1") and "negatives" in name for name in names) == 2
