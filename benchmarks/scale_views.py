"""How a step grows with the number of small crops, counted on a recipe's own networks with a few samples."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

import contralex
from benchmarks.loss import moment
from benchmarks.scale_memory import blank_views, memory_of
from benchmarks.scale_sizes import SAMPLES as DATASET
from benchmarks.scale_sizes import sizes_of_recipe
from contralex.training import build

SAMPLES = 2
CROPS = (0, 2, 4, 8)


def view_table() -> list[str]:
    rows = [
        "| recipe | small crops | GFLOPs of a sample | 3·F·V_q + F·V_k | activations of a sample, MB |",
        "|---|---|---|---|---|",
    ]
    for recipe in ("swav", "dino"):
        for crops in CROPS:
            flops, formula, kept = counted_views(recipe, crops)
            rows.append(f"| {recipe} | {crops} | {flops / 1e9:.1f} | {formula / 1e9:.1f} | {kept / 1e6:.0f} |")
    return rows


def counted_views(recipe: str, crops: int) -> tuple[float, float, float]:
    """Of a sample: the FLOPs of a step that are counted, those of the networks by the formula, and bytes kept."""
    sets = {"method.views.groups.locals": None} if crops == 0 else {"method.views.groups.locals.count": crops}
    spec = contralex.resolve(recipe, sets=sets).run
    method, views = build.look_up(spec, DATASET).train(), blank_views(spec, recipe, SAMPLES)
    with FlopCounterMode(display=False) as counter:
        method(views, torch.arange(SAMPLES), moment(SAMPLES)).loss.backward()
    kept = memory_of(spec, recipe, DATASET).sample
    formula = sizes_of_recipe(recipe, sets).flops(1) / spec.train.batch_size
    return counter.get_total_flops() / SAMPLES, formula, kept
