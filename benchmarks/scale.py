"""What a step's look-up costs as it grows, counted: FLOPs, memory, and the bytes that processes exchange.

python -m benchmarks.scale                        to docs/performance.md, between its marks
python -m benchmarks.scale --print                to the terminal alone

Nothing is timed, so it may run on a machine that does other things. FLOPs are those of matrix products, counted as
they are dispatched. Memory is that of torch's allocator. Bytes are those that a process hands to a collective of
``torch.distributed``; DistributedDataParallel's own reduction, which is 4 bytes for each trained parameter, is not in
them, nor is that of synchronised BatchNorm.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import contralex
from benchmarks.loss import DIM, backward, in_batch_step, moment, two_views
from benchmarks.measuring import Options, peak_bytes
from contralex.data.loading import EpochSampler, ViewDataset, collate
from contralex.plugin import PrototypeSource, QueueSource, SharedKeyEncoder, SoftCrossEntropy
from tests.processes import free_port, join, spawn

FILE = Path(__file__).resolve().parents[1] / "docs/performance.md"
_START, _END = "<!-- written by benchmarks/scale.py: {} -->\n", "<!-- /{} -->\n"
WORLDS = (1, 2, 4)
BATCH = 32
RECIPES = (
    "simclr-v1", "moco-v2", "moco-v3", "byol", "simsiam", "swav", "dino", "barlow", "vicreg", "nnclr", "clip",
    "siglip", "supcon", "instdisc", "mae", "densecl", "tico", "ibot", "dinov2", "ijepa", "slip",
)  # fmt: skip


@dataclass(frozen=True)
class Count:
    """The FLOPs of matrix products, and the extra memory, of one look-up with its gradient."""

    flops: int
    bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="Print the tables, and write nothing.")
    arguments = parser.parse_args()
    tables = {"look-ups": look_up_table(), "collectives": collective_table(), "ImageNet": prediction_table()}
    text = FILE.read_text("utf-8")
    for name, rows in tables.items():
        print("\n".join(rows), flush=True)
        start, end = _START.format(name), _END.format(name)
        before, after = text.split(start)[0], text.split(end)[1]
        text = f"{before}{start}\n" + "\n".join(rows) + f"\n\n{end}{after}"
    if not arguments.print:
        FILE.write_text(text, "utf-8")


# One process: how a look-up grows


def look_up_table() -> list[str]:
    rows = ["| look-up | N | E | FLOPs / (N·E·D) | extra memory, MB | N·E float32, MB |", "|---|---|---|---|---|---|"]
    for name, sizes in {
        "in-batch, both views (SimCLR)": (256, 512, 1024, 2048),
        "in-batch, the other view (CLIP)": (256, 512, 1024, 2048),
        "queue (MoCo)": (4096, 16384, 65536),
        "prototypes (SwAV)": (512, 3000, 12000),
    }.items():
        for size in sizes:
            queries, entries, count = counted(name, size)
            per = count.flops / (queries * entries * DIM)
            plain = 4 * queries * entries
            rows.append(
                f"| {name} | {queries:,} | {entries:,} | {per:.2f} | {count.bytes / 1e6:.1f} | {plain / 1e6:.1f} |"
            )
    return rows


def counted(name: str, size: int) -> tuple[int, int, Count]:
    """Queries, entries of each, and the count. ``size``: samples, or the keys of a queue, or prototypes."""
    options = Options(small=True)
    instance, info = contralex.InstanceTargets(), contralex.InfoNCE(0.1)
    if name.startswith("in-batch"):
        views = "all" if "both" in name else "matched"
        a, b = two_views(size, "cpu")
        step = in_batch_step(info, instance, options, views)
        entries = 2 * size if views == "all" else size
        return 2 * size, entries, count(lambda: backward(step(a, b), a, b))
    batch = 256
    query, key = two_views(batch, "cpu")
    key = key.detach()
    if name.startswith("queue"):
        method = _method(QueueSource(size, DIM), instance, info)
    else:
        prototypes = PrototypeSource(size, DIM, normalize=False)
        method = _method(prototypes, _sinkhorn(), SoftCrossEntropy(0.1))
    sample, step_now = torch.arange(batch), moment(batch)
    trained = [query, *method.parameters()]
    return batch, size, count(lambda: backward(method({0: query, 1: key}, sample, step_now).loss, *trained))


def _method(negatives: Any, targets: Any, loss: Any) -> contralex.LookUp:
    encoder = contralex.ImageEncoder(contralex.Backbone(nn.Identity(), dim=DIM))
    match = [contralex.Match(0, 1)]
    return contralex.LookUp(encoder, SharedKeyEncoder(gradient=False), negatives, targets, loss, matches=match)


def _sinkhorn() -> Any:
    from contralex_swav.sinkhorn import SinkhornTargets

    return SinkhornTargets(DIM, (1,), epsilon=0.05, iterations=3)


def _product_flops(_: Any, left: Sequence[int], right: Sequence[int], *rest: Any, **named: Any) -> int:
    return 2 * left[0] * left[1] * right[1]


IN_PLACE = {torch.ops.aten.addmm_: _product_flops}  # which torch's counter leaves out


def count(call: Callable[[], object]) -> Count:
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        call()
    return Count(counter.get_total_flops(), peak_bytes(call))


# Several processes: what they exchange


def collective_table() -> list[str]:
    rows = [
        f"| recipe | {' | '.join(f'bytes a step, {world} processes' for world in WORLDS[1:])} | collectives |",
        "|---|" + "---|" * len(WORLDS),
    ]
    found = {world: exchanged(world) for world in WORLDS[1:]}
    for recipe in RECIPES:
        sizes = [f"{sum(size for size, _ in found[world][recipe].values()):,}" for world in WORLDS[1:]]
        kinds = ", ".join(f"{times}× {name}" for name, (_, times) in sorted(found[WORLDS[-1]][recipe].items()))
        rows.append(f"| {recipe} | {' | '.join(sizes)} | {kinds or 'none'} |")
    return rows


def exchanged(world: int, recipes: Sequence[str] = RECIPES) -> dict[str, dict[str, tuple[int, int]]]:
    """By recipe and collective: the bytes that each process receives or reduces in a step, and how many calls."""
    queue = mp.get_context("forkserver").SimpleQueue()
    spawn(_worker, (world, free_port(), tuple(recipes), queue), world)
    found: dict[str, dict[str, tuple[int, int]]] = queue.get()
    return found


def _worker(rank: int, world: int, port: int, recipes: Sequence[str], queue: Any) -> None:
    join(rank, port, world)
    found = {}
    for recipe in recipes:
        seen = Collectives()
        step = one_step(recipe)
        with seen:
            step()
        found[recipe] = {name: (seen.bytes[name], seen.calls[name]) for name in seen.calls}
    if rank == 0:
        queue.put(found)
    dist.barrier()
    dist.destroy_process_group()


def one_step(recipe: str) -> Callable[[], None]:
    """A step of a recipe's method, with its preset ``digits``, on this process's part of a batch of 32."""
    method = contralex.build(recipe, preset="digits", sets={"train.precision": "fp32", "train.batch_size": BATCH})
    run = contralex.resolve(recipe, preset="digits").run
    split = run.data.build().train()
    images = ViewDataset(split, run.method.views.build(), run.train.seed, BATCH)
    sampler = EpochSampler(len(split), BATCH, run.train.seed, 1, dist.get_rank(), dist.get_world_size())
    batch = collate([images[at] for at in next(iter(sampler))])

    def train() -> None:
        step = moment(BATCH)
        result = method(batch["views"], batch["index"], step)
        result.loss.backward()
        method.update(result.keys, step)

    return train


def blank(size: int, recipe: str) -> Image.Image:
    """An image to make views of, with a caption where the recipe reads one."""
    image = Image.new("RGB", (size, size))
    if recipe not in ("clip", "siglip"):
        return image
    from contralex_clip.captions import set_caption

    return set_caption(image, "a photograph")


class Collectives:
    """Within, counts the calls of torch.distributed's collectives, and the bytes that come out of each."""

    names = ("all_gather", "all_gather_into_tensor", "all_reduce", "all_to_all_single", "broadcast", "reduce_scatter")

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __enter__(self) -> Collectives:
        self._kept = {name: getattr(dist, name) for name in self.names}
        for name, function in self._kept.items():
            setattr(dist, name, self._counting(name, function))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._kept.items():
            setattr(dist, name, function)

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **named: Any) -> Any:
            out = first if isinstance(first, list) else [first]
            self.calls[name] += 1
            self.bytes[name] += sum(tensor.nbytes for tensor in out)
            return function(first, *rest, **named)

        return call


# Predictions: a recipe's own sizes


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
    for recipe in ("simclr-v1", "moco-v2", "moco-v3", "byol", "simsiam", "swav", "dino", "barlow", "vicreg", "clip"):
        sizes = sizes_of_recipe(recipe)
        by_world = [f"{sizes.flops(world) / 1e12:.2f}" for world in (8, 256)]
        reduced = [f"{sizes.reduced(world) / 1e6:.0f}" for world in (8, 256)]
        rows.append(
            f"| {recipe} | {sizes.batch:,} | {sizes.parameters / 1e6:.1f} | {sizes.flops(1) / 1e12:.1f} | "
            f"{' | '.join(by_world)} | {sizes.exchanged() / 1e6:.1f} | {' | '.join(reduced)} |"
        )
    return rows


def sizes_of_recipe(recipe: str) -> Sizes:
    spec = contralex.resolve(recipe).run
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


if __name__ == "__main__":
    main()
