"""Backbones that give their places: features and places of one pass, and the grid that they lie in."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.kinds.backbones.specs import ConvBackboneSpec, TimmBackboneSpec, TorchvisionBackboneSpec
from contralex.lookup.slots import PlacesBackbone
from contralex.plugins.spec import Spec

TORCHVISION = ["resnet18", "resnext50_32x4d", "regnet_y_400mf", "efficientnet_b0", "convnext_tiny", "swin_t"]
TIMM = ["resnet10t", "seresnet18", "regnetx_002", "efficientnet_b0", "convnext_atto", "vit_tiny_patch16_224"]


def build(spec: Spec) -> tuple[Any, int]:
    torch.manual_seed(0)
    model, width = spec.build()
    return model, width


def image(height: int, width: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def pool(places: Tensor, norm: Tensor | None = None) -> Tensor:
    return places.mean(dim=1) if norm is None else norm


def check(model: Any, width: int, images: Tensor) -> Tensor:
    """One pass gives today's features to the bit, and as many places as the grid says; return those."""
    assert isinstance(model, PlacesBackbone)
    model.eval()
    with torch.no_grad():
        pooled, places = model.encode_places(images)
        assert torch.equal(pooled, model(images))
    rows, columns = model.grid(images)
    assert pooled.shape == (len(images), width)
    assert places.shape == (len(images), rows * columns, width)
    with torch.no_grad():  # row by row: a wider image has more columns, and its places follow one another in a row
        assert places.unflatten(1, (rows, columns)).shape[1:3] == (rows, columns)
    return places


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    model, width = build(TorchvisionBackboneSpec(name=name))
    images = image(70, 100)
    places = check(model, width, images)
    if name.startswith(("res", "reg", "eff")):  # where nothing but the mean comes after the map
        torch.testing.assert_close(model(images), places.mean(dim=1))


@pytest.mark.parametrize(("size", "stem", "places"), [(32, "small", 16), (33, "small", 25), (64, "imagenet", 4)])
def test_stems_of_resnets(size: int, stem: Any, places: int) -> None:
    model, width = build(TorchvisionBackboneSpec(name="resnet18", stem=stem, width=0.25, channels=3))
    assert check(model, width, image(size, size)).shape[1] == places


def test_torchvision_vit_gives_its_patches() -> None:
    model, width = build(TorchvisionBackboneSpec(name="vit_b_32"))
    places = check(model, width, image(224, 224, count=1))
    assert places.shape[1] == 49


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    pytest.importorskip("timm")
    model, width = build(TimmBackboneSpec(name=name))
    check(model, width, image(80, 112))


def test_timm_swin_and_registers() -> None:
    pytest.importorskip("timm")
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    from contralex.kinds.backbones.timm_places import FAMILIES

    sizes = {"img_size": 64, "embed_dim": 8, "num_classes": 0}
    from contralex.kinds.backbones.places import give_places

    swin = SwinTransformer(window_size=2, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), **sizes)
    check(give_places(swin, FAMILIES), 64, image(64, 64))
    vit = VisionTransformer(patch_size=16, depth=1, num_heads=2, reg_tokens=3, **sizes)
    assert check(give_places(vit, FAMILIES), 8, image(64, 64)).shape[1] == 16


def test_conv() -> None:
    model, width = build(ConvBackboneSpec(widths=(4, 6, 8), strides=(1, 2, 2)))
    images = image(17, 22)
    places = check(model, width, images)
    assert model.grid(images) == (5, 6)
    map_ = nn.Sequential(*list(model)[:-2])(images)  # one place after the other, by hand
    for row in range(5):
        for column in range(6):
            assert torch.equal(places[:, row * 6 + column], map_[:, :, row, column])


def test_in_training_features_and_statistics_are_the_same() -> None:
    model, _ = build(TorchvisionBackboneSpec(name="resnet18", stem="small", width=0.25))
    other = copy.deepcopy(model)
    assert type(other) is type(model)
    images = image(32, 32, count=4)
    pooled, places = model.encode_places(images)
    assert torch.equal(pooled, other(images))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True))
    (pooled.sum() + places.square().sum()).backward()
    assert model.conv1.weight.grad.abs().sum() > 0


def test_a_module_is_still_torchvisions_and_can_be_saved_whole() -> None:
    from torchvision import models

    model, _ = build(TorchvisionBackboneSpec(name="resnet18"))
    assert isinstance(model, models.ResNet)
    plain = models.resnet18()
    plain.fc = nn.Identity()
    assert list(model.state_dict()) == list(plain.state_dict())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False).eval()
    assert torch.equal(again(image(32, 32)), model.eval()(image(32, 32)))


def test_who_says_that_it_gives_places_does() -> None:
    assert "places" in ConvBackboneSpec().offers()
    assert "places" not in TorchvisionBackboneSpec(name="alexnet").offers()
    assert "places" not in TorchvisionBackboneSpec(name="vgg11").offers()
    assert not isinstance(build(TorchvisionBackboneSpec(name="alexnet"))[0], PlacesBackbone)
    assert all("places" in TorchvisionBackboneSpec(name=name).offers() for name in [*TORCHVISION, "swin_v2_t"])


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "deit_tiny_distilled_patch16_224", "resnetv2_50", "vgg11"])
def test_other_models_of_timm_have_none(name: str) -> None:
    pytest.importorskip("timm")
    assert "places" not in TimmBackboneSpec(name=name).offers()
    assert all("places" in TimmBackboneSpec(name=each).offers() for each in TIMM)


@pytest.mark.slow
def test_every_name_of_torchvision_that_promises_places_has_a_class_that_gives_them() -> None:
    from torchvision import models

    from contralex.kinds.backbones.torchvision_places import FAMILIES

    for name in models.list_models(module=models):
        if "places" in TorchvisionBackboneSpec(name=name).offers():
            with torch.device("meta"):
                assert type(models.get_model(name)) in FAMILIES, name


@pytest.mark.slow
def test_every_name_of_timm_that_promises_places_has_a_class_that_gives_them() -> None:
    timm = pytest.importorskip("timm")
    from contralex.kinds.backbones.timm_places import FAMILIES

    for name in timm.list_models():
        if "places" in TimmBackboneSpec(name=name).offers():
            with torch.device("meta"):
                assert type(timm.create_model(name)) in FAMILIES, name


def test_convolutions_hide_no_places() -> None:
    model, _ = build(ConvBackboneSpec(widths=(4,), strides=(2,)))
    with pytest.raises(ContralexError, match="mask_token: true"):
        model.encode_places(image(8, 8), torch.zeros(2, 16, dtype=torch.bool))
