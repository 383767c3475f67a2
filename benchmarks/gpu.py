"""A step of ResNet-50 at 224 pixels beside a bare loop: its time and memory; and views that the device makes. For
``benchmarks/gpu.sh``.

Batches are on the device already. contralex's side is what its trainer calls: the method, the optimiser, the update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import contralex
from benchmarks.loss import moment
from benchmarks.measuring import OURS, Case, Options, Peers, Report, compare_calls, main
from benchmarks.photographs import WIDE, pictures
from benchmarks.step import MoCo, Network, SimCLR
from contralex.data.packed import PackedViews


def measure(options: Options, report: Report, peers: Peers) -> None:
    pixels, network = (32, "resnet18") if options.small else (224, "resnet50")
    for recipe, batch in (
        (("moco-v2", 4), ("simclr-v1", 4)) if options.small else (("moco-v2", 256), ("simclr-v1", 256))
    ):
        for precision in ("fp32", "bf16"):
            name = f"{recipe}, {network}, {pixels} px, batch {batch}, {precision}"
            report.begin(name)
            calls = steps(recipe, network, batch, pixels, precision, options)
            report.add(compare_calls(name, calls, options, with_memory=True, least=0.5))
    report.begin("two views of a batch of photographs")
    report.add(views_on_device(options))


def views_on_device(options: Options) -> Case:
    """MoCo v2's two views of a batch of photographs: what a worker does for them on its core, and what the device
    does."""
    batch = 4 if options.small else 256
    views: Any = contralex.resolve("moco-v2", sets={"method.views.device": "accelerator"}).run.method.views.build()
    images, device = pictures(batch, WIDE), torch.device(options.device)

    def pack(view: int) -> PackedViews:
        drawn = [views.draw_parameters(image, view) for image in images]
        return PackedViews.join(views.pack_drawn(images, view, drawn))

    packed = [pack(view).to(device) for view in range(2)]
    calls: dict[str, Callable[[], object]] = {
        "on the device": lambda: [views.unpack(each, view) for view, each in enumerate(packed)],
        "by a worker, without reading": lambda: [pack(view) for view in range(2)],
    }
    return compare_calls(f"two views of {batch} photographs", calls, options, with_memory=True, least=0.5)


def steps(
    recipe: str, network: str, batch: int, pixels: int, precision: str, options: Options
) -> dict[str, Callable[[], object]]:
    sets = {"method.encoder.backbone.name": network, "train.batch_norm": "local", "train.batch_size": batch}
    method = contralex.build(recipe, dataset_size=2**17, sets=sets).to(options.device)
    bare: nn.Module = Network(contralex.build(recipe, dataset_size=2**17, sets=sets).encoder).to(options.device)
    loss = SimCLR(bare) if recipe.startswith("simclr") else MoCo(bare, options.device)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(batch, 3, pixels, pixels, generator=generator).to(options.device) for _ in range(2))
    sample, moved = torch.arange(batch, device=options.device), 0.01
    ours_sgd = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=moved, momentum=0.9)
    bare_sgd = torch.optim.SGD(bare.parameters(), lr=moved, momentum=0.9)
    kind, is_half = torch.device(options.device).type, precision == "bf16"

    def one_step() -> None:
        step = moment(batch)
        with torch.autocast(kind, torch.bfloat16, enabled=is_half):
            result = method({0: a, 1: b}, sample, step)
        result.loss.backward()
        ours_sgd.step()
        ours_sgd.zero_grad()
        method.update(result.keys, step)

    def by_hand() -> None:
        with torch.autocast(kind, torch.bfloat16, enabled=is_half):
            found = loss(a, b)
        found.backward()
        bare_sgd.step()
        bare_sgd.zero_grad()
        loss.update()

    return {OURS: one_step, "bare loop": by_hand}


if __name__ == "__main__":
    main(__doc__ or "", "gpu", measure)
