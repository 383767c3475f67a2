"""The specs of SimCLR v2: its backbone, and the dictionary of its memory network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contralex.plugin import Spec


class SKResNetSpec(Spec):
    """A ResNet as in SimCLR's code, wider than usual, with selective kernels."""

    kind: Literal["sk_resnet"] = "sk_resnet"
    builds = ".resnet:sk_resnet"
    depth: Literal[50, 101, 152, 200] = 50
    """Layers."""
    width: int = Field(1, gt=0, le=8)
    """Multiplies the channels of every convolution."""
    sk_ratio: float = Field(0.0625, ge=0, le=1)
    """The channels of a selective kernel that choose between its two branches, for each channel of a branch (at least
    32); 0 is a plain ResNet. With selective kernels come ResNet-D's stem of three 3x3 convolutions, and its shortcuts
    that average before they project."""
    stem: Literal["imagenet", "small"] = "imagenet"
    """The first layers: for large images (``imagenet``), or a 3x3 convolution of stride 1 without pooling
    (``small``)."""
    source = "SimCLR v2, arXiv:2006.10029, section 2; SKNet, arXiv:1903.06586; code: google-research/simclr resnet.py"
    example = {"stem": "small"}


class BatchAndQueueSpec(Spec):
    """The keys of the batch, of all views with the query's own left out, and beside them the last ``size`` keys."""

    kind: Literal["batch_and_queue"] = "batch_and_queue"
    builds = ".memory:BatchAndQueue"
    size: int = Field(gt=0, le=2**30)
    """Number of keys in the queue."""
    gives = frozenset({"entries", "positive", "tagged entries"})
    source = "SimCLR v2, arXiv:2006.10029, section 2 (memory network); MoCo, arXiv:1911.05722, section 3.2"
    example = {"size": 24}

    def queued(self) -> tuple[str, int]:
        return "size", self.size
