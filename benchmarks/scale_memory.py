"""The memory of a training process, by a formula: what each part of it takes as the processes share the batch out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import contralex
from benchmarks.measuring import peak_bytes
from benchmarks.scale_sizes import RECIPES, SAMPLES, blank
from contralex.lookup.step import LookUp
from contralex.lookup.view import ViewBatch
from contralex.recipes.run_spec import RunSpec
from contralex.training import build
from contralex.training.activation_memory import bytes_kept


@dataclass(frozen=True)
class Memory:
    """Bytes of a method."""

    learnt: int
    """Trained parameters, those of prototypes too."""
    states: int
    """Numbers that the optimiser keeps of each."""
    twin: int
    """The momentum encoder."""
    tables: int
    """Queues, banks, and what targets remember."""
    once: int
    """What the backward pass keeps, however many samples there are, such as weights in half precision."""
    sample: int
    """What the backward pass keeps of each sample."""
    passing: int
    """The most that the forward pass of a momentum encoder, which keeps nothing, holds at once of each sample."""

    def network(self, world: int) -> int:
        """Weights, gradients and the optimiser's state; on several processes the reduction's buckets as well."""
        return self.learnt * (2 + self.states + (world > 1))

    def activations(self, samples: int) -> int:
        return self.once + self.sample * samples

    def total(self, world: int, samples: int) -> int:
        """Of a process with so many samples."""
        return self.network(world) + self.twin + self.tables + self.activations(samples) + self.passing * samples


def memory_of(spec: RunSpec, name: str, dataset_size: int) -> Memory:
    """Count on batches of 2 and of 4, so that what does not grow with the batch is told apart."""
    method = build.look_up(spec, dataset_size).train()
    few, more = (blank_views(spec, name, count) for count in (2, 4))
    kept = [bytes_kept(spec, method.encoder, views) for views in (few, more)]
    sample = (kept[1] - kept[0]) // 2
    return Memory(
        learnt=sum(parameter.nbytes for parameter in method.parameters() if parameter.requires_grad),
        states=spec.train.optimizer.states,
        twin=sum(tensor.nbytes for tensor in fixed(method.key_encoder)),
        tables=table_bytes(method),
        once=kept[0] - 2 * sample,
        sample=sample,
        passing=(passing_bytes(spec, method, more) - passing_bytes(spec, method, few)) // 2,
    )


def passing_bytes(spec: RunSpec, method: LookUp, views: Mapping[int, ViewBatch]) -> int:
    """The most bytes at once of a momentum encoder's forward pass over the key views; 0 without one.

    Half precision has half of them: of a few samples they would vanish beside the weights, which are cast."""

    def encode() -> None:
        with torch.no_grad():
            method.encoder({view: views[view] for view in method.encoded_keys})

    if not fixed(method.key_encoder):
        return 0
    return peak_bytes(encode, warm_up=False) // (1 if spec.train.precision == "fp32" else 2)


def blank_views(spec: RunSpec, name: str, count: int) -> dict[int, Tensor]:
    views = spec.method.views.build()
    return {view: torch.stack([views.make(blank(256, name), view)] * count) for view in range(views.count)}


def table_bytes(method: LookUp) -> int:
    parts = [part for question in method.questions.values() for part in (question.negatives, question.targets)]
    return sum(tensor.nbytes for part in parts for tensor in fixed(part))


def fixed(module: nn.Module) -> list[Tensor]:
    """What a module holds and does not train."""
    return [*(each for each in module.parameters() if not each.requires_grad), *module.buffers()]


def memory_table() -> list[str]:
    rows = [
        "| recipe | precision | weights, gradients, optimiser, buckets, GB | momentum encoder, GB | dictionary, GB | "
        "activations of a sample, MB | keys' pass, MB | samples, 8 | 256 | GB on each of 8 | of 256 |",
        "|---|" + "---|" * 10,
    ]
    for recipe in RECIPES:
        spec = contralex.resolve(recipe).run
        found = memory_of(spec, recipe, SAMPLES)
        samples = [spec.train.batch_size // world for world in (8, 256)]
        totals = [found.total(world, each) for world, each in zip((8, 256), samples, strict=True)]
        parts = [f"{part / 1e9:.2f}" for part in (found.network(8), found.twin, found.tables)]
        parts += [f"{part / 1e6:.0f}" for part in (found.sample, found.passing)]
        rows.append(
            f"| {recipe} | {spec.train.precision} | {' | '.join(parts)} | "
            f"{samples[0]:,} | {samples[1]:,} | {totals[0] / 1e9:.1f} | {totals[1] / 1e9:.1f} |"
        )
    return rows
