"""The view engine against torchvision: the same parameters, the same pixels, the same state of the generator."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from contralex.data.base import Split
from contralex.data.loading import ViewDataset, collate, load, mix_seed, unpack
from contralex.data.views import Views
from contralex.kinds.views import blurs, colours, engine
from contralex.kinds.views.augment import Augment, Crop, EngineName, Group, Jitter
from contralex.kinds.views.chance import Chance
from contralex.kinds.views.engine import TensorEngine, load_pixels, make_engine, may_resize_by_torch, resize_crop
from contralex.kinds.views.fusing import change_colours
from contralex.kinds.views.parameters import Box, ColourFactors, ViewParameters, draw_colour_factors
from contralex.kinds.views.parts import CropViews
from contralex.plugins.registry import registry
from contralex.recipes.layers import resolve

FACTORS = [0.0, 0.2, 0.9, 1.0, 1.4, 1.8]


@functools.cache
def photo(width: int = 100, height: int = 75) -> Image.Image:
    """Waves of colour, edges, and noise: all hues, greys, black and white."""
    y, x = np.mgrid[:height, :width]
    waves = [127 + 140 * np.sin(x / (7 + 3 * c) + c) * np.cos(y / (5 + 2 * c)) for c in range(3)]
    image = np.stack(waves, -1) + np.random.default_rng(0).normal(0, 12, (height, width, 3))
    image[: height // 4, : width // 4] = image[: height // 4, : width // 4].mean(-1, keepdims=True)
    image[height // 2 :, width // 2 :] += 60 * ((x + y) // 9 % 2)[height // 2 :, width // 2 :, None]
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8))


def dull(side: int = 64) -> Image.Image:
    """Nearly grey: where hues jump most."""
    chance = np.random.default_rng(2)
    grey = chance.integers(0, 250, (side, side, 1)) + chance.integers(0, 6, (side, side, 3))
    return Image.fromarray(grey.astype(np.uint8))


IMAGES: dict[str, Callable[[], Image.Image]] = {"photo": photo, "noise": noise, "dull": dull}


def levels(image: Image.Image) -> Tensor:
    return load_pixels(image)[0]


def seeded(make: Callable[[], Tensor], seed: int) -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = make()
        return made, torch.get_rng_state()


# --- chance


def test_numbers_that_are_read_ahead_are_those_of_single_calls() -> None:
    """The first draws and those of later words; the generator stands where it would."""
    for seed in range(200):
        torch.manual_seed(seed)
        wanted: list[Any] = []
        for _ in range(1 + seed % 9):
            wanted += [torch.rand(1).item(), torch.empty(1).uniform_(0.2, 1.0).item(), torch.randperm(4).tolist()]
            wanted += [int(torch.randint(3 + 7 * seed, ())), float(torch.empty(()).uniform_(-0.2876, 0.2876))]
        state = torch.get_rng_state()
        torch.manual_seed(seed)
        found: list[Any] = []
        with Chance() as chance:
            for _ in range(1 + seed % 9):
                found += [chance.fraction(), chance.uniform(0.2, 1.0), chance.permutation(4)]
                found += [chance.below(3 + 7 * seed), chance.uniform(-0.2876, 0.2876)]
        assert found == wanted
        assert torch.equal(torch.get_rng_state(), state)


def test_between_numbers_that_are_read_ahead_others_may_ask_the_generator() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3).tolist()
    torch.manual_seed(1)
    with Chance() as chance:
        first = chance.fraction()
        chance.catch_up()
        second = torch.rand(1).item()
        assert [first, second, chance.fraction()] == wanted


# --- operations


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colours.adjust_brightness, F.adjust_brightness),
        (colours.adjust_contrast, F.adjust_contrast),
        (colours.adjust_saturation, F.adjust_saturation),
    ],
)
def test_a_blend_is_pillows_bit_by_bit(name: str, factor: float, ours: Any, theirs: Any) -> None:
    image = IMAGES[name]()
    assert torch.equal(ours(load_pixels(image), [factor])[0], levels(theirs(image, factor)))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("factor", [-0.5, -0.31, -0.004, 0.0, 0.1, 0.25, 0.5])
def test_a_hue_is_pillows_bit_by_bit(name: str, factor: float) -> None:
    image = IMAGES[name]()
    assert torch.equal(colours.adjust_hue(load_pixels(image), [factor])[0], levels(F.adjust_hue(image, factor)))


def test_hues_of_every_colour_are_pillows() -> None:
    """A cube of colours, four levels apart."""
    cube = torch.cartesian_prod(*[torch.arange(0, 256, 4)] * 3).to(torch.uint8).view(512, 512, 3)
    image = Image.fromarray(cube.numpy())
    for factor in (0.0, 0.13):
        assert torch.equal(colours.adjust_hue(load_pixels(image), [factor])[0], levels(F.adjust_hue(image, factor)))


@pytest.mark.parametrize("name", IMAGES)
def test_grey_and_solarised_levels_are_pillows(name: str) -> None:
    image = IMAGES[name]()
    assert torch.equal(colours.to_gray(load_pixels(image))[0], levels(F.rgb_to_grayscale(image, 3)))
    for threshold in (0.5, 128.0, 255.5):
        assert torch.equal(colours.solarize(load_pixels(image), threshold)[0], levels(F.solarize(image, threshold)))


def test_a_contrast_of_a_large_image_is_about_its_exact_mean() -> None:
    image = Image.new("RGB", (700, 500), (255, 254, 255))  # whose sum no float32 holds
    assert torch.equal(colours.adjust_contrast(load_pixels(image), [0.5])[0], levels(F.adjust_contrast(image, 0.5)))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("sigma", [0.1, 0.35, 0.5, 1.0, 1.3, 1.41, 1.42, 1.5, 2.0, 3.0, 9.0])
def test_a_blur_without_a_kernel_is_pillows_bit_by_bit(name: str, sigma: float) -> None:
    image = IMAGES[name]()
    wanted = levels(image.filter(ImageFilter.GaussianBlur(sigma)))
    assert torch.equal(blurs.blur_as_pillow(load_pixels(image), sigma)[0], wanted)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("kernel", [3, 9, 23])
@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.7, 1.3, 2.0, 5.0])
def test_a_blur_with_a_kernel_is_torchvisions_but_for_ties(name: str, kernel: int, sigma: float) -> None:
    image = IMAGES[name]()
    wanted = levels(F.gaussian_blur(image, [kernel, kernel], [sigma, sigma]))
    apart = (blurs.blur_as_torchvision(load_pixels(image), sigma, kernel)[0] - wanted).abs()
    assert apart.max() <= 1 and (apart > 0).float().mean() < 5e-4


def test_a_blur_of_an_image_that_is_no_multiple_of_a_block() -> None:
    image = photo(33, 50)
    wanted = levels(F.gaussian_blur(image, [9, 9], [1.5, 1.5]))
    assert (blurs.blur_as_torchvision(load_pixels(image), 1.5, 9)[0] - wanted).abs().max() <= 1


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [32, 64, 96, 224])
@pytest.mark.parametrize("box", [Box(10, 20, 40, 60), Box(0, 0, 300, 400), Box(5, 9, 240, 260), Box(70, 3, 1, 2)])
def test_a_crop_is_pillows_to_a_level(interpolation: Any, size: int, box: Box) -> None:
    image = photo(400, 300)
    wanted = levels(
        F.resized_crop(
            image, box.top, box.left, box.height, box.width, [size, size], F.InterpolationMode(interpolation)
        )
    )
    by_torch = may_resize_by_torch(image, box, Crop(size=size, scale=(0.1, 1), interpolation=interpolation))
    apart = (resize_crop(image, box, size, interpolation, by_torch) - wanted).abs()
    assert apart.max() <= by_torch
    assert (apart > 0).float().mean() < 0.05


def test_torch_resizes_where_it_is_within_a_level() -> None:
    image = photo(400, 300)
    crops = [Crop(size=224, scale=(0.1, 1), interpolation=name) for name in ("bilinear", "bicubic")]
    for box, wanted in (
        (Box(10, 20, 40, 60), [True, False]),
        (Box(0, 9, 240, 260), [True, True]),
        (Box(0, 0, 300, 400), [False, False]),
    ):
        assert [may_resize_by_torch(image, box, crop) for crop in crops] == wanted
    assert not may_resize_by_torch(image, Box(0, 9, 240, 260), Crop(size=64, scale=(0.1, 1)))


# --- pipelines


def augments() -> dict[str, Augment]:
    """What each installed recipe does to an image, each once."""
    found: dict[str, Augment] = {}
    for name in sorted(registry().recipes()):
        for view, augment in enumerate(resolve(name).run.method.views.augments() or ()):
            if Augment.model_validate(dict(augment)) not in found.values():
                found[f"{name} {view}"] = Augment.model_validate(dict(augment))
    return found


AUGMENTS = augments()


def make_view(name: EngineName, augment: Augment, seed: int, image: Image.Image) -> tuple[Tensor, Tensor]:
    made = make_engine(name, augment)
    return seeded(lambda: made.make([image], [made.draw(image)])[0], seed)


def make_both(augment: Augment, seed: int, image: Image.Image) -> list[tuple[Tensor, Tensor]]:
    return [make_view("exact", augment, seed, image), make_view("torchvision", augment, seed, image)]


def unscaled(augment: Augment, difference: Tensor) -> Tensor:
    """In levels of 255."""
    std = augment.normalize.std if augment.normalize else (1.0, 1.0, 1.0)
    return difference.abs() * 255 * torch.tensor(std).view(3, 1, 1)


@pytest.mark.parametrize("recipe", AUGMENTS)
def test_a_recipes_pipeline_is_torchvisions(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With Pillow's resizing all is equal; but an explicit kernel's ties may grow in what follows."""
    monkeypatch.setattr(engine, "_BY_PILLOW", 10_000)
    augment = AUGMENTS[recipe]
    ties = augment.blur is not None and augment.blur.kernel is not None
    for seed in range(4):
        (ours, state), (theirs, their_state) = make_both(augment, seed, photo())
        assert torch.equal(state, their_state)
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == torch.float32
        apart = unscaled(augment, ours - theirs)
        assert (apart > 1e-3).float().mean() <= (0.01 if ties else 0)


@pytest.mark.parametrize("recipe", AUGMENTS)
def test_a_recipes_pipeline_is_torchvisions_to_rounding(recipe: str) -> None:
    augment = AUGMENTS[recipe]
    for seed in range(4):
        (ours, state), (theirs, their_state) = make_both(augment, seed, photo())
        assert torch.equal(state, their_state)
        # A level more or less, of few pixels; of all where it moves the mean about which contrast changes.
        assert unscaled(augment, ours - theirs).mean() < 0.6


EVERYTHING: dict[str, Any] = {
    "order": ["crop", "jitter", "gray", "flip", "blur", "solarize"],
    "crop": {"size": 24, "scale": (0.2, 1.0)},
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2, "p": 0.7},
    "gray": {"p": 0.3},
    "flip": {},
    "blur": {"p": 0.5},
    "solarize": {"p": 0.3},
    "normalize": {},
}
UNUSUAL: list[dict[str, Any]] = [
    EVERYTHING,
    EVERYTHING | {"order": ["flip", "jitter", "crop", "gray", "blur", "solarize"]},
    EVERYTHING | {"order": [*EVERYTHING["order"], "rand_augment"], "rand_augment": {"magnitude": 12}},
    EVERYTHING | {"order": [*EVERYTHING["order"], "rand_augment"], "rand_augment": {"p": 0.5, "ops": 3}},
    EVERYTHING
    | {"order": ["crop", "rand_augment"], "rand_augment": {"law": "tensorflow", "cutout": 9, "spread": 0.5, "ops": 4}}
    | dict.fromkeys(("jitter", "gray", "flip", "blur", "solarize")),
    EVERYTHING | {"order": ["crop", "flip", "jigsaw", "jitter", "gray", "blur", "solarize"], "jigsaw": {"cell": 6}},
    EVERYTHING | {"crop": {"size": 24, "scale": (0.2, 1.0), "drawn": "height", "interpolation": "bicubic"}},
    EVERYTHING | {"jitter": {"brightness": 0.8, "contrast": 0, "saturation": 2.0, "hue": 0}},
]


@pytest.mark.parametrize("at", range(len(UNUSUAL)))
def test_unusual_pipelines_are_torchvisions(at: int) -> None:
    augment = Augment.model_validate(UNUSUAL[at])
    for seed in range(40):
        (ours, state), (theirs, their_state) = make_both(augment, seed, photo())
        assert torch.equal(state, their_state), seed
        assert torch.equal(ours, theirs), seed


@pytest.mark.parametrize("size", [(1000, 3), (3, 1000), (2, 2), (1, 1)])
def test_a_crop_that_does_not_fit_is_drawn_as_torchvisions(size: tuple[int, int]) -> None:
    augment = Augment.model_validate({"order": ["crop"], "crop": {"size": 8, "scale": (0.5, 1.0)}})
    for seed in range(5):
        (ours, state), (theirs, their_state) = make_both(augment, seed, photo(*size))
        assert torch.equal(state, their_state) and torch.equal(ours, theirs)


# --- the fused engine


def grey_level(pixels: Tensor) -> Tensor:
    return (pixels * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)).sum(0)


def unrounded(pixels: Tensor, factors: ColourFactors) -> Tensor:
    """The changes one after the other, in float64, without rounding and without clamping."""
    for number in factors.order:
        grey = grey_level(pixels)
        if number == 0 and factors.brightness is not None:
            pixels = pixels * factors.brightness
        elif number == 1 and factors.contrast is not None:
            pixels = grey.mean() + factors.contrast * (pixels - grey.mean())
        elif number == 2 and factors.saturation is not None:
            pixels = grey + factors.saturation * (pixels - grey)
    return pixels


@pytest.mark.parametrize("seed", range(6))
def test_fused_colours_are_the_changes_one_after_the_other(seed: int) -> None:
    torch.manual_seed(seed)
    jitter = Jitter(brightness=0.6, contrast=0.6, saturation=0.6, hue=0)
    with Chance() as chance:
        factors = [draw_colour_factors(chance, jitter) for _ in range(3)]
    images = torch.cat([load_pixels(image) for image in (photo(64, 64), noise(), dull())])
    parameters = [ViewParameters(jitter=each, gray=at == 1) for at, each in enumerate(factors)]
    made = change_colours(images, ["jitter", "gray"], parameters)
    for image, view, values in zip(images, made, parameters, strict=True):
        assert values.jitter is not None
        wanted = unrounded(image.double(), values.jitter)
        if values.gray:
            wanted = grey_level(wanted).expand(3, -1, -1)
        assert (view - wanted).abs().max() < 0.02


def test_a_fused_hue_keeps_the_grey_level_and_turns_as_the_exact_one_does() -> None:
    primaries = torch.tensor([[200.0, 60, 60], [60, 200, 60], [60, 60, 200]]).T.view(1, 3, 1, 3)
    for turns, wanted in ((1 / 3, [1, 2, 0]), (-1 / 3, [2, 0, 1]), (0.0, [0, 1, 2])):
        values = ViewParameters(jitter=ColourFactors((0, 1, 2, 3), None, None, None, turns))
        made = change_colours(primaries, ["jitter"], [values])
        assert (colours.luma(made) - colours.luma(primaries)).abs().max() <= 1
        assert made[0].argmax(0).flatten().tolist() == wanted  # red turns to green, green to blue
        exact = colours.adjust_hue(primaries.clone(), [turns])
        assert exact[0].argmax(0).flatten().tolist() == wanted


@pytest.mark.parametrize("sigma", [0.3, 1.0, 1.9])
@pytest.mark.parametrize("kernel", [None, 9])
def test_a_fused_blur_is_the_exact_one_without_rounding(sigma: float, kernel: int | None) -> None:
    pixels = load_pixels(photo())
    wanted = blurs.blur_as_pillow(pixels, sigma) if kernel is None else blurs.blur_as_torchvision(pixels, sigma, kernel)
    inner = (slice(None), slice(None), slice(9, -9), slice(9, -9))  # Pillow repeats borders, torchvision mirrors them
    apart = (blurs.blur_smoothly(pixels, sigma, kernel) - wanted)[inner].abs()
    assert apart.max() < (3 if kernel is None else 0.51)  # Pillow rounds six times, by a half at most
    assert apart.mean() < 1


@pytest.mark.parametrize("recipe", AUGMENTS)
def test_the_fused_engine_draws_the_same_and_makes_about_the_same(recipe: str) -> None:
    augment = AUGMENTS[recipe]
    apart = []
    for seed in range(6):
        exact, state = make_view("exact", augment, seed, photo())
        fused, fused_state = make_view("fused", augment, seed, photo())
        assert torch.equal(state, fused_state) and exact.shape == fused.shape
        apart.append(float(unscaled(augment, exact - fused).mean()))
    assert sum(apart) / 6 < 30  # of 255: hues turn otherwise, and what RandAugment makes of that


def test_what_is_not_linear_ends_a_fused_run() -> None:
    """Clamped and solarised where it stands in the order."""
    crop = {"size": 32, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    jitter = {"brightness": 2.0, "contrast": 0, "saturation": 0, "hue": 0}
    always = {name: {"p": 1.0} for name in ("solarize", "gray", "flip")}
    order = ["crop", "jitter", "solarize", "gray", "flip"]
    augment = Augment.model_validate({"order": order, "crop": crop, "jitter": jitter} | always)
    for seed in range(5):
        exact, _ = make_view("exact", augment, seed, noise(32))
        fused, _ = make_view("fused", augment, seed, noise(32))
        apart = (exact - fused).abs() * 255
        assert (apart > 2).float().mean() < 0.02  # but where half a level decides what is inverted


# --- many images at once


def test_every_order_of_the_changes_is_found_in_one() -> None:
    for order in itertools.permutations(range(4)):
        left = iter(engine.EVERY_ORDER)
        assert all(number in left for number in order)


@pytest.mark.parametrize("fused", [False, True])
def test_images_that_are_made_together_are_those_made_alone(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_OF_SMALL", 100_000)  # 57 of them
    made = TensorEngine(Augment.model_validate(EVERYTHING), fused)
    images = [photo(40 + n, 50) for n in range(150)]
    torch.manual_seed(3)
    parameters = [made.draw(image) for image in images]
    together = made.make(images, parameters)
    assert len(together) == 150
    for image, values, view in zip(images, parameters, together, strict=True):
        alone = made.make([image], [values])[0]
        assert torch.equal(view, alone)


class Photos(Split):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return photo(60 + index, 40)


def crops(name: EngineName = "exact") -> CropViews:
    groups = {"two": Group.model_validate({"count": 2, "augment": EVERYTHING})}
    return CropViews(groups, name)


def test_items_that_are_fetched_together_are_those_fetched_alone() -> None:
    data = ViewDataset(Photos(), crops(), seed=1, batch=4)
    wanted = [(2, index) for index in (7, 1, 4)]
    state = torch.get_rng_state()
    together = data.__getitems__(wanted)
    assert torch.equal(torch.get_rng_state(), state)
    for at, item in zip(wanted, together, strict=True):
        alone = data[at]
        assert item["index"] == alone["index"]
        assert all(torch.equal(item["views"][view], alone["views"][view]) for view in range(2))
    (batch,) = load(data, collate, batch_sampler=[wanted])
    assert torch.equal(batch["views"][1], torch.stack([item["views"][1] for item in together]))


def test_every_engine_draws_from_the_seed_of_its_sample() -> None:
    for name in ("exact", "fused", "torchvision"):
        views = crops(name)
        item = ViewDataset(Photos(), views, seed=1, batch=4)[3, 5]
        for view in range(2):
            wanted, _ = seeded(lambda view=view, views=views: views.make(photo(65, 40), view), mix_seed(1, 3, 5, view))  # type: ignore[misc]
            assert torch.equal(item["views"][view], wanted)


@pytest.mark.parametrize("recipe", AUGMENTS)
@pytest.mark.parametrize("name", ["exact", "fused", "torchvision"])
def test_a_batch_that_travels_packed_is_the_same_bit_by_bit(recipe: str, name: EngineName) -> None:
    views = CropViews({"two": Group.model_validate({"count": 2, "augment": AUGMENTS[recipe]})}, name)
    plain, packed = (
        collate(ViewDataset(Photos(), views, seed=1, batch=4, packed=packed).__getitems__([(0, 3), (0, 7)]))
        for packed in (False, True)
    )
    made = unpack(packed, views)
    for view in range(2):
        assert torch.equal(made["views"][view], plain["views"][view])
        assert made["views"][view].is_contiguous()
        assert packed["views"][view].dtype == (torch.float32 if name == "torchvision" else torch.uint8)


def test_views_of_others_travel_as_they_made_them() -> None:
    darker = Darker({"two": Group.model_validate({"count": 2, "augment": EVERYTHING})})
    for views in (darker, Alone()):
        plain, packed = (
            collate([ViewDataset(Photos(), views, seed=1, batch=4, packed=packed)[0, 3]]) for packed in (False, True)
        )
        assert torch.equal(unpack(packed, views)["views"][0], plain["views"][0])


class Darker(CropViews):
    """Views that change what the core's views make."""

    def make(self, item: Any, view: int) -> Tensor:
        return super().make(item, view) - 1


class Alone(Views):
    """Views that know nothing of parameters."""

    count = 1

    def make(self, item: Any, view: int) -> Tensor:
        return torch.rand(2).add(item.width)

    def plain(self, item: Any) -> Tensor:
        return torch.zeros(2)


def test_views_that_write_make_alone_are_asked_for_it() -> None:
    darker = Darker({"two": Group.model_validate({"count": 2, "augment": EVERYTHING})})
    ours, theirs = (ViewDataset(Photos(), views, seed=1, batch=4)[0, 3]["views"] for views in (darker, crops()))
    assert torch.equal(ours[1], theirs[1] - 1)
    item = ViewDataset(Photos(), Alone(), seed=1, batch=4)[0, 3]["views"][0]
    assert torch.equal(item, seeded(lambda: torch.rand(2) + 63, mix_seed(1, 0, 3, 0))[0])


# --- recipes


def test_the_default_engine_changes_no_digest_and_another_one_is_part_of_it() -> None:
    plain, same, other = (
        resolve("moco-v2", sets=[f"method.views.engine={name}"] if name else [])
        for name in (None, "exact", "torchvision")
    )
    assert plain.digest == same.digest != other.digest
    assert "engine" not in plain.data["method"]["views"]
    assert other.data["method"]["views"]["engine"] == "torchvision"
