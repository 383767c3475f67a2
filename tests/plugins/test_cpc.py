"""CPC v2's parts: LayerNorm in the network, and augmentation of each patch by itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from contralex_cpc.network import patch_network
from contralex_cpc.patch_augment import augment_patches
from contralex_cpc.sequences import SequenceSource
from contralex_cpc.spec import CPCPatchesSpec, EachPatch, PatchesSpec


def test_the_norm_is_torchs_layer_norm_of_one_patch() -> None:
    net, _ = patch_network(blocks=(1,), widths=(4,), stem="small", norm="layer")
    norms = [module for module in net.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == 4  # three of the block, and one at the end
    x = torch.randn(3, 4, 5, 5)
    torch.testing.assert_close(norms[0](x), nn.functional.layer_norm(x, (4, 5, 5)))


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_a_patch_learns_nothing_of_others(norm: Any) -> None:
    net, width = patch_network(blocks=(1, 2), widths=(4, 6), outputs=(8, 20), stem="small", norm=norm)
    assert width == 20
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    patches = torch.rand(5, 3, 10, 10)
    torch.testing.assert_close(net(patches)[:2], net(patches[:2]))


def test_resnet_161() -> None:
    """161 layers: the stem, three in each of 53 blocks, and the classifier, which is not built."""
    with torch.device("meta"):
        net, width = patch_network(blocks=(3, 4, 46), widths=(64, 128, 512), outputs=(256, 512, 4096), norm="layer")
    shapes = [m.weight.shape for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
    assert width == 4096
    assert len(shapes) + 1 == 161
    assert shapes[-1] == (4096, 512, 1, 1)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(305e6, rel=0.01)  # as the paper counts


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"skip": 1}, "nothing is predicted"),
        ({"directions": ("up", "up")}, "names one twice"),
        ({"network": {"blocks": (1,), "widths": (4,), "outputs": (4, 4)}}, "one output for each stage"),
    ],
)
def test_mistakes_are_told(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        CPCPatchesSpec.model_validate({**CPCPatchesSpec.example, **changes})


def one_by_one(patches: Tensor, spec: dict[str, Any], seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return augment_patches(patches, EachPatch.model_validate(spec))


@pytest.fixture
def patches() -> Tensor:
    return torch.rand(200, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2


def test_dropping_leaves_one_channel_of_three(patches: Tensor) -> None:
    found = one_by_one(patches, {"drop_channels": 1.0})
    kept = (found == patches).flatten(2).all(dim=2)  # (P, 3)
    assert kept.sum(dim=1).tolist() == [1] * 200
    assert kept.float().mean(dim=0).tolist() == pytest.approx([1 / 3] * 3, abs=0.1)
    noise = found[~kept] - 0.5  # (400, 6, 6)
    assert noise.std() == pytest.approx(0.01 * float(patches.flatten(2).std(dim=2).mean()), rel=0.05)


def test_each_operation_strikes_as_often_as_it_says_and_each_patch_by_itself(patches: Tensor) -> None:
    for name in ("flip", "gray", "drop_channels"):
        changed = (one_by_one(patches, {name: 0.3}) != patches).flatten(1).any(dim=1)
        assert float(changed.float().mean()) == pytest.approx(0.3, abs=0.1), name
    assert torch.equal(one_by_one(patches, {"flip": 1.0}), patches.flip(3))
    assert torch.equal(one_by_one(patches, {}), patches)


def test_gray_is_torchvisions(patches: Tensor) -> None:
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    found = one_by_one(patches, {"gray": 1.0})
    torch.testing.assert_close(found, rgb_to_grayscale(patches, 3), atol=1e-3, rtol=0)  # whose weights are rounded


def test_colours_are_torchvisions_one_after_the_other(patches: Tensor) -> None:
    from torchvision.transforms.v2 import functional as tv

    reach = {"brightness": 0.5, "contrast": 0.6, "saturation": 0.7}
    found = one_by_one(patches, {"colours": {**reach, "p": 1.0}})
    torch.manual_seed(0)
    torch.rand(200, 1, 1, 1)  # whether the mirror image is taken
    factors = [1 + (torch.rand(200) * 2 - 1) * part for part in reach.values()]
    for index in range(20):
        x = patches[index]
        adjusted = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
        for adjust, factor in zip(adjusted, factors, strict=True):
            x = adjust(x, float(factor[index]))
        torch.testing.assert_close(found[index], x, atol=2e-3, rtol=0)


def test_affine_turns_and_shears(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter turn is torch's, and a shear moves the pixels of a row together, by tan of its angle for each row."""
    square = torch.rand(1, 3, 7, 7)
    torch.testing.assert_close(one_by_one(square, {"affine": {"degrees": 0, "shear": 0, "p": 1}}), square)
    monkeypatch.setattr("contralex_cpc.patch_augment._symmetric", lambda count, reach: torch.full((count,), reach))
    quarter = one_by_one(square, {"affine": {"degrees": 90, "shear": 0, "p": 1}})
    assert min(float((quarter - square.rot90(k, (2, 3))).abs().max()) for k in (1, 3)) < 1e-4
    shear = {"affine": {"degrees": 0, "shear": 30, "p": 1}}
    rows = torch.arange(7.0).view(1, 1, 7, 1).expand(1, 3, 7, 7)
    torch.testing.assert_close(one_by_one(rows, shear), rows, atol=1e-4, rtol=0)
    middle = one_by_one(rows.mT, shear)[0, 0, :, 3]
    assert middle[1:6].diff().abs().tolist() == pytest.approx([math.tan(math.radians(30))] * 4, abs=1e-3)


def test_views_augment_patches_after_the_grid_and_leave_evaluation_alone() -> None:
    image = Image.new("RGB", (20, 20), (200, 40, 90))
    spec = PatchesSpec.model_validate(
        {**PatchesSpec.example, "patch_crop": 8, "gray": False, "each": {"drop_channels": 1.0}}
    )
    plain = spec.model_copy(update={"each": None}).build()
    views = spec.build()
    torch.manual_seed(0)
    made = views.make(image, 0)
    assert made.shape == plain.make(image, 0).shape
    channels = made.flatten(2).mean(dim=2)  # (P, 3) of an image of one colour: neighbours kept different channels
    assert len({tuple(row) for row in (channels - 0.5).abs().gt(0.01).tolist()}) > 1
    assert torch.equal(views.plain(image), plain.plain(image))


def test_recordings_are_split_as_folders_of_images_are(tmp_path: Path) -> None:
    for split, count in (("Train", 3), ("valid", 2), ("test", 1)):
        for name in ("bat", "owl"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                np.save(tmp_path / split / name / f"{number}.npy", np.zeros(100, dtype=np.float32))
    (tmp_path / "Train" / "bat" / "a.mp3").touch()
    source = SequenceSource(root=tmp_path)
    assert source.describe() == (
        "6 sequences to train on (folder Train) in 2 classes (bat, owl); 4 to evaluate on (folder valid); "
        "folder test (2) is left out; 1 of .mp3 are left out, which are neither .wav nor .npy"
    )
    assert source.test().labels == [0, 0, 1, 1]
    assert SequenceSource(root=tmp_path, labels="none").train().labels is None
