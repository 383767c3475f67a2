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
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import contralex
from benchmarks.loss import DIM, backward, in_batch_step, moment, two_views
from benchmarks.measuring import Options, peak_bytes
from benchmarks.scale_memory import memory_table
from benchmarks.scale_sizes import prediction_table
from benchmarks.scale_views import view_table
from contralex.data.loading import EpochSampler, ViewDataset, collate
from contralex.plugin import PrototypeSource, QueueSource, SharedKeyEncoder, SoftCrossEntropy
from tests.processes import free_port, join, spawn

FILE = Path(__file__).resolve().parents[1] / "docs/performance.md"
_START, _END = "<!-- written by benchmarks: {} -->\n", "<!-- /{} -->\n"
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
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"Which tables: {', '.join(TABLES)}. All without.")
    arguments = parser.parse_args()
    for name in arguments.tables or TABLES:
        write_table(name, TABLES[name](), only_print=arguments.print)


def write_table(name: str, rows: Sequence[str], *, only_print: bool) -> None:
    """Print a table, and put it between its marks in docs/performance.md."""
    print("\n".join(rows), flush=True)
    if only_print:
        return
    text, start, end = FILE.read_text("utf-8"), _START.format(name), _END.format(name)
    before, after = text.split(start)[0], text.split(end)[1]
    FILE.write_text(f"{before}{start}\n" + "\n".join(rows) + f"\n\n{end}{after}", "utf-8")


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


TABLES: dict[str, Callable[[], list[str]]] = {
    "look-ups": look_up_table,
    "views": view_table,
    "collectives": collective_table,
    "ImageNet": prediction_table,
    "ImageNet memory": memory_table,
}


if __name__ == "__main__":
    main()
