"""A view with company: cut, moved, stacked and encoded as a tensor is, with what belongs to its pixels."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from contralex.lookup.clock import Clock
from contralex.lookup.view import pixels_of, stack_views
from contralex.plugin import (
    Backbone,
    ContralexError,
    Encoder,
    ImageEncoder,
    InBatchSource,
    InfoNCE,
    InstanceTargets,
    LookUp,
    Match,
    MomentumEncoder,
    SharedKeyEncoder,
    Step,
    View,
    ViewBatch,
    map_pixels,
)


def made(size: int = 4) -> View:
    return View(torch.rand(size, 3, 8, 8), mask=torch.rand(size, 4) < 0.5, boxes=torch.rand(size, 4))


def test_a_part_of_a_view_has_the_same_part_of_its_company() -> None:
    view, which = made(), torch.tensor([3, 0])
    for part in (slice(1, 3), which):
        assert torch.equal(view[part].pixels, view.pixels[part])
        assert torch.equal(view[part].mask, view.mask[part]) and torch.equal(view[part].boxes, view.boxes[part])
    assert len(view) == 4 and view.to(torch.device("cpu")).mask.dtype == torch.bool
    assert view.nbytes == view.pixels.nbytes + 16 + 64


def test_it_is_copied_and_pickled() -> None:
    view = made()
    for other in (copy.deepcopy(view), pickle.loads(pickle.dumps(view))):
        assert torch.equal(other.pixels, view.pixels) and torch.equal(other.mask, view.mask)


def test_samples_stack_to_a_batch() -> None:
    view = made()
    stacked = stack_views([view[number] for number in range(4)])
    assert isinstance(stacked, View)
    assert torch.equal(stacked.pixels, view.pixels) and torch.equal(stacked.boxes, view.boxes)
    assert isinstance(stack_views(list(view.pixels)), Tensor)


@pytest.mark.parametrize("first", [True, False])
def test_samples_without_the_company_of_others_are_refused(first: bool) -> None:
    with_mask, without = View(torch.rand(3), mask=torch.rand(2)), torch.rand(3)
    with pytest.raises(ContralexError, match="Some samples of a batch have mask beside a view, and some do not"):
        stack_views([with_mask, without] if first else [without, with_mask])


def test_company_of_several_shapes_is_refused() -> None:
    views = [View(torch.rand(3), places=torch.arange(count)) for count in (2, 3)]
    with pytest.raises(ContralexError, match=r"The places of a view has the shapes \(2,\) and \(3,\) in one batch"):
        stack_views(views)


def test_a_companion_has_a_name_of_its_own_and_is_a_tensor() -> None:
    with pytest.raises(ContralexError, match="cannot be called pixels"):
        View(torch.rand(3), **{"pixels": torch.rand(3)})
    with pytest.raises(ContralexError, match="The mask of a view is list, and must be a tensor"):
        View(torch.rand(3), mask=[True])  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="this view has no mask; it has boxes"):
        _ = View(torch.rand(3), boxes=torch.rand(3)).mask


class Masking(Encoder):
    """The mean colour of a patch, 0 where it is masked, through a layer."""

    takes_company = True
    dim = 5

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(12, 5)
        self.seen: list[ViewBatch] = []

    def forward(self, views: Mapping[int, Any]) -> dict[int, Tensor]:
        return {view: self._embed(each) for view, each in views.items()}

    def _embed(self, view: ViewBatch) -> Tensor:
        self.seen.append(view)
        patches = pixels_of(view).unflatten(2, (2, 4)).unflatten(4, (2, 4)).mean((3, 5)).flatten(2)  # (B, 3, 4)
        kept = patches * ~view.mask[:, None] if isinstance(view, View) else patches
        return torch.nn.functional.normalize(self.layer(kept.flatten(1)), dim=1)

    def features(self, view: Tensor) -> Tensor:
        return self._embed(view)


def look_up(encoder: Encoder, shuffle_bn: bool | None = None) -> LookUp:
    keys = SharedKeyEncoder(gradient=True) if shuffle_bn is None else MomentumEncoder(encoder, 0.9, shuffle_bn)
    return LookUp(
        encoder, keys, InBatchSource(views="all"), InstanceTargets(), InfoNCE(0.2), [Match(0, 1), Match(1, 0)]
    )


def step(micro_batch: int | None = None) -> Step:
    return Step(Clock(0, 10, 2), seed=0, batch=4, micro_batch=micro_batch)


@pytest.mark.parametrize("shuffle_bn", [None, False, True])
def test_micro_batches_and_shuffling_keep_pixels_and_masks_together(shuffle_bn: bool | None) -> None:
    method, views = look_up(Masking(), shuffle_bn), {0: made(), 1: made()}
    results = [method(views, torch.arange(4), step(micro)) for micro in (None, 2)]
    bare = method({view: pixels_of(each) for view, each in views.items()}, torch.arange(4), step())
    assert torch.allclose(results[0].loss, results[1].loss, atol=1e-6)
    assert not torch.allclose(results[0].loss, bare.loss, atol=1e-4)  # the masks do something
    results[1].loss.backward()


def test_an_encoder_that_takes_no_company_is_given_the_pixels() -> None:
    encoder = ImageEncoder(Backbone(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5)), dim=5))
    method, views = look_up(encoder, shuffle_bn=True), {0: made(), 1: made()}
    with_company = method(views, torch.arange(4), step())
    bare = method({view: pixels_of(each) for view, each in views.items()}, torch.arange(4), step())
    assert torch.equal(with_company.loss, bare.loss)
    assert torch.equal(encoder(views[0]), encoder(pixels_of(views[0])))
    assert torch.equal(encoder({"left": views[0]})["left"], encoder(pixels_of(views[0])))


def test_other_pixels_keep_the_company() -> None:
    view = made()
    black = map_pixels(torch.zeros_like, view)
    assert isinstance(black, View) and not black.pixels.any() and torch.equal(black.mask, view.mask)
