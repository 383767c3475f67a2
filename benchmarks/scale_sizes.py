"""What a recipe's own sizes predict: FLOPs and bytes of a step on 8 and on 256 GPUs. One view is encoded to count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import contralex

RECIPES = ("simclr-v1", "moco-v2", "moco-v3", "byol", "simsiam", "swav", "dino", "barlow", "vicreg", "clip")
SAMPLES = 1_281_167
"""Of ImageNet's training set."""


@dataclass(frozen=True)
class Sizes:
    """What a recipe's cost follows from."""

    batch: int
    dim: int
    parameters: int
    """Of the encoder: what is trained, and what DistributedDataParallel reduces."""
    forward: tuple[int, ...]
    """FLOPs of encoding one view, for each view of a sample."""
    query_views: tuple[int, ...]
    key_views: tuple[int, ...]
    is_shared: bool
    """Whether keys are the queries' own embeddings, so that they cost no forward pass."""
    has_gradient: bool
    """Whether keys carry a gradient."""
    shuffled: int
    """Bytes of one sample's key views, where they are exchanged for shuffled BatchNorm."""

    def flops(self, world: int) -> float:
        """Of the networks, for one process and step: three forward passes' worth for a view with gradient."""
        asked = sum(self.forward[view] for view in self.query_views) * 3
        missing = set(self.key_views) - set(self.query_views)
        keys = (
            sum(self.forward[view] for view in missing) * (3 if self.has_gradient else 1)
            if self.is_shared
            else sum(self.forward[view] for view in self.key_views)
        )
        return self.batch * (asked + keys) / world

    def reduced(self, world: int) -> float:
        """Bytes that a process sends in a ring reduction of the gradients, in float32."""
        return 2 * (world - 1) / world * 4 * self.parameters

    def exchanged(self) -> int:
        """Bytes of key vectors that a process receives, and of their gradient; without tags, which are integers."""
        vectors = gathered_bytes(self.batch, len(self.key_views), self.dim, gradient=self.has_gradient)
        return vectors + self.batch * self.shuffled


def gathered_bytes(batch: int, key_views: int, dim: int, *, gradient: bool) -> int:
    """Bytes of the keys of all processes, and as many again for their gradient. It does not depend on the number of
    processes."""
    return 4 * batch * key_views * dim * (2 if gradient else 1)


def prediction_table() -> list[str]:
    rows = [
        "| recipe | batch | parameters, M | TFLOPs a step | each of 8 | of 256 | keys, MB | reduced, MB, 8 | 256 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe in RECIPES:
        sizes = sizes_of_recipe(recipe)
        by_world = [f"{sizes.flops(world) / 1e12:.2f}" for world in (8, 256)]
        reduced = [f"{sizes.reduced(world) / 1e6:.0f}" for world in (8, 256)]
        rows.append(
            f"| {recipe} | {sizes.batch:,} | {sizes.parameters / 1e6:.1f} | {sizes.flops(1) / 1e12:.1f} | "
            f"{' | '.join(by_world)} | {sizes.exchanged() / 1e6:.1f} | {' | '.join(reduced)} |"
        )
    return rows


def sizes_of_recipe(recipe: str, sets: Mapping[str, Any] | None = None, preset: str | None = None) -> Sizes:
    spec = contralex.resolve(recipe, preset=preset, sets=sets).run
    encoder, views = spec.method.encoder.build().eval(), spec.method.views.build()
    made = {view: views.make(blank(256, recipe), view).unsqueeze(0) for view in range(views.count)}
    forward = []
    for view, one in made.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoder.queries(encoder({view: one}))
        forward.append(counter.get_total_flops())
    matches = spec.matches()
    key_views = tuple(sorted({key for _, key in matches}))
    key_encoder = spec.method.key_encoder
    has_shuffle = key_encoder.kind_name() == "momentum" and key_encoder.shuffle_bn
    return Sizes(
        batch=spec.train.batch_size,
        dim=encoder.dim,
        parameters=sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad),
        forward=tuple(forward),
        query_views=tuple(sorted({query for query, _ in matches})),
        key_views=key_views,
        is_shared=key_encoder.kind_name() == "shared",
        has_gradient=key_encoder.kind_name() == "shared" and key_encoder.gradient,
        shuffled=sum(made[view].nbytes for view in key_views) if has_shuffle else 0,
    )


def blank(size: int, recipe: str) -> Image.Image:
    """An image to make views of, with a caption where the recipe reads one."""
    image = Image.new("RGB", (size, size))
    if recipe not in ("clip", "siglip"):
        return image
    from contralex_clip.captions import set_caption

    return set_caption(image, "a photograph")
