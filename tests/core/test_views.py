"""The core's views: every augmentation family of the reference sheet, and what its operations do to pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from pydantic import ValidationError
from torch.testing import assert_close
from torchvision.transforms import v2

from contralex.kinds.views.augment import Augment, Group
from contralex.kinds.views.parts import CropViews
from contralex.kinds.views.specs import CropsSpec
from contralex.kinds.views.transforms import PILBlur, augmentation

CIFAR = {"size": 32, "scale": (0.2, 1.0)}
BICUBIC = {"size": 32, "scale": (0.08, 1.0), "interpolation": "bicubic"}
A0: dict[str, Any] = {
    "order": ["crop", "gray", "jitter", "flip"],
    "crop": CIFAR,
    "gray": {"p": 0.2},
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4},
    "flip": {},
    "normalize": {},
}
A1: dict[str, Any] = {
    "order": ["crop", "jitter", "gray", "blur", "flip"],
    "crop": CIFAR,
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 0.8},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5},
    "flip": {},
    "normalize": {},
}
A2: dict[str, Any] = {
    "order": ["crop", "flip", "jitter", "gray", "blur"],
    "crop": BICUBIC,
    "flip": {},
    "jitter": {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "p": 0.8},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5, "kernel": 3},
}
A3: dict[str, Any] = {
    "order": ["crop", "flip", "jitter", "gray", "blur", "solarize"],
    "crop": BICUBIC,
    "flip": {},
    "jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1, "p": 0.8},
    "gray": {"p": 0.2},
    "blur": {"p": 0.1, "kernel": 3},
    "solarize": {"p": 0.2},
    "normalize": {},
}


_NONE = dict.fromkeys(("flip", "jitter", "gray", "blur"))


def one(**augment: Any) -> CropViews:
    return CropViews(groups={"all": Group.model_validate({"augment": augment})})


def whole(size: int = 32, **operations: Any) -> CropViews:
    """The whole image, then these operations."""
    crop = {"size": size, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    return one(order=["crop", *operations], crop=crop, **operations)


@pytest.fixture
def image() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))


def numbers(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("augment", [A0, A1, A2, A3], ids=["A0", "A1", "A2", "A3"])
def test_a_family_gives_tensors_of_its_size(augment: dict[str, Any], image: Image.Image) -> None:
    views = one(**augment)
    torch.manual_seed(0)
    made = [views.make(image, 0) for _ in range(8)]
    assert all(view.shape == (3, 32, 32) and view.dtype == torch.float32 for view in made)
    assert not torch.equal(made[0], made[1])
    pixels = torch.stack(made)
    if "normalize" in augment:  # black is (0 - .485) / .229, white (1 - .406) / .225
        assert -2.2 < pixels.min() < 0 and 0 < pixels.max() < 2.7
    else:  # SimCLR leaves pixels in [0, 1]
        assert pixels.min() >= 0 and pixels.max() <= 1


@pytest.mark.parametrize("augment", [A0, A1, A2, A3], ids=["A0", "A1", "A2", "A3"])
def test_operations_stand_in_the_order_that_the_spec_says(augment: dict[str, Any]) -> None:
    names = {
        v2.RandomResizedCrop: "crop",
        v2.ColorJitter: "jitter",
        v2.RandomGrayscale: "gray",
        v2.RandomHorizontalFlip: "flip",
        PILBlur: "blur",
        v2.GaussianBlur: "blur",
        v2.RandomSolarize: "solarize",
    }
    pipeline: Any = augmentation(Augment.model_validate(augment))
    steps = [step.transforms[0] if isinstance(step, v2.RandomApply) else step for step in pipeline.transforms]
    assert [names[type(step)] for step in steps if type(step) in names] == augment["order"]


def test_the_same_generator_state_gives_the_same_view(image: Image.Image) -> None:
    views = one(**A3)
    made = []
    for _ in range(2):
        torch.manual_seed(7)
        made.append(views.make(image, 0))
    assert torch.equal(made[0], made[1])


def test_multi_crop() -> None:
    def group(count: int, size: int, scale: tuple[float, float], key: bool) -> dict[str, Any]:
        augment = A2 | {"crop": {"size": size, "scale": scale}, "normalize": {}}
        return {"count": count, "key": key, "augment": augment}

    spec = CropsSpec.model_validate(
        {"groups": {"global": group(2, 64, (0.14, 1.0), True), "local": group(6, 28, (0.05, 0.14), False)}}
    )
    views = spec.build()
    image = Image.new("RGB", (100, 80), "teal")
    assert views.count == 8
    assert [views.make(image, view).shape[-1] for view in range(8)] == [64, 64] + [28] * 6
    assert spec.key_flags() == [True, True] + [False] * 6
    assert views.plain(image).shape == (3, 64, 64)  # evaluation sees what the first group's views look like


def small(**change: Any) -> dict[str, Any]:
    return {"count": 2, "key": False, "like": "globals", "crop": {"size": 28, "scale": (0.05, 0.14)}} | change


def test_a_group_may_be_like_another_but_for_its_crop(image: Image.Image) -> None:
    written_out = {"count": 2, "key": False, "augment": A3 | {"crop": {"size": 28, "scale": (0.05, 0.14)}}}
    both = [
        CropsSpec.model_validate({"groups": {"globals": {"count": 2, "augment": A3}, "locals": group}})
        for group in (small(), written_out)
    ]
    assert both[0].augments() == both[1].augments()
    assert both[0].augments()[2].crop.interpolation == "bilinear"  # the whole crop is its own
    assert both[0].key_flags() == both[1].key_flags() == [True, True, False, False]
    made = []
    for spec in both:
        views = spec.build()
        torch.manual_seed(3)
        made.append([views.make(image, view) for view in range(4)])
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))
    assert made[0][3].shape == (3, 28, 28)


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ({"globals": {"augment": A2}, "locals": small(like="global")}, "like is global; name .* of which there is g"),
        ({"locals": small(), "globals": {"augment": A2}}, "stands before it .* of which there is none"),
        ({"globals": {"augment": A2}, "a": small(), "b": small(like="a")}, "groups.b.like is a; .* there is globals"),
        ({"globals": {"augment": A2}, "locals": small(augment=A2)}, "either augment or like, and here are both"),
        ({"globals": {"count": 2}}, "either augment or like, and here is neither"),
        ({"globals": {"augment": A2}, "locals": {"like": "globals"}}, "like needs a crop, which is what differs"),
        ({"globals": {"augment": A2, "crop": CIFAR}}, "crop belongs into augment"),
        (
            {"globals": {"augment": A2 | {"order": ["crop", "jigsaw"], **_NONE, "jigsaw": {"cell": 10}}}, "b": small()},
            "jigsaw.cell is 10, and a crop of 28 pixels has cells of 9",
        ),
    ],
)
def test_a_group_that_is_like_nothing_is_refused(groups: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        CropsSpec.model_validate({"groups": groups})


def test_nothing_happens_with_probability_zero(image: Image.Image) -> None:
    off = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "p": 0.0}
    never = {"p": 0.0}
    views = whole(jitter=off, gray=never, flip=never, blur=never, solarize=never)
    assert_close(views.make(image, 0), numbers(image))


def test_gray_gives_three_equal_channels(image: Image.Image) -> None:
    made = whole(gray={"p": 1.0}).make(image, 0)
    assert_close(made, numbers(image.convert("L").convert("RGB")))


def test_flip_mirrors(image: Image.Image) -> None:
    assert_close(whole(flip={"p": 1.0}).make(image, 0), numbers(image).flip(-1))


def test_jitter_changes_colours_always_where_p_is_one(image: Image.Image) -> None:
    views = whole(jitter={"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.4})
    assert not any(torch.equal(views.make(image, 0), numbers(image)) for _ in range(20))


@pytest.mark.parametrize(("threshold", "first_inverted"), [(0.5, 128), (0.0, 1), (1.0, 256)])
def test_solarize_inverts_above_the_threshold(threshold: float, first_inverted: int) -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    made = whole(16, solarize={"p": 1.0, "threshold": threshold}).make(ramp, 0)
    values = torch.arange(256)
    expected = torch.where(values >= first_inverted, 255 - values, values)
    assert torch.equal((made[0] * 255).round().long().flatten(), expected)
    if threshold == 0.5:
        assert_close(made, numbers(ImageOps.solarize(ramp, 128)))


def test_blur_without_a_kernel_is_pils(image: Image.Image) -> None:
    made = whole(blur={"p": 1.0, "sigma": (1.5, 1.5)}).make(image, 0)
    assert_close(made, numbers(image.filter(ImageFilter.GaussianBlur(1.5))))


def test_blur_with_a_kernel_is_the_explicit_one(image: Image.Image) -> None:
    made = whole(blur={"p": 1.0, "sigma": (1.0, 1.0), "kernel": 5}).make(image, 0)
    line = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / 2)
    kernel = torch.outer(line, line) / line.sum() ** 2
    padded = torch.nn.functional.pad(numbers(image)[None], (2, 2, 2, 2), mode="reflect")
    expected = torch.nn.functional.conv2d(padded, kernel.expand(3, 1, 5, 5), groups=3)[0]
    assert (made - expected).abs().max() < 1.5 / 255  # it is rounded to bytes


def test_normalize_subtracts_the_mean_and_divides_by_the_deviation(image: Image.Image) -> None:
    made = one(**(A0 | {"order": ["crop"], "crop": {"size": 32, "scale": (1, 1), "ratio": (1, 1)}} | _without(A0)))
    expected = (numbers(image) - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    assert_close(made.make(image, 0), expected)


def _without(augment: dict[str, Any]) -> dict[str, None]:
    return {name: None for name in ("gray", "jitter", "flip") if name in augment}


def test_crops_have_the_area_and_ratio_that_were_asked_for() -> None:
    """The crop of a picture whose pixels are their own coordinates tells where it was taken."""
    across, down = np.meshgrid(np.arange(200), np.arange(200))
    image = Image.fromarray(np.stack([across, down, 0 * down], axis=-1).astype(np.uint8))
    views = one(order=["crop"], crop={"size": 100, "scale": (0.2, 0.5)})
    torch.manual_seed(0)
    for _ in range(30):
        made = views.make(image, 0) * 255
        width, height = (float(made[c].max() - made[c].min()) for c in (0, 1))
        assert 0.2 * 0.95 < width * height / 200**2 < 0.5 * 1.05
        assert 3 / 4 * 0.95 < width / height < 4 / 3 * 1.05


def test_evaluation_of_small_images_takes_the_whole_image_and_of_large_ones_the_middle() -> None:
    image = Image.new("RGB", (300, 200))
    small = one(order=["crop"], crop=CIFAR)
    large = one(order=["crop"], crop={"size": 112, "scale": (0.2, 1.0)})
    assert small.plain(image).shape == (3, 32, 32)
    assert large.plain(image).shape == (3, 112, 112)
    bordered = ImageOps.expand(Image.new("RGB", (112, 112), "white"), border=8, fill="black")  # 128 = 112 * 8/7
    assert large.plain(bordered).min() == 1


def test_evaluation_resizes_as_the_crops_do(image: Image.Image) -> None:
    for name, how in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        seen = one(order=["crop"], crop={"size": 112, "scale": (0.2, 1.0), "interpolation": name}).plain(image)
        wanted = image.resize((128, 128), how).crop((8, 8, 120, 120))
        assert torch.equal(seen, v2.functional.to_dtype(v2.functional.pil_to_tensor(wanted), torch.float32, scale=True))


def test_each_operation_of_rand_augment_happens_with_its_probability() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    whole = {"size": 32, "scale": (1, 1), "ratio": (1, 1)}

    def untouched(p: float) -> int:
        views = one(order=["crop", "rand_augment"], crop=whole, rand_augment={"ops": 2, "magnitude": 30, "p": p})
        torch.manual_seed(0)
        return sum(torch.equal(views.make(image, 0), views.plain(image)) for _ in range(400))

    assert untouched(0) == 400
    # Each of two is left out in half of the draws, and one of the 14 does nothing.
    assert untouched(0.5) / 400 == pytest.approx((0.5 + 0.5 / 14) ** 2, abs=0.06)
    assert untouched(1) < 20


def test_an_operation_without_a_place_in_the_order_is_refused() -> None:
    with pytest.raises(ValidationError, match="order does not say when flip happens"):
        one(order=["crop"], crop=CIFAR, flip={})
