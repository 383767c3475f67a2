"""An output of masked patches: queries of what a view's mask hides, keys of the whole image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from contralex.errors import ContralexError
from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.lookup.values import Step
from contralex.lookup.view import View
from contralex.recipes.layers import resolve
from contralex.training import build

B, GRID, MOST = 4, 4, 8
SAMPLE = torch.arange(B)
VIT = "{kind: vit, image_size: 16, patch: 4, width: 12, depth: 2, heads: 2, any_size: true, mask_token: true}"
SETS = (
    "method.views.groups.crops.augment.crop.size=16",
    "method.views.masks={patch: 4, ratio: [0.1, 0.5], p: 0.5}",
    f"method.encoder={{kind: image, backbone: {VIT}, projector: [{{width: 6}}], batching: together, "
    "outputs: {patches: {reads: masked, head: image}}}",
    "method.key_encoder={kind: momentum, momentum: 0.9}",
    "method.negatives=none",
    "method.targets=key_vector",
    "method.loss=cosine",
)


def step(micro_batch: int | None = None) -> Step:
    return Step(Clock(0, 10, 5), seed=0, batch=B, micro_batch=micro_batch)


def made(*sets: str) -> LookUp:
    return build.look_up(resolve("simclr-v1", preset="digits", sets=[*SETS, *sets]).run, 40)


def masked_view(seed: int, hidden: list[list[int]]) -> View:
    mask = torch.zeros(B, GRID * GRID, dtype=torch.bool)
    masked = torch.full((B, MOST), -1)
    for row, positions in enumerate(hidden):
        mask[row, positions] = True
        masked[row, : len(positions)] = torch.tensor(sorted(positions), dtype=torch.long)
    return View(torch.rand(B, 3, 16, 16, generator=torch.Generator().manual_seed(seed)), mask=mask, masked=masked)


HIDDEN = [[[0, 5], [], [3], [7, 8, 9]], [[], [1], [2, 4, 6, 15], []]]


def views() -> dict[int, Any]:
    return {view: masked_view(view, hidden) for view, hidden in enumerate(HIDDEN)}


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_queries_are_the_hidden_patches_and_keys_all_patches_of_the_whole_image(micro_batch: int | None) -> None:
    method = made("method.of=patches", "method.matches=['0->0', '1->1']")
    moment = step(micro_batch)
    queries, keys = method.encode(views(), SAMPLE, moment)
    encoder, backbone = method.encoder, method.encoder.backbone
    for view, shown in views().items():
        own, whole = queries.select_view(view), keys.select_view(view)
        assert own.vectors.shape == (B * MOST, 6) and whole.vectors.shape == (B * GRID**2, 6)
        _, hidden_tokens = backbone.encode_places(shown.pixels, shown.mask)
        _, tokens = method.key_encoder.encoder.backbone.encode_places(shown.pixels)
        wanted: Tensor = F.normalize(method.key_encoder.encoder.projector(tokens), dim=2)
        torch.testing.assert_close(whole.vectors, wanted.flatten(0, 1))
        for row, positions in enumerate(HIDDEN[view]):
            at = own.position.view(B, MOST)[row].tolist()
            assert at == sorted(positions) + [-1] * (MOST - len(positions))
            for number, position in enumerate(sorted(positions)):
                vector = F.normalize(encoder.projector(hidden_tokens[row, position]), dim=0)
                torch.testing.assert_close(own.vectors[row * MOST + number], vector)


def test_the_image_is_seen_masked_by_the_student_and_whole_by_the_teacher() -> None:
    method = made(
        "method.look_ups.patches={of: patches, negatives: none, targets: key_vector, loss: cosine, matches: ['0->0']}"
    )
    moment = step()
    queries, keys = method.encode(views(), SAMPLE, moment)
    student, teacher = method.encoder, method.key_encoder.encoder
    for view, shown in views().items():
        pooled, _ = student.backbone.encode_places(shown.pixels, shown.mask)
        torch.testing.assert_close(queries.select_view(view).vectors, F.normalize(student.projector(pooled), dim=1))
        torch.testing.assert_close(keys.select_view(view).vectors, teacher.keys(teacher({view: shown.pixels}))[view][0])


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("method.views.masks=null", "method.encoder (image) needs masks from method.views"),
        ("method.encoder.backbone.mask_token=false", "a mask token from method.encoder.backbone"),
        ("method.encoder.outputs={}", "a use for masks from method.encoder"),
    ],
)
def test_masks_need_both_a_drawer_and_a_user(setting: str, sentence: str) -> None:
    with pytest.raises(ContralexError) as caught:
        resolve("simclr-v1", preset="digits", sets=[*SETS, setting])
    assert sentence in str(caught.value)
