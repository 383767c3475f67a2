"""JPEG files to batches of MoCo v2's views, with workers: seconds for an image, once the workers have begun.

All sides have the same files (500x375), as many workers as there are cores, and batches of 32 pairs of views.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.measuring import OURS, Options, Peers, Report, compare, describe_machine, main
from benchmarks.photographs import WIDE, write_folder
from benchmarks.ready import ON_START
from benchmarks.step import CODE, train_text
from benchmarks.views import BATCH, NORMAL, albumentations_moco, torchvision_moco

RECIPE = """\
schema: 1
name: loader
extends: moco-v2
code: {code}
method:
  encoder: {{backbone: {{kind: conv, widths: [4], strides: [8]}}}}
  negatives: {{size: {batch}}}
data: {{kind: image_folder, root: {root}}}
train: {{epochs: 1, max_steps: 1, batch_size: {batch}, workers: {workers}, batch_norm: local}}
eval: {{knn: null}}
"""


def measure(options: Options, report: Report, peers: Peers) -> None:
    workers = int(describe_machine()["cores"])
    count = 4 * BATCH if options.small else 16 * BATCH
    with tempfile.TemporaryDirectory() as name:
        root = write_folder(Path(name, "train"), count, WIDE)
        report.add(compare(f"JPEG files to batches, {workers} workers", sides(root, workers, peers), options.rounds))


def sides(root: Path, workers: int, peers: Peers) -> dict[str, Callable[[], float]]:
    found = {OURS: lambda: ours(root, workers)}
    files = sorted(root.rglob("*.jpg"))
    if lightly := peers.load("lightly.transforms", "lightly"):
        theirs = lightly.MoCoV2Transform(cj_hue=0.1, gaussian_blur=0.5, normalize={"mean": NORMAL[0], "std": NORMAL[1]})
        found["lightly"] = lambda: by_loader(Files(files, theirs, open_with_pil), workers)
    if peers.load("torchvision", "torchvision"):
        one = Twice(torchvision_moco(224, True))
        found["torchvision"] = lambda: by_loader(Files(files, one, open_with_pil), workers)
    if peers.load("albumentations", "albumentations"):
        two = Twice(albumentations_moco(224, True))
        found["albumentations"] = lambda: by_loader(Files(files, two, open_with_cv2), workers)
    return found


def ours(root: Path, workers: int) -> float:
    found: list[float] = []

    def time_batches(run: Any) -> None:
        found.append(seconds_an_image(batch["index"] for batch in run.epoch_batches(0)))

    ON_START.append(time_batches)
    try:
        train_text(RECIPE.format(code=CODE, root=root.parent, batch=BATCH, workers=workers))
    finally:
        ON_START.remove(time_batches)
    return found[0]


def by_loader(files: Files, workers: int) -> float:
    loader = DataLoader(files, BATCH, shuffle=True, drop_last=True, num_workers=workers)
    return seconds_an_image(views[0] for views in loader)


def seconds_an_image(batches: Iterable[Any]) -> float:
    """From the first batch, before which workers begin, to the last."""
    seen, began = 0, 0.0
    for number, batch in enumerate(batches):
        if number == 0:
            began = time.perf_counter()
        else:
            seen += len(batch)
    return (time.perf_counter() - began) / seen


class Twice:
    """Two views by one pipeline."""

    def __init__(self, pipeline: Callable[[Any], Any]) -> None:
        self.pipeline = pipeline

    def __call__(self, image: Any) -> list[Any]:
        return [self.pipeline(image), self.pipeline(image)]


class Files(Dataset[list[Any]]):
    """Views of files. Its class folders are of no use here."""

    def __init__(
        self, files: list[Path], pipeline: Callable[[Any], list[Any]], open_file: Callable[[Path], Any]
    ) -> None:
        self.files, self.pipeline, self.open_file = files, pipeline, open_file

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> list[Any]:
        return self.pipeline(self.open_file(self.files[index]))


def open_with_pil(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


def open_with_cv2(file: Path) -> Any:
    import cv2

    return np.ascontiguousarray(cv2.imread(str(file))[:, :, ::-1])


if __name__ == "__main__":
    main(__doc__ or "", "loader", measure)
