"""Views of photographs in memory, on one thread of one process: seconds for one view.

contralex makes them as a run does (``run.epoch_batches``, no workers), its peers by their own pipelines of the same
operations, stacked to batches. 500x375 photographs become 224 pixels, 32x32 ones stay so. ``fused`` is contralex's
own choice of operations that are joined; it is left out where this version has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import OURS, Options, Peers, Report, compare, main
from benchmarks.photographs import SMALL, WIDE, pictures
from benchmarks.ready import ON_START
from benchmarks.step import CODE, train_text

BATCH = 32
NORMAL = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
RECIPE = """\
schema: 1
name: views
extends: {recipe}
code: {code}
method:
  views: {{groups: {{crops: {{augment: {augment}}}}}}}
  encoder: {{backbone: {{kind: conv, widths: [4], strides: [8]}}}}
data: {{kind: pictures, count: {count}, width: {width}, height: {height}}}
train: {{epochs: 1, max_steps: 1, batch_size: {batch}, workers: 0, batch_norm: local}}
eval: {{knn: null}}
"""
Pipeline = Callable[[Image.Image], list[Any]]


def measure(options: Options, report: Report, peers: Peers) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        count = BATCH if options.small else 12 * BATCH  # the first batches take their memory from the system
        report.add(compare("MoCo v2 views, 224 px", moco(224, WIDE, count, peers), options.rounds))
        report.add(compare("SimCLR views, 224 px", simclr(count, peers), options.rounds))
        many = count if options.small else 5 * count
        report.add(compare("views, 32 px", moco(32, SMALL, many, peers), options.rounds))
    finally:
        torch.set_num_threads(threads)


def moco(pixels: int, size: tuple[int, int], count: int, peers: Peers) -> dict[str, Callable[[], float]]:
    """MoCo v2's views; at 32 pixels without blur, as is usual."""
    blur = pixels > SMALL[0]
    augment = f"{{crop: {{size: {pixels}}}}}" if blur else f"{{crop: {{size: {pixels}}}, blur: null}}"
    extra = {"method.negatives.size": BATCH}
    sides = {OURS: lambda: ours("moco-v2", augment, size, count, extra)}
    if has_fused():
        fused = extra | {"method.views.engine": "fused"}
        sides[f"{OURS}, fused"] = lambda: ours("moco-v2", augment, size, count, fused)
    images = pictures(count, size)
    if lightly := peers.load("lightly.transforms", "lightly"):
        theirs = lightly.MoCoV2Transform(
            input_size=pixels,
            cj_hue=0.1,
            gaussian_blur=0.5 if blur else 0.0,
            normalize={"mean": NORMAL[0], "std": NORMAL[1]},
        )
        sides["lightly"] = lambda: by_pipeline(theirs, images)
    if peers.load("torchvision", "torchvision"):
        one = torchvision_moco(pixels, blur)
        sides["torchvision"] = lambda: by_pipeline(lambda image: [one(image), one(image)], images)
    if peers.load("albumentations", "albumentations"):
        other = albumentations_moco(pixels, blur)
        arrays = [np.asarray(image) for image in images]
        sides["albumentations"] = lambda: by_pipeline(lambda image: [other(image), other(image)], arrays)
    return sides


def simclr(count: int, peers: Peers) -> dict[str, Callable[[], float]]:
    """SimCLR's views at strength 1, with its blur of 23 pixels."""
    sides = {OURS: lambda: ours("simclr-v1", "{crop: {size: 224}}", WIDE, count, {})}
    images = pictures(count, WIDE)[: max(BATCH, count // 3)]  # which peers take longer for than contralex for all
    if peers.load("torchvision", "torchvision"):
        one = torchvision_simclr()
        sides["torchvision"] = lambda: by_pipeline(lambda image: [one(image), one(image)], images)
    if lightly := peers.load("lightly.transforms", "lightly"):
        theirs = lightly.SimCLRTransform(input_size=224)
        sides["lightly"] = lambda: by_pipeline(theirs, images)
    return sides


def ours(recipe: str, augment: str, size: tuple[int, int], count: int, sets: dict[str, Any]) -> float:
    """Seconds for a view, of all batches of an epoch."""
    found: list[float] = []

    def time_batches(run: Any) -> None:
        began = time.perf_counter()
        views = sum(len(view) for batch in run.epoch_batches(0) for view in batch["views"].values())
        found.append((time.perf_counter() - began) / views)

    text = RECIPE.format(
        recipe=recipe, code=CODE, augment=augment, count=count, width=size[0], height=size[1], batch=BATCH
    )
    ON_START.append(time_batches)
    try:
        train_text(text, sets)
    finally:
        ON_START.remove(time_batches)
    return found[0]


def has_fused() -> bool:
    """Whether this version has views whose operations are joined."""
    import contralex

    try:
        contralex.resolve("moco-v2", sets={"method.views.engine": "fused"})
    except contralex.ContralexError:
        return False
    return True


def by_pipeline(pipeline: Callable[[Any], list[Any]], images: list[Any]) -> float:
    began = time.perf_counter()
    for start in range(0, len(images), BATCH):
        made = [pipeline(image) for image in images[start : start + BATCH]]
        for view in (0, 1):
            torch.stack([each[view] for each in made])
    return (time.perf_counter() - began) / (2 * len(images))


def torchvision_moco(pixels: int, blur: bool) -> Callable[[Any], Any]:
    from torchvision.transforms import v2

    steps = [
        v2.RandomResizedCrop(pixels, scale=(0.2, 1.0), antialias=True),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
        *([v2.RandomApply([v2.GaussianBlur(9, (0.1, 2.0))], p=0.5)] if blur else []),
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(*NORMAL),
    ]
    return v2.Compose(steps)  # type: ignore[no-any-return]


def torchvision_simclr() -> Callable[[Any], Any]:
    from torchvision.transforms import v2

    return v2.Compose(  # type: ignore[no-any-return]
        [
            v2.RandomResizedCrop(224, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


def albumentations_moco(pixels: int, blur: bool) -> Callable[[Any], Any]:
    import albumentations as album
    import cv2

    cv2.setNumThreads(1)
    steps = [
        album.RandomResizedCrop((pixels, pixels), scale=(0.2, 1.0)),
        album.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
        album.ToGray(p=0.2),
        *([album.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5)] if blur else []),
        album.HorizontalFlip(),
        album.Normalize(*NORMAL),
    ]
    pipeline = album.Compose(steps)

    def make(image: Any) -> Any:
        return torch.from_numpy(pipeline(image=image)["image"].transpose(2, 0, 1))

    return make


if __name__ == "__main__":
    main(__doc__ or "", "views", measure)
