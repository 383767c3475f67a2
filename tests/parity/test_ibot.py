"""iBOT equals an independent implementation, in loss, gradients, both centres and the teacher, over several steps,
in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.lookup.step import LookUp
from contralex.lookup.view import View
from tests.parity.test_dino import prototypes
from tests.parity.test_methods import SAMPLE, B, equal, images, made, step, take_equal_steps

pytest.importorskip("timm")
COUNT, DIM, PATCHES, MOST = 12, 8, 16, 8
STUDENT, TEACHER, PATCH_TEACHER = 0.1, 0.05, 0.06
VIT = (
    "method.encoder.backbone={kind: vit, image_size: 16, patch: 4, width: 12, depth: 2, heads: 2, any_size: true, "
    "mask_token: true}"
)
SETS = (
    VIT,
    "method.encoder.projector=[{width: 16, activation: gelu}, {width: 8}]",
    "method.views.groups.globals.augment.crop.size=16",
    "method.views.groups.second.augment.crop.size=16",
    "method.views.groups.locals.augment.crop.size=8",
    f"method.negatives.count={COUNT}",
    f"method.targets.temperature={TEACHER}",
    f"method.look_ups.patches.targets.temperature={PATCH_TEACHER}",
    "method.targets.centre_momentum=0.9",
    "method.look_ups.patches.targets.centre_momentum=0.9",
    "method.key_encoder.momentum=0.7",
)


def masks(seed: int) -> Tensor:
    """(B, P) another number of hidden patches in each image, none in some."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(B, PATCHES, dtype=torch.bool)
    for row, count in enumerate([0, 3, 8, 1, 0, 5, 2, 7][:B]):
        mask[row, torch.randperm(PATCHES, generator=generator)[:count]] = True
    return mask


def shown(number: int = 0) -> dict[int, Any]:
    """Two large crops with masks, two small ones without."""
    made: dict[int, Any] = {}
    for view, pixels in images(2).items():
        mask = masks(10 * number + view)
        masked = torch.full((B, MOST), -1)
        for row in range(B):
            positions = [p for p in range(PATCHES) if mask[row, p]]
            masked[row, : len(positions)] = torch.tensor(positions, dtype=torch.long)
        made[view] = View(pixels + number / 10, mask=mask, masked=masked)
    return {**made, **{view + 2: small + number / 10 for view, small in images(2, size=8).items()}}


def tokens(backbone: Any, pixels: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Class tokens (B, F) and patches (B, P, F), by the network's own layers, one after the other."""
    x = backbone.patch_embed.proj(pixels).flatten(2).mT
    if mask is not None:
        hidden = backbone.mask_token[0]
        x = torch.stack(
            [torch.stack([hidden if mask[row, p] else x[row, p] for p in range(PATCHES)]) for row in range(B)]
        )
    positions = backbone.pos_embed
    if pixels.shape[-1] != 16:
        side = pixels.shape[-1] // 4
        grid = positions[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
        ratio = (side + 0.1) / 4
        grid = torch.nn.functional.interpolate(grid, scale_factor=(ratio, ratio), mode="bicubic")
        positions = torch.cat([positions[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    x = torch.cat([backbone.cls_token.expand(len(x), -1, -1), x], dim=1) + positions
    for block in backbone.blocks:
        x = x + block.ls1(block.attn(block.norm1(x)))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    x = backbone.norm(x)
    return x[:, 0], x[:, 1:]


def head(encoder: Any, features: Tensor) -> Tensor:
    z = encoder.projector(features)
    return z / z.pow(2).sum(dim=-1, keepdim=True).sqrt()


class Official:
    """main_ibot.py, by loops: the student's and the teacher's scores, two centres, one loss."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.centre, self.patch_centre = torch.zeros(COUNT), torch.zeros(COUNT)

    @torch.no_grad()
    def teach(self, views: dict[int, Any]) -> tuple[list[Tensor], list[Tensor]]:
        encoder, layer = self.model.key_encoder.encoder, prototypes(self.model.key_encoder.twins[0])
        both = [tokens(encoder.backbone, views[view].pixels) for view in (0, 1)]
        return [head(encoder, cls) @ layer.T for cls, _ in both], [head(encoder, patch) @ layer.T for _, patch in both]

    def loss(self, views: dict[int, Any]) -> Tensor:
        encoder, layer = self.model.encoder, prototypes(self.model.negatives.layer)
        taught, taught_patches = self.teach(views)
        student = [tokens(encoder.backbone, views[view].pixels, views[view].mask) for view in (0, 1)]
        student += [tokens(encoder.backbone, views[view]) for view in (2, 3)]
        scores = [head(encoder, cls) @ layer.T / STUDENT for cls, _ in student]
        image, terms = torch.zeros(()), 0
        for q, teacher in enumerate(taught):
            wanted = torch.softmax((teacher - self.centre) / TEACHER, dim=1)
            for v, asked in enumerate(scores):
                if v != q:
                    image = image - (wanted * torch.log_softmax(asked, dim=1)).sum(dim=1).mean()
                    terms += 1
        patch = torch.zeros(())
        for v in (0, 1):
            wanted = torch.softmax((taught_patches[v] - self.patch_centre) / PATCH_TEACHER, dim=2)
            asked = torch.log_softmax(head(encoder, student[v][1]) @ layer.T / STUDENT, dim=2)
            each = -(wanted * asked).sum(dim=2)
            for row in range(B):
                hidden = [each[row, p] for p in range(PATCHES) if views[v].mask[row, p]]
                patch = patch + sum(hidden, torch.zeros(())) / max(len(hidden), 1) / B
        return image / terms + patch / 2

    @torch.no_grad()
    def follow(self, views: dict[int, Any]) -> None:
        """After the step; the scores are those of the teacher before it moves."""
        taught, patches = self.teach(views)
        self.centre = 0.9 * self.centre + 0.1 * torch.cat(taught).mean(dim=0)
        self.patch_centre = 0.9 * self.patch_centre + 0.1 * torch.cat(patches).flatten(0, 1).mean(dim=0)
        student: list[Tensor] = [*self.model.encoder.parameters(), *self.model.negatives.layer.parameters()]
        teacher: list[Tensor] = [
            *self.model.key_encoder.encoder.parameters(),
            *self.model.key_encoder.twins[0].parameters(),
        ]
        for follower, leader in zip(teacher, student, strict=True):
            follower.copy_(0.7 * follower + 0.3 * leader)


def ibot(*sets: str) -> LookUp:
    return made("ibot", *SETS, *sets)


def test_three_steps_equal_the_official_code() -> None:
    ours, theirs = ibot("method.negatives.gain=trained"), ibot("method.negatives.gain=trained")
    official = Official(theirs)
    targets: Any = ours.look_ups["patches"].targets
    for views, mine in take_equal_steps(ours, theirs, shown, official.loss, rate=0.1):
        assert "encoder.backbone.mask_token" in mine
        official.follow(views)
        equal(ours.targets.centre, official.centre, "the centre")
        equal(targets.centre, official.patch_centre, "the centre of patches")


def test_an_image_without_hidden_patches_counts_as_nothing() -> None:
    model, views = ibot(), shown()
    bare = {
        view: View(views[view].pixels, mask=torch.zeros(B, PATCHES, dtype=torch.bool), masked=torch.full((B, MOST), -1))
        for view in (0, 1)
    }
    found = model({**views, **bare}, SAMPLE, step())
    assert found.answers["patches"].loss == 0 and found.answers["main"].loss > 0


def test_keys_of_patches_stay_where_they_are() -> None:
    """They are many; the mean over them is all that other processes need."""
    model = ibot()
    assert not model.look_ups["patches"].compares_samples and model.compares_samples
