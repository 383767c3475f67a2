"""The specs of SimCLR v2: its backbone, and the dictionary of its memory network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from contralex.plugin import Spec

if TYPE_CHECKING:
    from torch import nn

    from contralex.plugin import BuildContext, NegativeSource


class SKResNet(Spec):
    """A ResNet as in SimCLR's code, wider than usual, with selective kernels."""

    kind: Literal["sk_resnet"] = "sk_resnet"
    depth: Literal[50, 101, 152, 200] = 50
    """Layers."""
    width: int = Field(1, gt=0, le=8)
    """Multiplies the channels of every convolution."""
    sk_ratio: float = Field(0.0625, ge=0, le=1)
    """In selective kernels, the channels of what chooses between two branches, for each of theirs (at least 32); 0 is a
    plain ResNet. With selective kernels come ResNet-D's stem of three 3x3 convolutions, and its shortcuts that average
    before they project."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """The first layers: for large images (``imagenet``), or a 3x3 convolution of stride 1 without pooling
    (``small``)."""
    source = "SimCLR v2, arXiv:2006.10029, section 2; SKNet, arXiv:1903.06586; code: google-research/simclr resnet.py"
    example = {"stem": "small"}

    def build(self) -> tuple[nn.Module, int]:
        from contralex_simclr.resnet import SKResNet as Part

        part = Part(self)
        return part, part.width


class BatchAndQueue(Spec):
    """The keys of the batch, of all views with the query's own left out, and beside them the last ``size`` keys."""

    kind: Literal["batch_and_queue"] = "batch_and_queue"
    size: int = Field(gt=0, le=2**30)
    """Keys in the queue."""
    gives = frozenset({"entries", "positive", "tagged entries"})
    source = "SimCLR v2, arXiv:2006.10029, section 2 (memory network); MoCo, arXiv:1911.05722, section 3.2"
    example = {"size": 24}

    def queued(self) -> tuple[str, int]:
        return "size", self.size

    def build(self, context: BuildContext) -> NegativeSource:
        from contralex_simclr.memory import BatchAndQueue as Part

        return Part(self, context)
