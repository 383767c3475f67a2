"""Whole runs of both DeepClusters on two processes: the first pass over the data, and clusters over three epochs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.processes import contralex

RECIPES = {
    "deepcluster-v2": (
        "method.encoder.backbone={kind: conv, widths: [8], strides: [4]}",
        "method.negatives.count=6",
    ),
    "deepcluster": (
        "method.encoder.backbone.backbone={kind: conv, widths: [8], strides: [4], channels: 2}",
        "method.negatives={count: 6, pca: 8, reassign: 1}",
    ),
}
SETS = (
    "train.batch_norm=sync",
    "train.batch_size=8",
    "train.epochs=3",
    "train.precision=fp32",
    "train.optimizer.lr=0.002",  # at ten times that, rounding makes one image fall to another cluster
    "train.workers=0",
    "train.checkpoint.every=1",
    "eval.knn=null",
)


def run(recipe: str, images: Path, folder: Path, processes: int) -> dict[str, Tensor]:
    options = ["--preset=digits", f"--data={images}", f"--out={folder}", f"--processes={processes}"]
    done = contralex("train", recipe, *options, *(f"--set={text}" for text in (*RECIPES[recipe], *SETS)))
    assert done.returncode == 0, done.stderr
    return load_file(folder / "checkpoints" / "step-15" / "model.safetensors")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-two images: two are left out of each epoch, other ones each time, and are not all known at first."""
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for number in range(42):
        place = folder / "all" / f"{number:02}.png"
        place.parent.mkdir(exist_ok=True)
        pixels = torch.rand(4, 4, 3, generator=generator) * 255
        Image.fromarray(pixels.byte().numpy()).resize((32, 32), Image.Resampling.BICUBIC).save(place)
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_cluster_as_one(recipe: str, images: Path, tmp_path: Path) -> None:
    one, two = (run(recipe, images, tmp_path / str(processes), processes) for processes in (1, 2))
    assert one.keys() == two.keys()
    assigned = one["negatives.assigned"]
    assert int((assigned >= 0).sum(dim=1).min()) >= 40 and len(assigned.unique()) >= 5
    assert int(one["negatives.epoch"]) == 2
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
