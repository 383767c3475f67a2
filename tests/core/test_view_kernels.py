"""Compiled kernels against Pillow, torchvision, and what is computed where numba is not installed: the same bits."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageFilter
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from contralex.kinds.views import blurs, engine, steps
from contralex.kinds.views.augment import Augment, Group
from contralex.kinds.views.drawing import makes_torchs_words
from contralex.kinds.views.engine import TensorEngine, load_kernels
from contralex.kinds.views.parameters import Box, ColourFactors, ViewParameters
from contralex.kinds.views.parts import CropViews
from tests.core.test_view_engine import AUGMENTS, FACTORS, IMAGES, UNUSUAL, levels, make_view, noise, photo, unscaled

pytestmark = pytest.mark.skipif(load_kernels() is None, reason="numba is not installed")


def change(name: str, values: dict[str, Any], drawn: ViewParameters, image: Any, compiled: bool) -> Tensor:
    """The image after one operation, as levels."""
    order = {"order": ["crop", name], "crop": {"size": 8, "scale": (1.0, 1.0)}, name: values}
    made = TensorEngine(Augment.model_validate(order))
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(engine, "load_kernels", lambda: None)
        return made._apply([name], engine.from_pillow(image).unsqueeze(0), [drawn])[0].float()


def one_change(number: int, factor: float) -> ViewParameters:
    factors: list[float | None] = [factor if at == number else None for at in range(4)]
    return ViewParameters(jitter=ColourFactors((2, 0, 3, 1), *factors))


JITTER = {"brightness": 1, "contrast": 1, "saturation": 1, "hue": 0.5}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("number", range(4))
def test_a_compiled_change_of_colour_is_pillows_bit_by_bit(name: str, number: int) -> None:
    theirs = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)[number]
    image = IMAGES[name]()
    for factor in [-0.5, -0.31, -0.004, 0.0, 0.1, 0.25, 0.5] if number == steps.HUE else FACTORS:
        for compiled in (True, False):
            made = change("jitter", JITTER, one_change(number, factor), image, compiled)
            assert torch.equal(made, levels(theirs(image, factor))), (factor, compiled)


@pytest.mark.parametrize("step", [3, 5])
def test_compiled_hues_of_every_colour_are_pillows(step: int) -> None:
    cube = torch.cartesian_prod(*[torch.arange(0, 256, step)] * 3).to(torch.uint8)
    image = engine.Image.fromarray(cube.view(len(range(0, 256, step)), -1, 3).numpy())
    for factor in (0.0, 0.13):
        made = change("jitter", JITTER, one_change(steps.HUE, factor), image, compiled=True)
        assert torch.equal(made, levels(F.adjust_hue(image, factor)))


@pytest.mark.parametrize("name", IMAGES)
def test_compiled_grey_mirrored_and_solarised_levels_are_pillows(name: str) -> None:
    image = IMAGES[name]()
    made = change("gray", {"p": 1.0}, ViewParameters(gray=True), image, True)
    assert torch.equal(made, levels(F.rgb_to_grayscale(image, 3)))
    made = change("flip", {"p": 1.0}, ViewParameters(flip=True), image, True)
    assert torch.equal(made, levels(F.horizontal_flip(image)))
    for threshold in (0.0, 0.3, 0.5, 1.0):
        made = change("solarize", {"p": 1.0, "threshold": threshold}, ViewParameters(solarize=True), image, True)
        assert torch.equal(made, levels(F.solarize(image, threshold * 255 + 0.5)))


@pytest.mark.parametrize("sigma", [0.1, 0.35, 0.5, 1.0, 1.3, 1.41, 1.42, 1.5, 2.0, 3.0, 4.0, 9.0, 60.0])
def test_a_compiled_blur_without_a_kernel_is_pillows_bit_by_bit(sigma: float) -> None:
    """Boxes that are summed in each way, and one that is wider than the image."""
    for image in (photo(), noise(), photo(33, 50), photo(3, 1)):
        wanted = levels(image.filter(ImageFilter.GaussianBlur(sigma)))
        assert torch.equal(change("blur", {"p": 1.0}, ViewParameters(blur=sigma), image, True), wanted)


@pytest.mark.parametrize("kernel", [3, 9, 23])
@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.7, 1.3, 2.0, 5.0])
def test_a_blur_with_a_kernel_is_the_same_bit_by_bit_and_torchvisions_but_for_ties(kernel: int, sigma: float) -> None:
    for image in (photo(), noise(), photo(33, 50)):
        compiled, plain = (
            change("blur", {"p": 1.0, "kernel": kernel}, ViewParameters(blur=sigma), image, either)
            for either in (True, False)
        )
        assert torch.equal(compiled, plain)
        apart = (compiled - levels(F.gaussian_blur(image, [kernel, kernel], [sigma, sigma]))).abs()
        assert apart.max() <= 1 and (apart > 0).float().mean() < 5e-4


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_that_are_resized_together_are_pillows_bit_by_bit(interpolation: Any) -> None:
    kernels = load_kernels()
    assert kernels is not None
    assert engine.enlarges_as_pillow(kernels)
    chance = np.random.default_rng(0)
    for size in (1, 8, 32, 64):
        images = [photo(*chance.integers(1, 90, 2).tolist()) for _ in range(30)] + [photo(400, 300)]
        boxes = []
        for image in images:
            height, width = (int(chance.integers(1, side + 1)) for side in (image.height, image.width))
            top, left = (int(chance.integers(0, room + 1)) for room in (image.height - height, image.width - width))
            boxes.append(Box(top, left, height, width))
        for _ in range(2):  # the second time their bytes are known
            made = engine.resize_together(kernels, images, boxes, size, interpolation)
            for at, (image, box) in enumerate(zip(images, boxes, strict=True)):
                assert torch.equal(
                    made[at], engine.from_pillow(engine.resize_by_pillow(image, box, size, interpolation))
                )


def test_a_pillow_that_enlarges_otherwise_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = load_kernels()
    assert kernels is not None
    theirs = engine.resize_by_pillow
    monkeypatch.setattr(engine, "resize_by_pillow", lambda *given: theirs(*given).point(lambda level: level ^ 1))
    assert not engine.enlarges_as_pillow.__wrapped__(kernels)


def test_levels_that_lie_on_a_half_are_rounded_up_by_both() -> None:
    """A kernel of (1/4, 1/2, 1/4) and stripes: every sum lies on a half, and float32 decides none of them."""
    sigma = 1 / np.sqrt(2 * np.log(2))
    assert blurs.whole_half_kernel(sigma, 3).tolist() == [1 << 21, 1 << 20]
    image = engine.Image.fromarray(np.tile(np.array([10, 11], np.uint8), (40, 20))[:, :, None].repeat(3, -1))
    for compiled in (True, False):
        made = change("blur", {"p": 1.0, "kernel": 3}, ViewParameters(blur=float(sigma)), image, compiled)
        assert (made == 11).all()


def test_a_kernel_that_reaches_beyond_an_image_is_refused_by_both() -> None:
    for compiled in (True, False):
        with pytest.raises(RuntimeError):
            change("blur", {"p": 1.0, "kernel": 23}, ViewParameters(blur=3.0), photo(6, 6), compiled)


@pytest.mark.parametrize("recipe", AUGMENTS)
def test_a_recipes_pipeline_is_the_same_with_and_without_kernels(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_both(AUGMENTS[recipe], range(4), monkeypatch)


@pytest.mark.parametrize("at", range(len(UNUSUAL)))
def test_an_unusual_pipeline_is_the_same_with_and_without_kernels(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_both(Augment.model_validate(UNUSUAL[at]), range(12), monkeypatch)


def compare_both(augment: Augment, seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, name in itertools.product(seeds, ("exact", "fused")):
        with monkeypatch.context() as patch:
            compiled, _ = make_view(name, augment, seed, photo())  # type: ignore[arg-type]
            patch.setattr(engine, "load_kernels", lambda: None)
            plain, _ = make_view(name, augment, seed, photo())  # type: ignore[arg-type]
        if name == "exact":
            assert torch.equal(compiled, plain)
        else:  # float32 decides otherwise what lies on a half, which RandAugment may make more of
            apart = unscaled(augment, compiled - plain)
            assert (apart > 0.5).float().mean() < 1e-3
            assert augment.rand_augment is not None or apart.max() < 1.01


@pytest.mark.parametrize("recipe", AUGMENTS)
def test_parameters_that_are_drawn_from_seeds_are_those_of_torchs_generator(recipe: str) -> None:
    """Images so narrow that few crops fit are among them."""
    made = TensorEngine(AUGMENTS[recipe])
    chance = np.random.default_rng(0)
    images = [engine.Image.new("RGB", tuple(sides)) for sides in chance.integers(1, 300, (60, 2)).tolist()]
    seeds = [2 * int(seed) + 1 for seed in chance.integers(0, 2**63, 60)]
    wanted = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds, strict=True):
            torch.manual_seed(seed)
            wanted.append(made.draw(image))
        assert made.draw_seeded(images, seeds) == wanted


def test_most_recipes_draw_by_kernels() -> None:
    kernels = load_kernels()
    assert kernels is not None
    assert makes_torchs_words(kernels)
    compiled = [recipe for recipe, augment in AUGMENTS.items() if TensorEngine(augment)._seeded.is_compiled]
    assert len(compiled) > len(AUGMENTS) / 2


class Brighter(CropViews):
    """Views that draw what others draw, but for the grey ones."""

    def draw_parameters(self, item: Any, view: int) -> Any:
        return replace(super().draw_parameters(item, view), gray=False)


def test_views_that_write_draw_parameters_alone_are_asked_for_them() -> None:
    group = {"two": Group.model_validate({"count": 2, "augment": UNUSUAL[0] | {"gray": {"p": 1.0}}})}
    with torch.random.fork_rng(devices=[]):
        ours, theirs = (views.draw_seeded([photo()], 1, [7])[0] for views in (Brighter(group), CropViews(group)))
    assert theirs.gray and ours == replace(theirs, gray=False)


@pytest.mark.parametrize("fused", [False, True])
def test_images_of_a_batch_go_through_their_own_steps(fused: bool) -> None:
    made = TensorEngine(Augment.model_validate(UNUSUAL[0]), fused)
    images = [photo(40 + at, 50) for at in range(20)]
    torch.manual_seed(3)
    parameters = [made.draw(image) for image in images]
    together = made.make(images, parameters)
    for image, values, view in zip(images, parameters, together, strict=True):
        assert torch.equal(view, made.make([image], [values])[0])


def test_without_numba_views_are_made_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    augment = Augment.model_validate(UNUSUAL[0])
    wanted, _ = make_view("exact", augment, 1, photo())
    monkeypatch.setitem(sys.modules, "contralex.kinds.views.kernels", None)
    monkeypatch.delattr("contralex.kinds.views.kernels")
    load_kernels.cache_clear()
    try:
        assert load_kernels() is None
        assert torch.equal(make_view("exact", augment, 1, photo())[0], wanted)
    finally:
        load_kernels.cache_clear()
