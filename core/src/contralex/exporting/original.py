"""The encoder of a run as it is to be exported, and the images by which an export is compared with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from contralex.data.preprocessing import Preprocessing
from contralex.data.views import Views
from contralex.errors import ContralexError, remedy
from contralex.plugins.architecture import Architecture, Library
from contralex.plugins.spec import Spec
from contralex.recipes.run_spec import RunSpec
from contralex.training import build
from contralex.training.checkpoints.manifest import MODEL
from contralex.training.checkpoints.read import Checkpoint, open_checkpoint

_SIDES = ((96, 128), (160, 120), (64, 64))  # of the images of the comparison, before they are resized


@dataclass(frozen=True)
class Comparison:
    """How far an export's features are from the encoder's, on the same images in float32.

    ``difference``: the largest of any feature. ``largest``: the largest feature. ``bound``: the difference from which
    on nothing is written.
    """

    difference: float
    largest: float
    bound: float

    def words(self) -> str:
        return f"{self.difference:.1e} (of features up to {self.largest:.3g}; the bound is {self.bound:.1e})"


class Kept(nn.Module):
    """Images (B, C, H, W) to the features (B, F) that are kept after training."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.module(images)
        return features.flatten(1)


class Original:
    """A run's encoder in evaluation mode on the CPU, in float32, with what its spec says of it."""

    def __init__(self, path: Path) -> None:
        self.checkpoint: Checkpoint = open_checkpoint(path, [MODEL])
        self.resolved = self.checkpoint.resolved()
        self.spec: RunSpec = self.resolved.run
        self.encoder = build.encoder_of(self.checkpoint, self.spec).float()
        self.views: Views = self.spec.method.views.build()

    @property
    def backbone(self) -> nn.Module:
        if self.encoder.backbone is None:
            raise ContralexError(
                f"the encoder of {self.checkpoint.folder} (kind {self.spec.method.encoder.kind_name()}) has no "
                "backbone that other libraries could hold; contralex.load_encoder(...) opens it."
            )
        return self.encoder.backbone

    @property
    def block(self) -> Spec | None:
        """The spec of the backbone."""
        return self.spec.method.encoder.kept_backbone()

    @property
    def preprocessing(self) -> Preprocessing | None:
        """None where evaluation does more to an image than to resize, crop and normalise it."""
        return self.views.preprocessing()

    def architecture(self, library: Library) -> Architecture | str:
        """What the backbone is called in another library; or why it has no name there, as a clause or nothing."""
        return self.block.architecture(library) if self.block is not None else ""

    def refuse(self, to: str, reason: str) -> ContralexError:
        """For a library that has no model that is the backbone. ``reason``: a clause, or nothing."""
        block = self.block or self.spec.method.encoder
        place = self.checkpoint.folder
        return ContralexError(
            f"--to {to}: {to} has no model that holds the weights of this backbone, of kind {block.kind_name()}"
            + (f" ({reason})" if reason else "")
            + ". The formats onnx and torch-export hold any network:"
            + remedy("contralex", "export", place, "--to", "torch-export", "--out", "encoder.pt2")
        )

    @cached_property
    def images(self) -> Tensor:
        """(3, C, H, W): three images of noise, as evaluation sees them."""
        if "images" not in self.spec.data.offers():
            raise ContralexError(
                f"{self.checkpoint.folder} was trained on data of kind {self.spec.data.kind_name()}, which are no "
                "images, and an export is compared on images; contralex.load_encoder(...) opens it."
            )
        chance = torch.Generator().manual_seed(0)
        seen = []
        for width, height in _SIDES:
            pixels = torch.randint(256, (height, width, 3), generator=chance, dtype=torch.uint8)
            seen.append(self.views.plain(Image.fromarray(pixels.numpy(), "RGB")))
        if any(image.dim() != 3 for image in seen):
            raise ContralexError(
                f"method.views of kind {self.spec.method.views.kind_name()} makes no image of an image for evaluation, "
                "and an export is compared on images."
            )
        return torch.stack(seen)

    @cached_property
    def features(self) -> Tensor:
        """(3, F): what evaluation takes of these images."""
        with torch.inference_mode():
            return self.encoder.features(self.images)

    def compare(self, features: Tensor, tolerance: float, what: str, note: str = "") -> Comparison:
        """Raises :class:`ContralexError` where ``features`` (3, F) differ by more than ``tolerance`` of the largest.
        ``note``: a sentence on what may be the reason."""
        largest = float(self.features.abs().max())
        bound = tolerance * max(largest, 1e-6)
        if features.shape != self.features.shape:
            raise ContralexError(
                f"{what} gives features {tuple(features.shape)} and the encoder {tuple(self.features.shape)}, so "
                "nothing was written."
            )
        difference = float((features.float() - self.features).abs().max())
        if not difference <= bound:
            raise ContralexError(
                f"{what} differs from the encoder by {difference:.1e} of features up to {largest:.3g}, more than "
                f"rounding explains ({bound:.1e}), so nothing was written.{' ' if note else ''}{note}"
            )
        return Comparison(difference, largest, bound)
