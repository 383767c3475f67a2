"""Photographs that are decoded at a fraction of their size: the same crops, and nearly the same pixels."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from contralex.data.base import Split, Subset
from contralex.data.kept_images import KeptImages
from contralex.data.loading import Batch, ViewDataset, collate, unpack
from contralex.data.photographs import DIVISORS, Photograph, ScaledImage, open_image
from contralex.data.views import Views
from contralex.errors import ContralexError
from contralex.kinds.datasets.folder import FolderSource, FolderSplit
from contralex.kinds.views.augment import Group
from contralex.kinds.views.mask_specs import Masks
from contralex.kinds.views.parameters import Box, ViewParameters
from contralex.kinds.views.parts import CropViews, crop_views
from contralex.kinds.views.scaling import choose_divisor, may_scale, scale_crops
from contralex.kinds.views.specs import CropsSpec
from contralex.lookup.view import company_of, pixels_of
from contralex.recipes.layers import resolve

SIZE, SMALL = 48, 16
OPERATIONS: dict[str, Any] = {
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
    "gray": {"p": 0.2},
    "flip": {"p": 0.5},
}


def groups(scale: tuple[float, float] = (0.2, 1.0)) -> dict[str, Group]:
    large = {"order": ("crop", *OPERATIONS), "crop": {"size": SIZE, "scale": scale}, **OPERATIONS}
    small = {"size": SMALL, "scale": (0.05, 0.2)}
    return {
        "large": Group.model_validate({"count": 2, "augment": large}),
        "small": Group.model_validate({"count": 2, "like": "large", "crop": small, "key": False}),
    }


def scene(width: int, height: int, seed: int) -> Image.Image:
    """A smooth picture, as a photograph is at the scale of its pixels, with edges between its parts."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, upright, turned and mirrored, of odd sizes, grey, CMYK, progressive; a PNG; and small ones."""
    root = tmp_path_factory.mktemp("photographs")
    for number, (width, height) in enumerate([(1201, 803), (640, 960), (800, 533), (60, 90)]):
        scene(width, height, number).save(root / f"{number}-plain.jpg", quality=90)
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        scene(1001, 701, turn).save(root / f"turn-{turn}.jpg", quality=90, exif=exif)
    scene(900, 600, 20).convert("L").save(root / "grey.jpg", quality=90)
    scene(900, 600, 21).convert("CMYK").save(root / "inks.jpg", quality=90)
    scene(900, 600, 22).save(root / "progressive.jpg", quality=90, progressive=True)
    scene(900, 600, 23).save(root / "lossless.png")
    return root


def read(folder: Path) -> FolderSplit:
    return FolderSource(folder, labels="none").train()


def batch_of(split: Split, views: Views, epoch: int = 0) -> Batch:
    data = ViewDataset(split, views, seed=1, batch=4, packed=True)
    return unpack(collate(data.__getitems__([(epoch, index) for index in range(len(split))])), views)


def pixels(batch: Batch, view: int) -> Tensor:
    return pixels_of(batch["views"][view])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """By what the sides of each photograph were divided."""
    found: dict[str, int] = {}
    decode = Photograph.decode

    def note(photograph: Photograph, divisor: int = 1) -> Any:
        item = decode(photograph, divisor)
        assert (divisor == 1) == isinstance(item, Image.Image)
        found[Path(photograph._path).name] = divisor
        return item

    monkeypatch.setattr(Photograph, "decode", note)
    return found


@pytest.mark.parametrize("options", [{}, {"engine": "fused"}, {"device": "accelerator"}], ids=str)
def test_views_are_near_those_of_the_full_image(folder: Path, decoded: dict[str, int], options: dict[str, Any]) -> None:
    split = read(folder)
    full = batch_of(split, CropViews(groups(), **options))
    assert not decoded
    scaled = batch_of(split, CropViews(groups(), decoding="scaled", **options))
    assert len(set(decoded.values())) > 2 and decoded["0-plain.jpg"] > 1 and decoded["3-plain.jpg"] == 1
    assert all(decoded[name] > 1 for name in ("turn-5.jpg", "turn-6.jpg", "grey.jpg", "inks.jpg", "progressive.jpg"))
    assert "lossless.png" not in decoded
    for view, most in enumerate([2.5, 2.5, 4.5, 4.5]):  # half a pixel counts for more in a small view
        apart = (pixels(full, view) - pixels(scaled, view)).abs().mean(dim=(1, 2, 3)) * 255
        for name, levels in zip((path.name for path in split.paths), apart.tolist(), strict=True):
            assert levels < most if decoded.get(name, 1) > 1 else levels == 0, (name, view, levels)


def test_what_is_drawn_does_not_depend_on_the_decoding(folder: Path, decoded: dict[str, int]) -> None:
    masks = Masks.model_validate({"groups": ["large"], "patch": 8})
    split = read(folder)
    made = [batch_of(split, crop_views(groups(), decoding=how, masks=masks, boxes=True)) for how in ("full", "scaled")]
    assert max(decoded.values()) > 1
    for view in range(4):
        full, scaled = (company_of(batch["views"][view]) for batch in made)
        assert full.keys() == scaled.keys() >= {"boxes", "flipped"}
        assert all(torch.equal(full[name], scaled[name]) for name in full)
    assert "mask" in company_of(made[0]["views"][0])


def test_no_crop_is_enlarged_because_of_the_decoding() -> None:
    rng = random.Random(0)
    augments = CropsSpec(groups=groups()).augments()
    for _ in range(2000):
        width, height = rng.randrange(20, 1500), rng.randrange(20, 1500)
        drawn = []
        for _ in augments:
            high, wide = rng.randint(height // 3, height), rng.randint(width // 3, width)
            box = Box(rng.randint(0, height - high), rng.randint(0, width - wide), high, wide)
            drawn.append(ViewParameters(crop=box))
        divisor = choose_divisor(augments, drawn)
        sides = [min(each.crop.height, each.crop.width) for each in drawn if each.crop]
        able = [
            some
            for some in (1, *DIVISORS)
            if some == 1
            or all(side // some >= augment.crop.size for side, augment in zip(sides, augments, strict=True))
        ]
        assert divisor == max(able)
        assert divisor == 1 or may_scale(augments, (width, height))
        if divisor == 1:
            continue
        image = Image.new("RGB", (-(-width // divisor), -(-height // divisor)))
        _, found = scale_crops([ScaledImage(image, (width, height), divisor)] * len(drawn), drawn)
        for augment, before, each in zip(augments, drawn, found, strict=True):
            assert before.crop is not None and each.crop is not None
            assert min(each.crop.height, each.crop.width) >= augment.crop.size
            assert each.crop.top + each.crop.height <= image.height and each.crop.left + each.crop.width <= image.width
            assert abs(each.crop.left - before.crop.left / divisor) <= 0.5


def test_a_file_that_breaks_off_is_replaced_as_it_is_with_full_decoding(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("turn-*.jpg"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (folder / "0-plain.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    made = []
    for how in ("full", "scaled"):
        data = ViewDataset(read(tmp_path), CropViews(groups(), decoding=how), seed=1, batch=1)
        made.append(collate(data.__getitems__([(0, index) for index in range(5)])))
    assert torch.equal(made[0]["index"], made[1]["index"])
    assert made[0]["unreadable"] == made[1]["unreadable"] and list(made[0]["unreadable"]) == [str(tmp_path / "cut.jpg")]


def test_images_that_are_kept_in_memory_change_no_view(folder: Path, decoded: dict[str, int]) -> None:
    split, views = read(folder), CropViews(groups(), decoding="scaled")
    kept = KeptImages(split, 1 << 25, views.may_scale)
    for epoch in range(2):
        decoded.clear()
        one, other = batch_of(split, views, epoch), batch_of(kept, views, epoch)
        assert all(torch.equal(pixels(one, view), pixels(other, view)) for view in range(4))
    decoded.clear()
    batch_of(kept, views, 2)
    assert decoded and not {"3-plain.jpg", "lossless.png"} & set(decoded)  # too small, or no JPEG


def test_a_photograph_is_that_of_a_full_read_where_nothing_is_divided(folder: Path) -> None:
    split = read(folder)
    for index, path in enumerate(split.paths):
        item = open_image(path, 10**7)
        assert isinstance(item, Photograph) == (path.suffix == ".jpg")
        assert item.size == split[index].size
        image = item.decode() if isinstance(item, Photograph) else item
        assert isinstance(image, Image.Image) and image.tobytes() == split[index].tobytes()


@pytest.mark.parametrize("divisor", DIVISORS)
def test_a_scaled_image_is_the_average_of_its_pixels(folder: Path, divisor: int) -> None:
    for path in (folder / "turn-5.jpg", folder / "inks.jpg", folder / "1-plain.jpg"):
        photograph, full = (open_image(path, 10**7) for _ in range(2))
        assert isinstance(photograph, Photograph) and isinstance(full, Photograph)
        scaled, whole = photograph.decode(divisor), full.decode()
        assert isinstance(scaled, ScaledImage) and isinstance(whole, Image.Image)
        assert (scaled.size, scaled.divisor, scaled.width, scaled.height) == (whole.size, divisor, *whole.size)
        assert scaled.image.size == tuple(-(-side // divisor) for side in whole.size)
        reduced = whole.reduce(divisor)
        apart = np.asarray(scaled.image, np.float64) - np.asarray(reduced, np.float64)
        assert np.abs(apart[:-1, :-1]).mean() < 2  # without the edges, where blocks are not full


class Darkened(Subset):
    def __getitem__(self, index: int) -> Image.Image:
        image: Image.Image = super().__getitem__(index)
        return image.point(lambda level: level // 2)


def test_a_split_that_changes_its_items_is_not_passed_over(folder: Path) -> None:
    split = read(folder)
    assert isinstance(Subset(split, [0]).open_item(0), Photograph)
    darkened = Darkened(split, [0])
    assert isinstance(darkened.open_item(0), Image.Image)
    assert darkened.open_item(0).tobytes() == darkened[0].tobytes()


class Brighter(CropViews):
    def make(self, item: Any, view: int) -> Tensor:
        return super().make(item, view) + 1


def test_views_that_make_themselves_have_photographs_in_full() -> None:
    with pytest.raises(ContralexError, match="Brighter makes its views itself") as refused:
        Brighter(groups(), decoding="scaled")
    assert str(refused.value).endswith("--set method.views.decoding=full")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("method.views.engine=torchvision", "engine: torchvision does not say where a crop lies"),
        ("method.views.groups.crops.augment.order=[jitter, crop, gray, flip, blur]", "jitter happens before crop"),
    ],
)
def test_what_cannot_be_scaled_is_named(setting: str, sentence: str) -> None:
    with pytest.raises(ContralexError, match=f"decoding is scaled, and {sentence}.*; set decoding to full"):
        resolve("moco-v2", sets=["method.views.decoding=scaled", setting])


def test_the_decoding_is_part_of_the_digest_only_where_it_is_said() -> None:
    plain, said, other = (
        resolve("moco-v2", sets=sets) for sets in ([], ["method.views.decoding=full"], ["method.views.decoding=scaled"])
    )
    assert plain.digest == said.digest != other.digest
    assert "decoding" not in plain.data["method"]["views"] and other.data["method"]["views"]["decoding"] == "scaled"
