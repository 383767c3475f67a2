"""Before a run starts, every backbone is shown what the views make; a size that it does not take is a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.version import Version
from PIL import Image

from contralex.data.base import Split, Unreadable
from contralex.errors import ContralexError
from contralex.kinds.backbones.specs import TimmBackboneSpec
from contralex.recipes.layers import resolve
from contralex.training import build, trial_forward
from contralex.training.run import train
from tests.noise import noise
from tests.train.tiny import TINY

HEAD = "method.encoder.projector=[{width: 128}]"
VIT = "method.encoder.backbone={kind: torchvision, name: vit_b_32}"


class Photographs(Split):
    def __init__(self, broken: int = 0) -> None:
        super().__init__()
        self.broken = broken

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Image.Image:
        if index < self.broken:
            raise Unreadable(f"{index}.jpg", "it is cut off")
        return noise((60, 50), 90, index).convert("RGB")


def check(recipe: str, *sets: str, split: Split | None = None) -> None:
    spec = resolve(
        recipe, preset="digits", sets=["train.precision=fp32", "train.batch_size=4", "train.batch_norm=local", *sets]
    ).run
    views, data = spec.method.views.build(), split or Photographs()
    method = build.look_up(spec, 20, [index % 2 for index in range(20)])
    before = [buffer.clone() for buffer in method.buffers()]
    state = torch.random.get_rng_state()
    try:
        samples = trial_forward.first_samples(spec, data, views)
        trial_forward.show(spec, method, samples, 20, torch.device("cpu"))
    finally:
        assert torch.equal(state, torch.random.get_rng_state())
        assert all(torch.equal(buffer, then) for buffer, then in zip(method.buffers(), before, strict=True))
        assert method.encoder.training


@pytest.mark.parametrize(
    ("recipe", "sets", "said", "cures"),
    [
        (
            "dino",  # of two sizes, 32 and 20
            [VIT],
            r"method\.encoder\.backbone \(vit_b_32\) cannot take the 32x32 images of 3 channels .*It takes 224x224\.",
            [f"method.views.groups.{name}.augment.crop.size=224" for name in ("globals", "second", "locals")],
        ),
        (
            "pirl",
            [VIT],
            "cannot take the",
            [
                "method.views.groups.image.augment.crop.size=224",
                "method.views.groups.jigsaw.augment.crop.size=448",
                "method.views.groups.jigsaw.augment.jigsaw.cell=224",
            ],
        ),
        (
            "moco-v2",
            ["method.encoder.backbone={kind: torchvision, name: alexnet}"],
            r"\(alexnet\) cannot take the 32x32 images .*It takes 63x63\.",
            ["method.views.groups.crops.augment.crop.size=63"],
        ),
        (
            "moco-v2",
            ["method.encoder.backbone={kind: conv, channels: 1, widths: [4], strides: [4]}"],
            r"\(conv\) cannot take the 32x32 images of 3 channels .*It takes 1 channels\.",
            ["method.encoder.backbone.channels=3"],
        ),
        (
            "swav",  # small crops are `like` the large ones
            [VIT],
            r"cannot take the",
            [f"method.views.groups.{group}.size=224" for group in ("globals.augment.crop", "locals.crop")],
        ),
    ],
)
def test_an_image_that_a_backbone_cannot_take_is_a_sentence_whose_cure_cures(
    recipe: str, sets: list[str], said: str, cures: list[str]
) -> None:
    sets = [*sets, HEAD]
    with pytest.raises(ContralexError, match=said) as found:
        check(recipe, *sets)
    cure = str(found.value).split("\n")[-1].split()
    assert cure == [word for setting in cures for word in ("--set", setting)]
    check(recipe, *sets, *cures)


def test_the_teacher_of_a_run_is_shown_its_own_views(tmp_path: Path, images: Path) -> None:
    fixed = ["method.encoder.backbone={kind: vit, image_size: 32, patch: 8, width: 8, depth: 1, heads: 2}", HEAD]
    tiny = [*TINY[1:], "train.max_steps=1", f"data={{kind: image_folder, root: {images}}}"]
    train(resolve("moco-v2", preset="digits", sets=[*tiny, *fixed, "method.negatives.size=8"]), tmp_path / "teacher")
    frozen = f"method.key_encoder={{kind: frozen, checkpoint: {tmp_path / 'teacher'}}}"
    with pytest.raises(ContralexError, match=r"image_size is 32, and an image of 16x16 pixels") as found:
        check(
            "byol",
            TINY[0],
            HEAD,
            "method.encoder.predictor=[{width: 128}]",
            frozen,
            *(f"method.views.groups.{name}.augment.crop.size=16" for name in ("first", "second")),
        )
    assert "any_size=true" in str(found.value)


def test_unreadable_images_are_stepped_over() -> None:
    with pytest.raises(ContralexError, match="cannot take the 32x32"):
        check("moco-v2", VIT, HEAD, split=Photographs(broken=7))
    with pytest.raises(ContralexError, match="cannot be read"):
        check("moco-v2", VIT, HEAD, split=Photographs(broken=20))


RECIPES = ("byol", "clip", "cmc", "cpc", "cpc-v2", "crd", "dino", "infomin", "mae", "pirl", "swav")


@pytest.mark.parametrize("recipe", RECIPES)
def test_first_party_recipes_pass(recipe: str) -> None:
    class Captioned(Photographs):
        def __getitem__(self, index: int) -> Any:
            image = super().__getitem__(index)
            image.info["caption"] = "a photo"
            return image

    check(recipe, split=Captioned())


def test_the_run_says_it_before_it_trains(images: Path, tmp_path: Path) -> None:
    sets = [*TINY[1:], VIT, HEAD, "method.negatives.size=8", f"data={{kind: image_folder, root: {images}}}"]
    with pytest.raises(ContralexError, match="Wrong image height! Expected 224 but got 32!") as found:
        train(resolve("moco-v2", preset="digits", sets=sets), tmp_path / "run")
    assert found.value.exit_code == 2
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_timms_models_take_other_sizes_where_they_can(name: str) -> None:
    timm = pytest.importorskip("timm")
    if name.startswith("swin") and Version(timm.__version__) < Version("1.0.31"):
        pytest.skip("before timm 1.0.31 a Swin takes images of one size, and any other is refused")
    torch.manual_seed(0)
    model, width = TimmBackboneSpec(name=name).build()
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=0).eval()
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(model.eval()(image), plain(image))  # at its own size it is the same model
        for size in (32, 96, 288):
            assert model(torch.rand(2, 3, size, size)).shape == (2, width)
