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
from benchmarks.measuring import OURS, Case, Options, Peers, Report, compare_calls, main, peak_bytes
from benchmarks.photographs import WIDE, pictures
from benchmarks.ready import CLOCK
from benchmarks.step import CONV, MoCo, Network, SimCLR, Task, ours
from contralex.data.packed import PackedViews


def measure(options: Options, report: Report, peers: Peers) -> None:
    pixels, network = (32, "resnet18") if options.small else (224, "resnet50")
    for recipe, batch in (
        (("moco-v2", 4), ("simclr-v1", 4)) if options.small else (("moco-v2", 256), ("simclr-v1", 256))
    ):
        for precision in ("fp32", "bf16"):
            calls = steps(recipe, network, batch, pixels, precision, options)
            name = f"{recipe}, {network}, {pixels} px, batch {batch}, {precision}"
            report.add(compare_calls(name, calls, options, with_memory=True, least=0.5))
    report.add(views_on_device(options))
    report.add(in_parts(options))


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


def in_parts(options: Options) -> Case:
    """SimCLR's batch of 4096 in parts of 64, beside a batch of 64: the memory of a run of two steps, with its data.

    BatchNorm is computed in groups of a part, so that a batch may be encoded in parts. Only small runs warm up: others
    take long.
    """
    size, parts = (128, 32) if options.small else (4096, 64)
    backbone = CONV if options.small else "{kind: torchvision, name: resnet50}"
    pixels = 32 if options.small else 224
    case = Case(f"simclr in parts of {parts}, {pixels} px, batch {size}")
    same = {"train.precision": "bf16", "train.batch_norm": parts}
    divided = same | {"train.micro_batch": parts}
    whole, small = (Task("", "simclr", backbone, pixels, batch, 2) for batch in (size, parts))
    case.bytes[f"a batch of {parts}"] = peak_bytes(lambda: ours(small, same), options.device, warm_up=options.small)
    case.bytes[OURS] = peak_bytes(lambda: ours(whole, divided), options.device, warm_up=options.small)
    case.figures["seconds a step, with its data"] = CLOCK.mean_seconds()
    return case


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
