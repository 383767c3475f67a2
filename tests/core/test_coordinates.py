"""Where the places of a crop lie in its image: an output of encoders, of views that have boxes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from contralex.errors import ContralexError
from contralex.kinds.backbones.parts import conv_backbone
from contralex.kinds.encoders.image import ImageEncoder
from contralex.kinds.encoders.specs import ImageSpec, Output
from contralex.kinds.views.augment import Augment, Crop, Flip, Group
from contralex.kinds.views.parts import crop_views
from contralex.lookup.clock import Clock
from contralex.lookup.step import LookUp
from contralex.lookup.values import Step
from contralex.lookup.view import View, map_view, stack_views
from contralex.plugin import locate_places
from contralex.recipes.layers import resolve
from contralex.training import build

B, SAMPLE = 4, torch.arange(4)
SETS = (
    "method.encoder.backbone={kind: conv, widths: [6, 8], strides: [2, 2]}",
    "method.views.boxes=true",
    "method.encoder.outputs={map: {reads: places}, where: {reads: coordinates}}",
    "train.precision=fp32",
)
LOOK_UP = (
    "method.look_ups.dense={of: map, negatives: {kind: place_queue, size: 8, match: where}, targets: instance, "
    "loss: {kind: info_nce, temperature: 0.2}, matches: every}"
)


def boxed(seed: int, size: int = 12) -> View:
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(B, 4, generator=generator) * 50
    flipped = torch.rand(B, generator=generator) < 0.5
    return View(torch.rand(B, 3, size, size, generator=generator), boxes=boxes, flipped=flipped)


def test_each_place_equals_its_formula() -> None:
    view, rows, columns = boxed(0), 2, 3
    view.flipped[:2] = torch.tensor([True, False])
    found = locate_places(view, (rows, columns))
    assert found.shape == (B, rows * columns, 2) and found.dtype == torch.float32
    for image in range(B):
        top, left, height, width = view.boxes[image].tolist()
        for row in range(rows):
            for column in range(columns):
                across = columns - 1 - column if view.flipped[image] else column
                wanted = [top + (row + 0.5) * height / rows, left + (across + 0.5) * width / columns]
                assert found[image, row * columns + column].tolist() == pytest.approx(wanted, rel=1e-6)


def test_coordinates_cannot_be_looked_up() -> None:
    asked = LOOK_UP.replace("of: map", "of: where").replace(
        "{kind: place_queue, size: 8, match: where}", "{kind: in_batch, views: matched}"
    )
    with pytest.raises(ContralexError, match=r"method.look_ups.dense.of is where, .* coordinates of places and no vec"):
        resolve("simclr-v1", preset="digits", sets=[*SETS, asked])


@pytest.mark.parametrize("order", [("crop", "flip"), ("flip", "crop")])
@pytest.mark.parametrize("engine", ["exact", "fused"])
def test_a_place_shows_what_lies_at_its_coordinates(order: Any, engine: Any) -> None:
    """In an image whose red is the row and whose green is the column, pixels say where they are."""
    height, width, size, side = 160, 240, 48, 4
    rows, columns = (torch.arange(n, dtype=torch.uint8) for n in (height, width))
    plane = [rows.unsqueeze(1).expand(height, width), columns.expand(height, width), torch.zeros(height, width)]
    image = Image.fromarray(torch.stack([each.to(torch.uint8) for each in plane], dim=2).numpy())
    augment = Augment(order=order, crop=Crop(size=size, scale=(0.2, 0.6)), flip=Flip(p=0.5))
    views = crop_views({"crops": Group(augment=augment)}, engine, boxes=True)
    torch.manual_seed(0)
    made: Any = stack_views([views.make(image, 0) for _ in range(12)])
    assert 0 < made.flipped.sum() < 12
    found = locate_places(made, (side, side)).unflatten(1, (side, side))
    cells = made.pixels[:, :2].unflatten(3, (side, -1)).unflatten(2, (side, -1)).mean(dim=(3, 5))  # (B, 2, side, side)
    shown = cells.permute(0, 2, 3, 1) * 255 + 0.5  # a pixel of value v is [v, v + 1)
    torch.testing.assert_close(shown, found, atol=2.5, rtol=0)  # a cell is a dozen pixels wide, and its edges blur


def test_it_is_an_output_of_both_sides_beside_the_others() -> None:
    with_it, without = (
        ImageEncoder(
            conv_backbone((4, 8), (2, 2)),
            batching="together",
            outputs={"map": Output(reads="places"), **({"where": Output(reads="coordinates")} if it else {})},
        )
        for it in (True, False)
    )
    without.load_state_dict(with_it.state_dict())  # coordinates have no layers
    assert with_it.outputs == {"image": 8, "map": 8, "where": 2} and with_it.has_same_sides
    views = {0: boxed(0), 1: boxed(1, size=8), 2: boxed(2)}
    embedded, plain = with_it(views), without(views)
    for view, side in ((0, 3), (1, 2), (2, 3)):
        for found in (with_it.queries_of("where", embedded), with_it.keys_of("where", with_it.encode_keys(views))):
            assert torch.equal(found[view][0], locate_places(views[view], (side, side))) and found[view][1] is None
        assert torch.equal(with_it.keys_of("map", embedded)[view][0], without.keys_of("map", plain)[view][0])


def test_an_image_without_a_box_is_encoded_and_its_coordinates_are_refused() -> None:
    encoder = ImageEncoder(conv_backbone((4, 8), (2, 2)), outputs={"where": Output(reads="coordinates")})
    view = boxed(0)
    assert torch.equal(encoder(view.pixels), encoder(view))
    with pytest.raises(ContralexError, match=r"the view has no boxes; set method\.views\.boxes to true"):
        encoder.queries_of("where", encoder({0: view.pixels}))


def made(recipe: str, *sets: str) -> LookUp:
    torch.manual_seed(0)
    return build.look_up(resolve(recipe, preset="digits", sets=[*SETS, *sets]).run, 40)


@pytest.mark.parametrize("recipe", ["simclr-v1", "moco-v2"])  # keys of the same pass, and of shuffled momentum keys
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_parts_find_them_in_the_step(recipe: str, micro_batch: int | None) -> None:
    """Whatever the key encoder does with the order of samples, and however the batch is cut."""
    method = made(recipe, LOOK_UP)
    views = {0: boxed(0), 1: boxed(1)}
    step = Step(Clock(0, 10, 5), seed=0, batch=B, micro_batch=micro_batch)
    method.encode(views, SAMPLE, step)
    for view, shown in views.items():
        wanted = locate_places(shown, (3, 3))
        for rows in (step.queries["where"], step.keys["where"]):
            assert torch.equal(rows.select_view(view).vectors.unflatten(0, (B, -1)), wanted)


def test_who_looks_no_further_pays_nothing() -> None:
    """Without a part that reads them, coordinates are not even made."""
    method = made("simclr-v1")
    step = Step(Clock(0, 10, 5), seed=0, batch=B)
    views: dict[int, Any] = {0: boxed(0), 1: map_view(Tensor.clone, boxed(1))}
    method.encode(views, SAMPLE, step)
    assert step.queries.keys() == step.keys.keys() == {"image"}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("method.views.boxes=false", "method.encoder (image) needs boxes from method.views"),
        ("method.encoder.outputs.where=null", "method.views (crops) needs a use for boxes from method.encoder"),
        ("method.encoder.outputs.where.mean=true", "leave projector, predictor, head and mean out"),
        ("method.encoder.outputs.map.head=where", "outputs.map.head is where, which has no layers of its own"),
        ("method.views.device=accelerator", "boxes are made by the workers"),
    ],
)
def test_boxes_need_both_a_giver_and_a_user(setting: str, sentence: str) -> None:
    with pytest.raises(ContralexError) as caught:
        resolve("simclr-v1", preset="digits", sets=[*SETS, setting])
    assert sentence in str(caught.value)


def test_a_backbone_without_places_is_refused() -> None:
    conv = ImageSpec.model_validate({"backbone": {"kind": "conv"}, "outputs": {"where": {"reads": "coordinates"}}})
    assert ("encoder.backbone", frozenset({"places"})) in conv.requires()
    assert (
        "coordinates" in conv.offers() and "coordinates" not in ImageSpec.model_validate({"backbone": "conv"}).offers()
    )
