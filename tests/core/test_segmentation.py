"""Linear segmentation: feature maps of backbones, masks as evaluation sees them, and figures against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from contralex.errors import ContralexError
from contralex.evaluation import segmentation
from contralex.evaluation.feature_maps import feature_map
from contralex.evaluation.segmentation import find_pairs
from contralex.kinds.views.augment import Augment, Crop
from contralex.kinds.views.transforms import evaluation, evaluation_of_masks, read_preprocessing
from contralex.plugins.registry import registry


def make(kind: str, **values: object) -> nn.Module:
    spec = registry().find("backbone", kind)
    assert spec is not None
    module: nn.Module = spec.model_validate({"kind": kind, **values}).build()[0]
    return module


def test_the_map_of_a_resnet_is_what_it_pools() -> None:
    network = torchvision.models.resnet18(weights=None).train()
    images = torch.rand(2, 3, 96, 64)
    found = feature_map(network, images)
    assert found.shape == (2, 512, 3, 2)
    assert network.training
    network.fc = nn.Identity()
    torch.testing.assert_close(found.mean(dim=(2, 3)), network.eval()(images))


def test_the_map_of_a_small_network_is_what_it_pools() -> None:
    network = make("conv", widths=[4, 6], strides=[2, 2])
    images = torch.rand(2, 3, 32, 32)
    found = feature_map(network, images)
    assert found.shape == (2, 6, 8, 8)
    torch.testing.assert_close(found.mean(dim=(2, 3)), network.eval()(images).flatten(1))


def test_the_map_of_timms_vit_is_its_patches_in_their_grid() -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("vit_tiny_patch16_224", img_size=(64, 32), depth=1, num_classes=0)
    images = torch.rand(2, 3, 64, 32)
    found = feature_map(network, images)
    assert found.shape == (2, 192, 4, 2)
    tokens = network.eval().forward_features(images)[:, 1:]
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens)


def test_the_map_of_torchvisions_vit_is_its_patches_in_their_grid() -> None:
    network = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32)
    found = feature_map(network, torch.rand(2, 3, 32, 32))
    assert found.shape == (2, 16, 4, 4)


def test_a_backbone_without_positions_is_refused() -> None:
    with pytest.raises(ContralexError, match=r"Sequential gives no feature map .* of 4×4 pixels"):
        feature_map(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize("size", [32, 112])
def test_a_mask_is_seen_where_the_image_is(size: int) -> None:
    augment = Augment(order=("crop",), crop=Crop(size=size, scale=(0.5, 1)))
    values = np.zeros((150, 200), np.uint8)
    values[:, 120:] = 1
    picture = Image.fromarray(np.repeat(values[..., None] * 255, 3, axis=2))
    seen: Tensor = evaluation(augment)(picture)
    preprocessing = read_preprocessing(evaluation(augment))
    assert preprocessing is not None
    mask = np.array(evaluation_of_masks(preprocessing)(Image.fromarray(values)))
    assert mask.shape == seen.shape[1:] and set(np.unique(mask)) == {0, 1}
    assert ((seen[0] > 0.5).numpy() == (mask == 1)).mean() > 0.98


def test_the_most_frequent_class_of_a_place() -> None:
    mask = torch.tensor([[1, 1, 2, 2], [1, 0, 2, 255], [255, 255, 0, 0], [255, 7, 0, 0]])
    assert segmentation._most_frequent(mask, (2, 2), 255).tolist() == [[1, 2], [255, 0]]


def test_counts_are_scikit_learns_confusion() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    confusion, truths, founds = torch.zeros(0, 0, dtype=torch.long), [], []
    for classes in (3, 5):
        truth, found = (torch.randint(classes, (2, 6, 6), generator=generator) for _ in range(2))
        truth[0, 0] = 255
        confusion = segmentation._add(confusion, found.clamp(max=2), truth, 255, 3)
        truths.append(truth[truth != 255]), founds.append(found.clamp(max=2)[truth != 255])
    expected = metrics.confusion_matrix(torch.cat(truths), torch.cat(founds), labels=range(5))
    assert confusion.tolist() == expected.tolist()
    union = confusion.sum(dim=0) + confusion.sum(dim=1) - confusion.diagonal()
    iou = metrics.jaccard_score(torch.cat(truths), torch.cat(founds), average="macro")
    assert float((confusion.diagonal() / union).mean()) == pytest.approx(iou)


def write(folder: Path, count: int, *, masks: bool = True) -> None:
    """Images of two halves in different colours, at a random height, and masks of what is where."""
    rng = np.random.default_rng(count)
    for number in range(count):
        height = int(rng.integers(8, 25))
        values = np.zeros((32, 32), np.uint8)
        values[height:] = 1
        values[0, 0] = 255
        colours = np.array([[200, 40, 40], [40, 60, 200]], np.uint8)[np.minimum(values, 1)]
        noise = rng.integers(0, 30, colours.shape, dtype=np.uint8)
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours + noise).save(folder / "images" / f"{number}.png")
        if masks:
            Image.fromarray(values).save(folder / "masks" / f"{number}.png")


def test_pairs_are_found_by_their_names(tmp_path: Path) -> None:
    write(tmp_path / "flat", 10)
    train, val = find_pairs(tmp_path / "flat")
    assert (len(train), len(val)) == (8, 2)
    assert all(pair.image.stem == pair.mask.stem for pair in [*train, *val])
    write(tmp_path / "split" / "train", 3)
    write(tmp_path / "split" / "val", 2)
    train, val = find_pairs(tmp_path / "split")
    assert (len(train), len(val)) == (3, 2)


@pytest.mark.parametrize(
    ("count", "masks", "sentence"),
    [
        (3, True, "3 images with masks; at least 5 are needed"),
        (6, False, r"0\.png and 5 others have no mask"),
        (0, True, "has the folders images and masks"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(count: int, masks: bool, sentence: str, tmp_path: Path) -> None:
    write(tmp_path, count, masks=masks)
    with pytest.raises(ContralexError, match=sentence):
        find_pairs(tmp_path)
