"""Linear segmentation: how well one linear layer tells each position's class by a frozen backbone's feature map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from contralex import progress
from contralex.data import images
from contralex.data.base import Unreadable
from contralex.data.loading import mix_seed
from contralex.errors import ContralexError
from contralex.evaluation.base import EvalContext, Measurement, Measures
from contralex.evaluation.feature_maps import feature_map
from contralex.evaluation.features import Features
from contralex.evaluation.linear import LinearClassifier, fit_features
from contralex.kinds.datasets.limits import MAX_PIXELS
from contralex.kinds.views.transforms import evaluation_of_masks
from contralex.lookup.slots import Encoder
from contralex.recipes.run_spec import RunSpec

_TRAIN, _VAL = ("train", "training"), ("val", "valid", "validation", "test")
_HELD_OUT = 5  # every so manieth image is held out, where there is no folder for it


@dataclass(frozen=True)
class Pair:
    """An image, and the mask of its classes."""

    image: Path
    mask: Path


def find_pairs(folder: Path) -> tuple[list[Pair], list[Pair]]:
    """What to learn from and what to evaluate on, in ``folder``: images in ``images`` and masks of the same names in
    ``masks``, both below ``train`` and ``val``, or directly below, where every fifth image is evaluated on."""
    parts = [_find_folder(folder, names) for names in (_TRAIN, _VAL)]
    if all(part is not None for part in parts):
        train, val = (_pairs(part) for part in parts if part is not None)
        return train, val
    everything = _pairs(folder)
    held = set(range(_HELD_OUT - 1, len(everything), _HELD_OUT))
    train, val = ([pair for at, pair in enumerate(everything) if (at in held) == wanted] for wanted in (False, True))
    if not val:
        raise ContralexError(f"{folder} has {len(everything)} images with masks; at least {_HELD_OUT} are needed")
    return train, val


class Segmentation(Measurement):
    """Mean intersection over union of logistic regression on the positions of a feature map.

    Learns from at most ``positions`` of the training images, each with the class that most of its pixels have. On the
    images to evaluate on, the logits are enlarged to the pixels, bilinearly. ``ignored``: the value of pixels that have
    no class.
    """

    name = "segmentation"

    def __init__(
        self, folder: Path, positions: int = 100_000, weight_decay: float = 1e-3, ignored: int = 255, seed: int = 0
    ) -> None:
        self.train, self.val = find_pairs(folder)
        self.positions, self.weight_decay, self.ignored, self.seed = positions, weight_decay, ignored, seed

    @torch.no_grad()
    def measure(self, encoder: Encoder, context: EvalContext, run: RunSpec) -> Measures:
        backbone = encoder.backbone
        if backbone is None:
            raise ContralexError(f"segmentation: the encoder {type(encoder).__name__} has no backbone of its own")
        seen = context.views.preprocessing()
        if seen is None:
            raise ContralexError(
                "segmentation is for encoders of RGB images, and the views of this run, "
                f"{type(context.views).__name__}, give something else"
            )
        to_mask = evaluation_of_masks(seen)
        each = max(self.positions // len(self.train), 1)
        rows, labels, grid = [], [], (0, 0)
        for at, (maps, masks) in enumerate(self._batches("Encoding positions", backbone, context, self.train, to_mask)):
            grid = maps.shape[2], maps.shape[3]
            some, classes = self._choose(maps, masks, each, at)
            rows.append(some)
            labels.append(classes)
        features = Features(torch.cat(rows), None, torch.cat(labels), context.device)
        if not len(features):
            raise ContralexError(f"segmentation: no position of the training images has a class below {self.ignored}")
        fitted = fit_features(features, self.weight_decay)
        count = 1 + int(fitted.classes.max())
        confusion = torch.zeros(0, 0, dtype=torch.long)
        for maps, masks in self._batches("Segmenting", backbone, context, self.val, to_mask):
            found = _segment(fitted, maps, masks.shape[1:])
            confusion = _add(confusion, found, masks, self.ignored, count)
        union = confusion.sum(dim=0) + confusion.sum(dim=1) - confusion.diagonal()
        there = union > 0
        iou = confusion.diagonal()[there].double() / union[there]
        figures = {
            "mean_iou": float(iou.mean()) if len(iou) else 0.0,
            "pixel_accuracy": float(confusion.diagonal().sum() / confusion.sum().clamp(min=1)),
        }
        protocol = {
            "features": "positions of the backbone",
            "positions": f"{grid[0]}×{grid[1]} of {features.width} dimensions",
            "classifier": "logistic regression, standardised",
            "weight_decay": self.weight_decay,
            "converged": fitted.converged,
            "train_images": len(self.train),
            "train_positions": len(features),
            "test_images": len(self.val),
            "classes": int(there.sum()),
            "logits": "enlarged bilinearly to the pixels that evaluation sees",
            "ignored": self.ignored,
            "seed": self.seed,
        }
        names = there.nonzero().flatten().tolist()
        return Measures({**figures}, protocol, {"iou": dict(zip(map(str, names), iou.tolist(), strict=True))})

    def sentence(self, figures: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
        return (
            f"Linear segmentation on {protocol['positions']} (logistic regression, weight decay "
            f"{protocol['weight_decay']:g}): mIoU {figures['mean_iou']:.1%}, pixel accuracy "
            f"{figures['pixel_accuracy']:.1%}, {protocol['train_images']:,} images to learn from, "
            f"{protocol['test_images']:,} to evaluate on"
        )

    def _batches(
        self, what: str, backbone: torch.nn.Module, context: EvalContext, pairs: Sequence[Pair], to_mask: Any
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Feature maps (B, C, h, w), and masks (B, H, W) of the pixels that evaluation sees."""
        size = max(context.batch_size // 8, 1)  # maps are large
        starts = range(0, len(pairs), size)
        for start in progress.steps(what, starts, len(starts)):
            some = pairs[start : start + size]
            inputs = torch.stack([context.views.plain(_read(pair.image)) for pair in some])
            masks = torch.stack([_read_mask(pair.mask, to_mask) for pair in some])
            yield feature_map(backbone, inputs.to(context.device)).float(), masks.to(context.device)

    def _choose(self, maps: Tensor, masks: Tensor, each: int, batch: int) -> tuple[Tensor, Tensor]:
        """Rows (n, C) of at most ``each`` positions of an image, and their classes (n,)."""
        rows, labels = [], []
        for at, (map_, mask) in enumerate(zip(maps, masks, strict=True)):
            classes = _most_frequent(mask, map_.shape[1:], self.ignored)  # (h, w)
            where = (classes.flatten() != self.ignored).nonzero().flatten()
            draw = torch.Generator().manual_seed(mix_seed(self.seed, batch, at))
            where = where[torch.randperm(len(where), generator=draw)[:each].to(where.device)]
            rows.append(map_.flatten(1).T[where])
            labels.append(classes.flatten()[where])
        return torch.cat(rows), torch.cat(labels)


def _most_frequent(mask: Tensor, grid: Sequence[int], ignored: int) -> Tensor:
    """(H, W) to (h, w): the class that most pixels of a position have; ``ignored`` where most have none."""
    classes = mask.unique()
    counts = torch.stack(
        [F.adaptive_avg_pool2d((mask == label).float()[None], (grid[0], grid[1]))[0] for label in classes]
    )
    most: Tensor = classes[counts.argmax(dim=0)]
    return most


def _segment(fitted: LinearClassifier, maps: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) to the classes (B, H, W)."""
    rows = maps.permute(0, 2, 3, 1)
    logits = fitted.logits(rows.flatten(0, 2)).float().view(*rows.shape[:3], -1).permute(0, 3, 1, 2)
    enlarged = F.interpolate(logits, size=list(size), mode="bilinear", align_corners=False)
    found: Tensor = fitted.classes[enlarged.argmax(dim=1)]
    return found


def _add(confusion: Tensor, found: Tensor, masks: Tensor, ignored: int, least: int) -> Tensor:
    """The counts (C, C) of pixels by their class and by the one that was found, with those of these masks."""
    known = masks != ignored
    truth, said = masks[known].cpu(), found.to(masks.device)[known].cpu()
    count = max(least, len(confusion), 1 + int(truth.max()) if len(truth) else 0)
    more = torch.bincount(truth * count + said, minlength=count * count).view(count, count)
    more[: len(confusion), : len(confusion)] += confusion
    return more


def _read(path: Path) -> Image.Image:
    try:
        return images.read(path, MAX_PIXELS)
    except Unreadable as fault:
        raise ContralexError(f"segmentation: {fault.path} cannot be read: {fault.reason}") from None


def _read_mask(path: Path, to_mask: Any) -> Tensor:
    try:
        with Image.open(path) as opened:
            mask = opened if opened.mode in ("L", "P", "I", "I;16") else None
            values = None if mask is None else np.array(to_mask(mask.convert("I") if mask.mode == "I;16" else mask))
    except OSError as error:
        raise ContralexError(f"segmentation: {path} cannot be read: {error}") from None
    if values is None:
        raise ContralexError(
            f"segmentation: {path} is an image of colours; a mask has one channel, whose values are the classes"
        )
    return torch.from_numpy(values.astype(np.int64))


def _find_folder(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name / "images").is_dir()), None)


def _pairs(folder: Path) -> list[Pair]:
    if not all((folder / name).is_dir() for name in ("images", "masks")):
        raise ContralexError(
            f"{folder}: a folder of masks has the folders images and masks, or train and val that have them"
        )
    masks = {path.stem: path for path in sorted((folder / "masks").iterdir()) if not path.name.startswith(".")}
    found = [path for path in sorted((folder / "images").iterdir()) if not path.name.startswith(".")]
    missing = [path.name for path in found if path.stem not in masks]
    if missing or not found:
        what = f"{missing[0]} and {len(missing) - 1:,} others have no mask" if missing else "there are no images"
        raise ContralexError(f"{folder}: {what}; the mask of images/1.jpg is masks/1.png")
    return [Pair(path, masks[path.stem]) for path in found]
