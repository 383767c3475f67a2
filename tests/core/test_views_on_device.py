"""Views that are made on the device that trains, with the CPU as the device, against those of the engine ``exact``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from contralex.data.loading import Batch, ViewDataset, collate, unpack
from contralex.data.packed import PackedViews
from contralex.errors import ContralexError
from contralex.kinds.views import on_device
from contralex.kinds.views.augment import Augment, Group, MadeOn, keeps_from_accelerator
from contralex.kinds.views.engine import TensorEngine, load_pixels
from contralex.kinds.views.on_device import DeviceEngine
from contralex.kinds.views.parameters import Box, ViewParameters
from contralex.kinds.views.parts import CropViews, crop_views
from contralex.recipes.layers import resolve
from contralex.testing.host_waits import HostWaits
from tests.core.test_view_engine import AUGMENTS, Darker, Photos, dull, noise, photo

SMALL, LARGE = 32, 96
OPERATIONS: dict[str, Any] = {
    "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "p": 0.8},
    "gray": {"p": 0.5},
    "flip": {"p": 0.5},
    "blur": {"p": 0.7, "sigma": (0.1, 5.0)},
    "solarize": {"p": 0.5},
}
ABLE = {name: augment for name, augment in AUGMENTS.items() if not keeps_from_accelerator(augment)}


def augment(*names: str, size: int = SMALL, interpolation: str = "bilinear", **changed: Any) -> Augment:
    crop = {"size": size, "scale": (0.2, 1.0), "interpolation": interpolation}
    values = {name: OPERATIONS[name] for name in names} | changed
    return Augment.model_validate({"order": ("crop", *names), "crop": crop, **values})


def both(values: Augment, count: int = 12) -> tuple[Tensor, Tensor]:
    """(count, 3, size, size) levels from 0 to 255: as ``exact`` makes them, and as the device does."""
    images = [(photo(90 + at, 70), noise(), dull())[at % 3] for at in range(count)]
    exact, device = TensorEngine(values), DeviceEngine(values)
    torch.manual_seed(1)
    drawn = [exact.draw(image) for image in images]
    torch.manual_seed(1)
    assert drawn == [device.draw(image) for image in images]
    packed = PackedViews.join(device.pack(images, drawn))
    one, other = (
        made * 255 if values.normalize is None else made
        for made in (torch.stack(list(exact.make(images, drawn))), device.unpack(packed))
    )
    return one, other


@pytest.mark.parametrize("name", ["crop", *OPERATIONS])
def test_each_operation_is_that_of_exact(name: str) -> None:
    """Of crops of a size that is not resized, so that each operation has the same levels to begin with."""
    values = augment(*([name] if name != "crop" else []))
    exact, device = TensorEngine(values), DeviceEngine(values)
    torch.manual_seed(2)
    images = [source.crop((at, at, at + SMALL, at + SMALL)) for at in range(20) for source in (photo(), noise())]
    drawn = [exact.draw(image) for image in images]
    same = [type(each)(**{**vars(each), "crop": Box(0, 0, SMALL, SMALL)}) for each in drawn]
    made = device.unpack(PackedViews.join(device.pack(images, same)))
    assert torch.equal(made, torch.stack(list(exact.make(images, same))))


def test_a_blur_with_a_kernel_is_that_of_exact() -> None:
    values = augment("blur", blur={"p": 0.7, "sigma": (0.1, 2.0), "kernel": 9})
    images = [noise().crop((at, at, at + SMALL, at + SMALL)) for at in range(20)]
    exact, device = TensorEngine(values), DeviceEngine(values)
    torch.manual_seed(2)
    drawn = [type(each)(crop=None, blur=each.blur) for each in map(exact.draw, images)]
    made = device.unpack(PackedViews.join(device.pack(images, drawn)))
    assert torch.equal(made, torch.stack(list(exact.make(images, drawn))))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_crop_is_resized_as_by_pillow_in_two_steps(size: int, interpolation: str) -> None:
    how = Image.Resampling[interpolation.upper()]
    images = [source.resize(shape) for source in (photo(), noise()) for shape in ((90, 70), (33, 64), (20, 130))]
    rows_first = [image.resize((size, image.height), how).resize((size, size), how) for image in images]
    device = DeviceEngine(augment(size=size, interpolation=interpolation))
    made = device.unpack(PackedViews.join(device.pack(images, [ViewParameters()] * len(images))))
    apart = (made * 255 - torch.cat([load_pixels(image) for image in rows_first])).abs().round()
    assert apart.max() == 0


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_resized_crop_is_that_of_exact_to_rounding(size: int, interpolation: str) -> None:
    one, other = both(augment(size=size, interpolation=interpolation))
    apart = (one - other).abs().round()
    assert apart.mean() < 0.1
    if interpolation == "bilinear":  # else a level is cut off at black and at white after the first of two directions
        assert apart.max() <= 1


@pytest.mark.parametrize("recipe", ABLE)
def test_a_recipes_views_are_those_of_exact_to_rounding(recipe: str) -> None:
    values = ABLE[recipe]
    one, other = both(values, 6)
    deviation = 1 if values.normalize is None else max(values.normalize.std)
    apart = (one - other).abs() * deviation * (1 if values.normalize is None else 255)
    assert apart.mean() < 0.15  # of 255 levels: a level in the crop, and what contrast and hue make of it
    assert (apart > 2.5).float().mean() < 1e-2


def test_images_that_are_worked_on_apart_are_those_made_together(monkeypatch: pytest.MonkeyPatch) -> None:
    values = augment(*OPERATIONS)
    _, together = both(values, 9)
    monkeypatch.setattr(on_device, "_PIXELS", 3000)
    assert torch.equal(both(values, 9)[1], together)


def batch_of(device: MadeOn, only: list[int] | None = None) -> tuple[Batch, CropViews]:
    crop = {"size": 12, "scale": (0.05, 0.2)}
    groups = {
        "large": Group(count=2, augment=augment(*OPERATIONS)),
        "small": Group.model_validate({"count": 2, "like": "large", "crop": crop, "key": False}),
    }
    views = CropViews(groups, device=device)
    data = ViewDataset(Photos(), views, seed=1, batch=4, only=only, packed=True)
    return collate(data.__getitems__([(0, 3), (0, 7), (1, 2)])), views


def test_a_batch_with_small_crops_is_made_without_a_wait() -> None:
    exact = unpack(*batch_of("workers"))
    packed, views = batch_of("accelerator")
    for waiting in (True, False):
        with HostWaits() as waits:
            made = unpack(packed, views)
        assert waiting or not waits.found, waits
    assert [tuple(made["views"][view].shape) for view in range(4)] == [(3, 3, SMALL, SMALL)] * 2 + [(3, 3, 12, 12)] * 2
    for view in range(4):
        apart = (made["views"][view] - exact["views"][view]).abs() * 255  # type: ignore[operator]
        assert apart.mean() < 0.15
    alone = unpack(*batch_of("accelerator", only=[2]))["views"]
    assert list(alone) == [2] and torch.equal(alone[2], made["views"][2])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["method.views.engine=fused"], "engine is fused, and only exact is made there"),
        (["method.views.groups.crops.augment.order=[jitter, crop, gray, flip, blur]"], "jitter happens before crop"),
        (["method.views.groups.crops.augment.rand_augment={}", "method.views.groups.crops.augment.order="
          "[crop, jitter, gray, flip, blur, rand_augment]"], "rand_augment is made by Pillow"),
        (["method.views.boxes=true"], "boxes are made by the workers"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_there_is_named(settings: list[str], sentence: str) -> None:
    with pytest.raises(ContralexError, match=f"device is accelerator, and {sentence}.*; set device to workers"):
        resolve("moco-v2", sets=["method.views.device=accelerator", *settings])


def test_views_that_make_themselves_cannot_be_made_there() -> None:
    with pytest.raises(ContralexError, match="Darker makes its views itself") as refused:
        Darker({"all": Group(augment=augment())}, device="accelerator")
    assert str(refused.value).endswith("--set method.views.device=workers")
    with pytest.raises(ValueError, match="boxes are made by the workers"):
        crop_views({"all": Group(augment=augment())}, device="accelerator", boxes=True)


def test_where_views_are_made_is_part_of_the_digest_only_where_it_is_said() -> None:
    plain, said, other = (
        resolve("moco-v2", sets=sets).digest
        for sets in ([], ["method.views.device=workers"], ["method.views.device=accelerator"])
    )
    assert plain == said != other
